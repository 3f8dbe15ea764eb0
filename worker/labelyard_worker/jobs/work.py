"""Work: the interface between the executor and one kind of job.

A classification is one kind (``classify_job.py``). Another kind may keep its result in an
object instead of the record, or split itself instead of being buried.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from labelyard.ledger import Ledger, Pending
from labelyard.messages import Failure
from labelyard.outgoing import TASK
from labelyard.queues import Queue
from labelyard_worker.jobs.cancellation import Token
from labelyard_worker.jobs.delivery.plan import Delivery
from labelyard_worker.spans import Attributes

R = TypeVar("R")


@dataclass(frozen=True, slots=True)
class ReceivedMessage:
    """One receipt of a message, with the fields of its envelope.

    Attributes:
        body: JSON text as the admission gate hands it on, or a parsed object.
        queue: The queue that brought it.
        task_id: Id of the call, under which a message without a job id is failed.
        expires_at: When the call expires (seconds since the epoch), if it says so.
        published_at: When the message was published, by its own word; 0 if it has none.
        returned_by: The attempt that was given back with it, see
            :class:`labelyard.ledger.Receipt`.
        task: Task of the call.
    """

    body: Any
    queue: Queue
    task_id: str = ""
    expires_at: float | None = None
    published_at: float = 0.0
    returned_by: str = ""
    task: str = TASK


class Work(ABC, Generic[R]):
    """One job of some kind, made from one received message; *R* is the kind's result.

    Its expiry stands in its record: the ledger counts it, and the token of each attempt
    carries it.
    """

    @property
    @abstractmethod
    def job_id(self) -> str:
        """Id of the job's record."""

    @property
    @abstractmethod
    def tenant(self) -> str:
        """Tenant that the message names, for the receipt."""

    @property
    @abstractmethod
    def digest(self) -> str:
        """Digest of the message's contents, for the receipt; computed once a receipt."""

    @property
    def timeout_s(self) -> float | None:
        """Seconds that one attempt may take; ``None`` means LABELYARD_JOB_TIMEOUT_S."""
        return None

    @property
    def trace(self) -> Mapping[str, str]:
        """Trace context of the submit, if the kind has one."""
        return {}

    @abstractmethod
    def to_json(self) -> str:
        """Write the message as text, to be kept for an operator."""

    @abstractmethod
    def adopt(self, ledger: Ledger, *, queue: Queue) -> bool:
        """Write the record of a job whose message came without one.

        Returns:
            ``False`` if the job was final before, and only its record is gone.

        Raises:
            IdempotencyConflictError: The id is that of another job.
        """

    @abstractmethod
    def run(self, token: Token, *, queued_s: float) -> R:
        """Make one attempt.

        Args:
            token: Checked between the stages; it stops the attempt.
            queued_s: Seconds from the submit to this attempt.

        Raises:
            LabelyardError: ``verdicts.py`` decides what becomes of the job.
        """

    def retryable_code(self, result: R) -> str | None:  # noqa: ARG002 - for kinds that need it
        """Return the code of an error in *result* that a later attempt may avoid."""
        return None

    @abstractmethod
    def failed(self, failure: Failure) -> R:
        """Make the result of a job that failed as a whole."""

    def split(self, ledger: Ledger, *, reason: str) -> R | None:  # noqa: ARG002 - as above
        """Open and publish smaller jobs in place of this one, which keeps killing its workers.

        It may be repeated: its worker can die before the result is written.

        Args:
            reason: How the last worker died.

        Returns:
            The result of the job that was split; ``None`` if it cannot be: it is buried as a
            dead letter.
        """
        return None

    @abstractmethod
    def finish(self, ledger: Ledger, result: R, *, pending: Pending, is_dead: bool) -> bool:
        """Write the result, and make the job final; it may be repeated.

        Args:
            pending: Deliveries of the result that are not made yet.
            is_dead: Whether the job becomes a dead letter.

        Returns:
            ``False`` if the job was final before, or has no record.
        """

    def count(self, result: R) -> None:
        """Count the answers in a result that made the job final; called once a job."""

    def delivery(self, result: R) -> Delivery | None:  # noqa: ARG002 - as above
        """Return the deliveries that *result* is wanted for, if any."""
        return None

    def failure_code(self, result: R) -> str:  # noqa: ARG002 - as above
        """Return the code for which the job failed as a whole; empty if it did not."""
        return ""

    def attributes(self, result: R | None) -> Attributes:  # noqa: ARG002 - as above
        """Return attributes of an attempt's span; no labels, no addresses.

        Args:
            result: ``None`` as the attempt begins, and if it has none.
        """
        return {}

    def image_outcomes(self, result: R) -> Sequence[str]:  # noqa: ARG002 - as above
        """Return ``succeeded`` or the error's code for each image, for metrics."""
        return ()

    @abstractmethod
    def describe(self, result: R) -> Mapping[str, object]:
        """Return the fields of the log event ``job_done``; no labels, no addresses."""


#: Reads the job in a message; raises InvalidMessageError.
ReadWork = Callable[[ReceivedMessage], Work[Any]]
