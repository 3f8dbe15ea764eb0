"""Duties of the leader beside the reconciler: short pieces of work, repeated while it leads."""

import logging
import threading
from collections.abc import Callable, Mapping
from typing import Final

from redis.exceptions import RedisError

from labelyard.errors import LabelyardError
from labelyard.ledger import Ledger
from labelyard.ledger.backlog import BacklogRecount
from labelyard.ledger.event_commands import EventCommands
from labelyard.publisher import Publisher
from labelyard.tenants import write_weights
from labelyard_worker.maintenance.leader import LeaderElection
from labelyard_worker.settings.events import EventSettings

log = logging.getLogger(__name__)

EVERY_S: Final = 10.0
# How soon a worker that was elected begins.
LOOK_EVERY_S: Final = 1.0


class LeaderDuties:
    """LeaderDuties is responsible for the work that one worker of a namespace repeats.

    It is done when this worker has become the leader, and every *every_s* seconds from then on.
    Elections are the reconciler's: for a moment two workers may do the work, which does no harm.

    Args:
        duties: Work by its name in the log. An error of one does not keep the others from theirs.
        name: Name of the thread.
        woken: Set by whoever wants the work done now, without the wait.
    """

    def __init__(
        self,
        duties: Mapping[str, Callable[[], object]],
        *,
        leader: LeaderElection,
        every_s: float = EVERY_S,
        name: str = "labelyard-leader-duties",
        woken: threading.Event | None = None,
    ) -> None:
        self._duties = duties
        self._leader = leader
        self._every_s = every_s
        self._is_closed = False
        self._woken = woken if woken is not None else threading.Event()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    def start(self) -> None:
        """Start to look for the leadership."""
        self._thread.start()

    def close(self) -> None:
        """End the work."""
        self._is_closed = True
        self._woken.set()
        if self._thread.is_alive():
            self._thread.join()

    def _run(self) -> None:
        pause_s = LOOK_EVERY_S
        while True:
            self._woken.wait(min(pause_s, self._every_s))
            self._woken.clear()
            if self._is_closed:
                return
            pause_s = LOOK_EVERY_S
            if self._leader.is_leading:
                for name, work in self._duties.items():
                    self._try(name, work)
                pause_s = self._every_s

    def _try(self, name: str, work: Callable[[], object]) -> None:
        try:
            work()
        except (LabelyardError, RedisError, OSError) as error:
            fields = {"duty": name, "why": type(error).__name__}
            log.warning("leader_duty_waits", extra={"fields": fields})
        except Exception:
            log.exception("leader_duty_failed", extra={"fields": {"duty": name}})


def duties_of(
    ledger: Ledger, publisher: Publisher, events: EventSettings
) -> dict[str, Callable[[], object]]:
    """Return the duties of a leader.

    - The weights of tenants are written to the broker, because one that was emptied lacks them.
    - The backlog is compared with the records, a bounded number of entries at a time.
    - The bounds of the event stream are written to the ledger, whose scripts keep them; old events
      are dropped.
    """
    recount = BacklogRecount(ledger)
    bounds = EventCommands(ledger.keys, open_ttl_s=ledger.commands.open_ttl_s).trim(
        max_entries=events.events_max_entries,
        max_age_s=events.events_max_age_s,
        result_max_bytes=events.event_result_max_bytes,
    )

    def correct_backlog() -> None:
        if entries := recount.step():
            log.warning("backlog_corrected", extra={"fields": {"entries": entries}})

    return {
        "tenant_weights": lambda: write_weights(ledger, publisher),
        "backlog": correct_backlog,
        "events": lambda: ledger.run(bounds),
    }
