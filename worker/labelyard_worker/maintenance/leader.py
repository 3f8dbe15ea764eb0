"""Leader election: one worker of a namespace at a time does the work that must not be done twice."""

from typing import Final

from labelyard.errors import LedgerUnavailableError
from labelyard.ledger import Ledger
from labelyard.ledger.maintenance import MaintenanceLedger

LEADER_TTL_S: Final = 10.0


class LeaderElection:
    """LeaderElection is responsible for the lock in the ledger that names the leading worker.

    A leader that dies is replaced after ``LEADER_TTL_S``, one that resigns at once.

    Args:
        worker: Name of this worker, unique among all that run.

    Attributes:
        is_leading: The ledger's last answer; it stands while the ledger is away.
    """

    def __init__(self, ledger: Ledger, *, worker: str) -> None:
        self.worker = worker
        self.is_leading = False
        self._ledger = MaintenanceLedger(ledger)

    def is_leader(self) -> bool:
        """Become the leader or renew the lock, unless another worker leads.

        Raises:
            LedgerUnavailableError: The ledger gave no answer.
        """
        self.is_leading = self._ledger.lead(self.worker, ttl_s=LEADER_TTL_S)
        return self.is_leading

    def resign(self) -> None:
        """Let another worker lead at once; a ledger that is away lets the lock expire."""
        self.is_leading = False
        try:
            self._ledger.resign(self.worker)
        except LedgerUnavailableError:
            return
