"""Effects log: workers append a line for each attempt and result; read while it grows."""

import threading
import time
from collections import Counter, defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

READ_EVERY_S = 0.02


@dataclass(frozen=True, slots=True)
class Effect:
    """One line of the log.

    Attributes:
        event: ``begin`` of an attempt, its ``result``, or the ``end`` of a delivery, whose
            fate is in the ledger then; ``obey`` an order, which is then in place of the job.
        at: Seconds since the epoch.
    """

    event: str
    job_id: str
    slot: str
    pid: int
    at: float

    @classmethod
    def read(cls, line: str) -> Self:
        """Read a line as ``tests.support.apps.instant`` writes it."""
        event, job_id, slot, pid, at = line.split()
        return cls(event, job_id, slot, int(pid), float(at))


class EffectsLog:
    """Thread that follows the log and counts attempts, results and ends.

    Attributes:
        begun: How often an attempt of each job began.
        begun_by: Processes in which an attempt of each job began.
        results: How often a result of each job was made.
        ended: How many deliveries of each job came to an end.
        obeyed: Slot and process id of those that obeyed each order.
    """

    def __init__(self, path: Path, *, on_effect: Callable[[Effect], None] | None = None) -> None:
        self.path = path
        self.begun: Counter[str] = Counter()
        self.begun_by: defaultdict[str, set[int]] = defaultdict(set)
        self.results: Counter[str] = Counter()
        self.ended: Counter[str] = Counter()
        self.obeyed: defaultdict[str, list[tuple[str, int]]] = defaultdict(list)
        self._bytes_read = 0
        self._on_effect = on_effect
        self._in_work: dict[int, set[str]] = {}
        self._lock = threading.Lock()
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._follow, name="chaos-effects")
        path.touch()

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._closed.set()
        self._thread.join()

    def catch_up(self) -> None:
        """Wait until the present end of the log has been read."""
        size = self.path.stat().st_size
        while self._bytes_read < size:
            time.sleep(READ_EVERY_S)

    def in_work(self, pid: int) -> int:
        """Count the attempts that a process began and did not end."""
        with self._lock:
            return len(self._in_work.get(pid, ()))

    def _follow(self) -> None:
        with self.path.open() as log:
            rest = ""
            while True:
                is_last = self._closed.is_set()
                *lines, rest = (rest + log.read()).split("\n")
                for line in lines:
                    self._take(Effect.read(line))
                    self._bytes_read += len(line) + 1
                if is_last:
                    return
                self._closed.wait(READ_EVERY_S)

    def _take(self, effect: Effect) -> None:
        with self._lock:
            in_work = self._in_work.setdefault(effect.pid, set())
            if effect.event == "begin":
                self.begun[effect.job_id] += 1
                self.begun_by[effect.job_id].add(effect.pid)
                in_work.add(effect.job_id)
            elif effect.event == "result":
                self.results[effect.job_id] += 1
            elif effect.event == "end":
                self.ended[effect.job_id] += 1
                in_work.discard(effect.job_id)
            elif effect.event == "obey":
                self.obeyed[effect.job_id].append((effect.slot, effect.pid))
        if self._on_effect is not None:
            self._on_effect(effect)
