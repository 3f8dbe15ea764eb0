"""Leader election: one worker of a namespace at a time does the work that must not be done twice."""

from typing import Final

from redis.exceptions import RedisError

from labelyard.ledger import Ledger
from labelyard_worker.maintenance.reconciler_scripts import LEAD

LEADER_TTL_S: Final = 10.0


class LeaderElection:
    """LeaderElection is responsible for the lock in the ledger that names the leading worker.

    A leader that dies is replaced after ``LEADER_TTL_S``, one that resigns at once.

    Args:
        worker: Name of this worker, unique among all that run.
    """

    def __init__(self, ledger: Ledger, *, worker: str) -> None:
        self.worker = worker
        self._ledger = ledger
        self._lead = ledger.client.register_script(LEAD)

    def is_leader(self) -> bool:
        """Become the leader or renew the lock, unless another worker leads.

        Raises:
            RedisError: The ledger gave no answer.
        """
        args: list[str | int] = [self.worker, int(LEADER_TTL_S * 1000)]
        return bool(self._lead(keys=[self._ledger.keys.leader], args=args))

    def resign(self) -> None:
        """Let another worker lead at once; a ledger that is away lets the lock expire."""
        key = self._ledger.keys.leader
        try:
            if self._ledger.client.get(key) == self.worker:
                self._ledger.client.delete(key)
        except (RedisError, OSError):
            return
