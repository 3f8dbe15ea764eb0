"""Checks of the arguments of a client, so that every refusal is an error of ours."""

import math
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from numbers import Real
from typing import Any, Final

from pydantic_core import PydanticSerializationError

from labelyard.errors import InvalidMessageError, JobNotFoundError
from labelyard.messages import Job
from labelyard.queues import JOB_QUEUES, SUBMIT_QUEUES, Queue

#: Seconds in a hundred years; what is longer is a mistake, or milliseconds.
MAX_SECONDS: Final = 100 * 366 * 86_400.0
MAX_LIMIT: Final = 2**53


def job_id_of(job: Any) -> str:
    """Return the id of a handle, or the id itself.

    Raises:
        InvalidMessageError: It is neither.
        JobNotFoundError: It is text that no id can be.
    """
    is_handle = hasattr(type(job), "is_published")
    job_id = getattr(job, "id", None) if is_handle else job
    if not isinstance(job_id, str):
        raise InvalidMessageError(f"job_id: write a job's id or handle, not {_kind(job)}")
    if not is_text(job_id):
        raise JobNotFoundError(ascii(job_id))
    return job_id


def job_ids_of(jobs: Any) -> list[str]:
    """Return the ids of handles and ids.

    Raises:
        InvalidMessageError: It is not a list of them.
        JobNotFoundError: One of them is text that no id can be.
    """
    return [job_id_of(job) for job in listed(jobs, name="jobs")]


def listed(values: Any, *, name: str) -> list[Any]:
    """Return the items of a list or another iterable, but not the letters of a text.

    Raises:
        InvalidMessageError: It is something else.
    """
    if isinstance(values, str | bytes) or not isinstance(values, Iterable):
        raise InvalidMessageError(f"{name}: write a list, not {_kind(values)}")
    return list(values)


def jobs_of(jobs: Any) -> Iterator[Job]:
    """Yield prepared jobs.

    Raises:
        InvalidMessageError: It is not a list of them.
    """
    if isinstance(jobs, Job) or not isinstance(jobs, Iterable):
        raise InvalidMessageError(f"jobs: write a list of prepared jobs, not {_kind(jobs)}")
    return map(prepared, jobs)


def prepared(job: Any) -> Job:
    """Return *job* if it is a job.

    Raises:
        InvalidMessageError: It is something else.
    """
    if not isinstance(job, Job) or not isinstance(job.job_id, str):
        raise InvalidMessageError(f"job: pass what prepare() returned, not {_kind(job)}")
    return job


def submit_queue(queue: Any) -> Queue:
    """Return the queue of that name, if clients may submit to it.

    Raises:
        InvalidMessageError: It is another one.
    """
    if not isinstance(queue, str) or queue not in SUBMIT_QUEUES:
        raise InvalidMessageError(f"queue: write {' or '.join(SUBMIT_QUEUES)}")
    return Queue(queue)


def job_queue(queue: Any) -> Queue:
    """Return the queue of that name, if it holds jobs.

    Raises:
        InvalidMessageError: It is another one.
    """
    if not isinstance(queue, str) or queue not in JOB_QUEUES:
        raise InvalidMessageError(f"queue: write {', '.join(JOB_QUEUES[:-1])} or {JOB_QUEUES[-1]}")
    return Queue(queue)


def wait_s(timeout_s: Any) -> float:
    """Return the seconds to wait; a negative number means 0, infinity means for ever.

    Raises:
        InvalidMessageError: It is not a number.
    """
    number = _number(timeout_s, name="timeout_s")
    if math.isnan(number):
        raise InvalidMessageError("timeout_s: write a number of seconds, not NaN")
    return max(0.0, number)


def span_s(value: Any, *, name: str) -> float:
    """Return a length of time in seconds.

    Raises:
        InvalidMessageError: It is not a number from 0 on.
    """
    number = _number(value, name=name)
    if not number >= 0:
        raise InvalidMessageError(f"{name}: write a number of seconds from 0 on")
    return number


def lifetime_s(expires_in_s: Any) -> float:
    """Return the seconds that a job may take.

    Raises:
        InvalidMessageError: It is not a number above 0, of at most a hundred years.
    """
    number = _number(expires_in_s, name="expires_in_s")
    if not 0 < number <= MAX_SECONDS:
        raise InvalidMessageError(
            "expires_in_s: write a number of seconds above 0, of at most a hundred years"
        )
    return number


def counted(limit: Any) -> int:
    """Return the most items to list.

    Raises:
        InvalidMessageError: It is not a whole number in the range that Redis counts in.
    """
    if isinstance(limit, bool) or not isinstance(limit, int) or not 1 <= limit <= MAX_LIMIT:
        raise InvalidMessageError(f"limit: write a whole number from 1 to {MAX_LIMIT}")
    return limit


def text(value: Any, *, name: str) -> str:
    """Return *value* if it is text that can be written as UTF-8.

    Raises:
        InvalidMessageError: It is something else, or holds half of a surrogate pair.
    """
    if not isinstance(value, str):
        raise InvalidMessageError(f"{name}: write text, not {_kind(value)}")
    if not is_text(value):
        raise InvalidMessageError(f"{name}: holds half of a surrogate pair, which is not text")
    return value


def is_text(value: str) -> bool:
    """Return whether *value* can be encoded as UTF-8."""
    return value.isascii() or not any("\ud800" <= letter <= "\udfff" for letter in value)


@contextmanager
def writing(name: str) -> Iterator[None]:
    """Turn errors of writing a model that was changed without validation into InvalidMessageError.

    Args:
        name: The argument that is written as JSON in the block.

    Raises:
        InvalidMessageError: A field holds what the contract does not allow.
    """
    try:
        yield
    except (PydanticSerializationError, UnicodeError, RecursionError) as error:
        raise InvalidMessageError(
            f"{name}: cannot be written as JSON, because it was changed without checks "
            f"({type(error).__name__})"
        ) from error


def _number(value: Any, *, name: str) -> float:
    if isinstance(value, bool) or not isinstance(value, Real):
        raise InvalidMessageError(f"{name}: write a number of seconds, not {_kind(value)}")
    try:
        return float(value)
    except OverflowError:
        raise InvalidMessageError(f"{name}: write a smaller number of seconds") from None


def _kind(value: Any) -> str:
    return "None" if value is None else f"{type(value).__name__}"
