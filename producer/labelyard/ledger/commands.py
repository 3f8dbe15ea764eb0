"""How a call to the ledger is written, and how its failures read; the same for both clients."""

import hashlib
import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Final, Literal, cast

from redis.exceptions import RedisError

from labelyard.errors import (
    IdempotencyConflictError,
    LabelyardError,
    LedgerUnavailableError,
    QueueFullError,
)
from labelyard.ledger.records import Isolation, Opened, Receipt, State
from labelyard.messages import Job
from labelyard.queues import Queue
from labelyard.redis_connections import SOCKET_OPTIONS
from labelyard.settings import ConnectionSettings

__all__ = [
    "PIPELINE_SIZE",
    "SOCKET_OPTIONS",
    "LedgerCalls",
    "OpenedFrom",
    "as_ours",
    "job_digest",
    "ledger_errors_as_ours",
    "ledger_timeout_s",
    "naming_jobs",
    "new_call_id",
]

# Commands in one pipeline: enough to hide the round trip, few enough not to hold up others.
PIPELINE_SIZE: Final = 500

# With two retries a call on a half-open connection, or to a silent server, ends within 10 s.
ANSWER_TIMEOUT_S: Final = 3.0
OUT_OF_MEMORY: Final = "OOM command not allowed"
MAYBE: Final = "the job may have been accepted: submit the same prepared job again"
OpenedFrom = Literal["submit", "adopt"]


# What does not change the job that an id stands for: a later submit under the same idempotency
# key has another expiry and another trace.
NOT_IN_DIGEST: Final = {"job_id", "expires_at", "trace"}


def ledger_timeout_s(settings: ConnectionSettings) -> float:
    """Choose how long one answer of the ledger is waited for; a barrier needs its own time."""
    if settings.durable_writes == "off":
        return ANSWER_TIMEOUT_S
    return max(ANSWER_TIMEOUT_S, settings.durable_timeout_s + 0.5)


def as_ours(error: Exception) -> LedgerUnavailableError:
    """Translate a refusal of Redis, or its silence."""
    if OUT_OF_MEMORY in str(error):
        return LedgerUnavailableError("Redis is at its maxmemory; nothing was accepted")
    return LedgerUnavailableError(f"{type(error).__name__}: {error}")


# What stands in a record for each isolation; the first and the last are those of version 0.1.
MODES: Final[Mapping[Isolation, str]] = {"none": "0", "suspect": "s", "crowded": "b", "alone": "1"}


@contextmanager
def ledger_errors_as_ours() -> Iterator[None]:
    """Translate exceptions of redis-py raised inside the block into our error.

    Raises:
        LedgerUnavailableError: No answer, or a refusal such as being out of memory.
    """
    try:
        yield
    except (RedisError, OSError, UnicodeError) as error:  # a host name, or bytes that are not text
        raise as_ours(error) from error


@contextmanager
def naming_jobs(job_ids: Iterable[str]) -> Iterator[None]:
    """Add the jobs that are being submitted to an error that is raised inside the block.

    Raises:
        LedgerUnavailableError: The one that was raised, with *job_ids*, unless it is certain
            that nothing was accepted.
    """
    try:
        yield
    except LedgerUnavailableError as error:
        if OUT_OF_MEMORY in str(error.__cause__):
            raise
        raise LedgerUnavailableError(f"{error.reason}; {MAYBE}", job_ids) from error.__cause__


def job_digest(job: Job) -> str:
    """Compute the digest of the work in *job*, equal for the same job of any client.

    Defaults are left out, so that a version with a new optional field computes the same.
    """
    content = job.model_dump_json(exclude=NOT_IN_DIGEST, exclude_defaults=True, warnings="error")
    return hashlib.sha256(content.encode()).hexdigest()


def new_call_id() -> str:
    """Draw the id by which a script recognises that it is repeated."""
    return uuid.uuid4().hex


def read_count(value: Any) -> int:
    """Read a count; one that was never written is 0.

    Raises:
        LedgerUnavailableError: It is not a number.
    """
    try:
        return int(value or 0)
    except (TypeError, ValueError):
        raise LedgerUnavailableError(
            "a count in the ledger is not a number: another program has written there"
        ) from None


class LedgerCalls:
    """How each call to the ledger is written and read."""

    def __init__(self, settings: ConnectionSettings) -> None:
        self.namespace: str = settings.namespace
        self.result_ttl_s: int = settings.result_ttl_s
        self.open_ttl_s: int = settings.open_ttl_s
        self._max_queued_images = settings.max_queued_images

    def args(self, job_id: str, *values: object) -> list[str]:
        """Put the script's own arguments behind those that all scripts share."""
        shared = (job_id, self.open_ttl_s, self.result_ttl_s, self.namespace)
        return [str(value) for value in (*shared, *values)]

    def open_args(
        self, job: Job, *, queue: Queue, is_limited: bool, source: OpenedFrom = "submit"
    ) -> list[str]:
        """Write the arguments that open the record of *job*."""
        return self.args(
            job.job_id,
            job.model_dump_json(warnings="error"),
            len(job.images),
            job.tenant,
            queue,
            job.expires_at.timestamp() if job.expires_at else "",
            job.deliver.stream or "",
            self._max_queued_images if is_limited else 0,
            new_call_id(),
            job_digest(job),
            source,
        )

    def refused_args(self, job_id: str, message: str) -> list[str]:
        """Write the arguments that open a record for a *message* that is not a job."""
        blank = (0, "default", Queue.INTERACTIVE, "", "", 0)
        return self.args(job_id, message, *blank, new_call_id(), "", "adopt")

    def start_args(
        self,
        job_id: str,
        *,
        worker: str,
        isolation: Isolation,
        limits: tuple[int, int],
        receipt: Receipt,
    ) -> list[str]:
        """Write the arguments that begin an attempt.

        Args:
            limits: Deaths until quarantine, and deaths in it until the dead letters.
        """
        return self.args(
            job_id,
            worker,
            MODES[isolation],
            *limits,
            receipt.call,
            receipt.tenant,
            receipt.digest,
            receipt.published_at,
            receipt.returned_by,
        )

    def read_opened(self, job_id: str, answer: list[str]) -> Opened:
        """Parse the ledger's answer to opening a record.

        Raises:
            QueueFullError: As many images wait as are allowed.
            IdempotencyConflictError: The id is that of another job.
        """
        verdict, state, at = answer
        if verdict == "conflict":
            raise IdempotencyConflictError(f"{job_id}: another job was submitted under this id")
        if verdict == "full":
            raise QueueFullError(f"{state} images wait, limit {self._max_queued_images}")
        return Opened(is_new=verdict == "opened", state=cast("State", state), at=float(at))

    def read_opened_many(
        self, jobs: Sequence[Job], answers: list[Any]
    ) -> list[Opened | LabelyardError]:
        """Read a pipeline's answers, refusals included, in their order."""
        opened: list[Opened | LabelyardError] = []
        for job, answer in zip(jobs, answers, strict=True):
            if isinstance(answer, Exception):  # Redis refused this one
                opened.append(as_ours(answer))
                continue
            try:
                opened.append(self.read_opened(job.job_id, answer))
            except (QueueFullError, IdempotencyConflictError) as error:
                opened.append(error)
        return opened
