"""Work of one part of a run: the properties that plans, shards and ends share."""

from dataclasses import dataclass
from typing import Protocol, TypeVar

from labelyard.ledger import Ledger
from labelyard.queues import Queue
from labelyard.runs.ledger import RunLedger
from labelyard.runs.parts import RunPart
from labelyard_worker.jobs.work import Work

R = TypeVar("R")


class PartServices(Protocol):
    """Services of a worker that each part of a run uses."""

    @property
    def runs(self) -> RunLedger:
        """Records of runs and of their parts."""


@dataclass(frozen=True)
class PartWork(Work[R]):
    """One part of a run, with its own record.

    Attributes:
        part: The part, as its message names it.
        parts: Parts of the worker that do its work.
    """

    part: RunPart
    parts: PartServices

    @property
    def job_id(self) -> str:
        """Id of the part's record."""
        return self.part.job_id

    @property
    def tenant(self) -> str:
        """Tenant of the run."""
        return self.part.tenant

    @property
    def digest(self) -> str:
        """Digest of the part's message."""
        return self.part.digest()

    def to_json(self) -> str:
        """Write the part as its message."""
        return self.part.model_dump_json()

    def adopt(self, ledger: Ledger, *, queue: Queue) -> bool:  # noqa: ARG002 - of the part itself
        """Write the record of a part of which only the message came."""
        return self.parts.runs.adopt(self.part)
