"""How a call to the ledger is written, and how its failures read; the same for both clients."""

import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final, cast

from redis.exceptions import RedisError

from labelyard.errors import LabelyardError, LedgerUnavailableError, QueueFullError
from labelyard.ledger_records import Opened, Queue, State
from labelyard.ledger_scripts import LedgerKeys
from labelyard.messages import Job
from labelyard.redis_connections import SOCKET_OPTIONS
from labelyard.settings import ConnectionSettings

__all__ = [
    "PIPELINE_SIZE",
    "SOCKET_OPTIONS",
    "LedgerCalls",
    "as_ours",
    "ledger_errors_as_ours",
]

# Commands in one pipeline: enough to hide the round trip, few enough not to hold up others.
PIPELINE_SIZE: Final = 500


def as_ours(error: Exception) -> LedgerUnavailableError:
    """Say what Redis' refusal, or its silence, means for the caller."""
    if "OOM command not allowed" in str(error):
        return LedgerUnavailableError("Redis is at its maxmemory; nothing was accepted")
    return LedgerUnavailableError(f"{type(error).__name__}: {error}")


@contextmanager
def ledger_errors_as_ours() -> Iterator[None]:
    """Turn what redis-py raises inside the block into our error.

    Raises:
        LedgerUnavailableError: No answer, or a refusal such as being out of memory.
    """
    try:
        yield
    except (RedisError, OSError) as error:
        raise as_ours(error) from error


class LedgerCalls:
    """How each call to the ledger is written and read."""

    def __init__(self, settings: ConnectionSettings) -> None:
        self.namespace = settings.namespace
        self.result_ttl_s = settings.result_ttl_s
        self._open_ttl_s = settings.open_ttl_s
        self._max_queued_images = settings.max_queued_images

    def keys(self, job_id: str) -> LedgerKeys:
        """Name the keys of a job's record."""
        return LedgerKeys.of(self.namespace, job_id)

    def key(self, name: str) -> str:
        """Name a key of the ledger that belongs to no single job."""
        return f"{self.namespace}:{name}"

    def done_channel(self, job_id: str) -> str:
        """Name the channel that says when the job is final."""
        return f"{self.namespace}:done:{job_id}"

    def args(self, job_id: str, *values: object) -> list[str]:
        """Put the script's own arguments behind those that all scripts share."""
        shared = (job_id, self._open_ttl_s, self.result_ttl_s, self.namespace)
        return [str(value) for value in (*shared, *values)]

    def open_args(self, job: Job, *, queue: Queue, is_limited: bool) -> list[str]:
        """Write the arguments that open the record of *job*."""
        return self.args(
            job.job_id,
            job.model_dump_json(),
            len(job.images),
            job.tenant,
            queue,
            job.expires_at.timestamp() if job.expires_at else "",
            job.deliver.stream or "",
            self._max_queued_images if is_limited else 0,
            uuid.uuid4().hex,
        )

    def refused_args(self, job_id: str, message: str) -> list[str]:
        """Write the arguments that open a record for a *message* that is no job."""
        return self.args(job_id, message, 0, "default", "interactive", "", "", 0, uuid.uuid4().hex)

    def read_opened(self, answer: list[str]) -> Opened:
        """Read what opening a record came to.

        Raises:
            QueueFullError: As many images wait as are allowed.
        """
        verdict, state, at = answer
        if verdict == "full":
            raise QueueFullError(f"{state} images wait, limit {self._max_queued_images}")
        return Opened(is_new=verdict == "opened", state=cast("State", state), at=float(at))

    def read_opened_many(self, answers: list[Any]) -> list[Opened | LabelyardError]:
        """Read a pipeline's answers, refusals included, in their order."""
        opened: list[Opened | LabelyardError] = []
        for answer in answers:
            try:
                opened.append(
                    as_ours(answer) if isinstance(answer, Exception) else self.read_opened(answer)
                )
            except QueueFullError as error:
                opened.append(error)
        return opened
