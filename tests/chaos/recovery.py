"""Recovery time: from the start of a fault until every affected worker finishes a job again.

The time counts from the beginning of the fault, its duration included, to the end of the first
attempt that an affected worker both began and brought to its end after the fault was over (the
job's fate is in the ledger by then). Where several workers are affected, the last of them counts.
A worker whose process was ended must have done it with a new process. A poison job is its own
affected part: it has recovered when it is a dead letter.
"""

import statistics
import threading
import time
from collections import defaultdict
from dataclasses import dataclass, field

from tests.chaos.effects import Effect


@dataclass(eq=False)
class Hit:
    """A fault that was inflicted.

    Attributes:
        slots: Names of the workers that must finish a job again.
        old_pids: Processes that do not count any more.
        job_id: The poison job that must be buried, in place of *slots*.
        over_at: When the fault was over, None while it lasts.
    """

    name: str
    started_at: float = field(default_factory=time.time)
    slots: set[str] = field(default_factory=set)
    old_pids: set[int] = field(default_factory=set)
    job_id: str = ""
    over_at: float | None = None

    @property
    def is_recovered(self) -> bool:
        """Return whether every affected worker has finished a job again."""
        return self.over_at is not None and not self.slots and not self.job_id


class Recoveries:
    """Recovery times of all faults, from the workers' effects; callable from several threads."""

    def __init__(self) -> None:
        self.seconds: dict[str, list[float]] = defaultdict(list)
        self._pending: list[Hit] = []
        self._begun_at: dict[tuple[int, str], float] = {}
        self._lock = threading.Lock()

    def begin(self, name: str) -> Hit:
        """Note that a fault begins."""
        return Hit(name)

    def end(self, hit: Hit) -> None:
        """Note that a fault is over; its affected workers have yet to recover."""
        hit.over_at = time.time()
        with self._lock:
            self._pending.append(hit)

    def on_effect(self, effect: Effect) -> None:
        """Match an effect of a worker with the faults that hit it."""
        attempt = (effect.pid, effect.job_id)
        if effect.event == "begin":
            self._begun_at[attempt] = effect.at
        if effect.event != "end":
            return
        begun_at = self._begun_at.pop(attempt, 0.0)
        with self._lock:
            for hit in list(self._pending):
                if begun_at > (hit.over_at or 0) and effect.pid not in hit.old_pids:
                    hit.slots.discard(effect.slot)
                self._settle(hit, effect.at)

    def note_final(self, job_id: str, at: float) -> None:
        """Note that a poison job reached its final state."""
        with self._lock:
            for hit in list(self._pending):
                if hit.job_id == job_id:
                    hit.job_id = ""
                    self._settle(hit, at)

    def _settle(self, hit: Hit, at: float) -> None:
        if hit.is_recovered:
            self.seconds[hit.name].append(at - hit.started_at)
            self._pending.remove(hit)

    def pending(self) -> list[Hit]:
        """List the faults whose workers have not recovered."""
        with self._lock:
            return list(self._pending)

    def summary(self) -> dict[str, dict[str, float]]:
        """Return the median and the longest recovery time for each kind of fault."""
        return {
            name: {"median": round(statistics.median(times), 2), "max": round(max(times), 2)}
            for name, times in sorted(self.seconds.items())
        }
