"""Exceptions of redis-py as errors of labelyard, and the time that an answer is waited for."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any, Final

from redis.exceptions import RedisError

from labelyard.errors import LedgerUnavailableError
from labelyard.settings import ConnectionSettings

# With two retries a call on a half-open connection, or to a silent server, ends within 10 s.
ANSWER_TIMEOUT_S: Final = 3.0
OUT_OF_MEMORY: Final = "OOM command not allowed"
MAYBE: Final = "the job may have been accepted: submit the same prepared job again"


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


def foreign_content(what: str) -> LedgerUnavailableError:
    """Return the error for an entry that does not hold what labelyard writes."""
    return LedgerUnavailableError(
        f"{what} cannot be read in the ledger: another program has written there"
    )


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
