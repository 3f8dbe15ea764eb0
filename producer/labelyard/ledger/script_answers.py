"""Answers of the ledger's scripts, as values that programs can read."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, cast

from labelyard.errors import (
    IdempotencyConflictError,
    LabelyardError,
    QueueFullError,
    TenantQuotaError,
)
from labelyard.ledger.records import State
from labelyard.ledger.redis_errors import as_ours
from labelyard.messages import Job


@dataclass(frozen=True, slots=True)
class Opened:
    """Result of a submit: a new record, or the existing one."""

    is_new: bool
    state: State
    at: float


@dataclass(frozen=True, slots=True)
class Started:
    """Decision on a delivered job: the work that its worker should do.

    Attributes:
        verdict: ``run`` it; drop it because it is ``final`` or ``missing``, or because it
            runs ``elsewhere`` and will be sent again; move it ``to_quarantine``; bury it
            because it is ``dead``; or refuse the message: it is another job's under the
            same id (``conflict``), or older than a final record lives (``outlived``).
        state: Its final state, if it is final.
        attempt: Which attempt this is, from 1.
        queued_s: Seconds from submission to this start.
        reason: What killed it, if it is dead.
        runner: The worker that runs it, if that is another.
        start: Number of this attempt that is never used twice; the end of the attempt
            carries it.
        expires_in_s: Seconds until nobody wants the result, by the ledger's clock.
    """

    verdict: Literal[
        "run",
        "final",
        "missing",
        "elsewhere",
        "to_quarantine",
        "isolate",
        "dead",
        "conflict",
        "outlived",
    ]
    state: str = ""
    attempt: int = 0
    deaths: int = 0
    queued_s: float = 0.0
    reason: str = ""
    runner: str = ""
    start: int = 0
    expires_in_s: float | None = None


def read_started(answer: list[str]) -> Started:
    """Parse the decision of the start script."""
    match answer:
        case ["run", attempt, deaths, submitted_at, now, start, expires_in_s]:
            return Started(
                "run",
                attempt=int(attempt),
                deaths=int(deaths),
                queued_s=max(0.0, float(now) - float(submitted_at)),
                start=int(start),
                expires_in_s=float(expires_in_s) if expires_in_s else None,
            )
        case ["dead", deaths, reason]:
            return Started("dead", deaths=int(deaths), reason=reason)
        case ["isolate", deaths]:
            return Started("isolate", deaths=int(deaths))
        case ["to_quarantine", deaths]:
            return Started("to_quarantine", deaths=int(deaths))
        case ["elsewhere", runner]:
            return Started("elsewhere", runner=runner)
        case ["final", state]:
            return Started("final", state=state)
        case ["conflict", state]:
            return Started("conflict", state=state)
        case ["outlived"]:
            return Started("outlived")
        case _:
            return Started("missing")


def read_opened(job_id: str, answer: list[str], *, limit: int) -> Opened:
    """Parse the answer of the open script.

    Args:
        limit: Most open images with which a job is accepted, for the error's text.

    Raises:
        QueueFullError: As many images wait as are allowed.
        TenantQuotaError: A quota of the job's tenant is used up.
        IdempotencyConflictError: The id is that of another job.
    """
    verdict, state, at, *quota = answer
    if verdict == "conflict":
        raise IdempotencyConflictError(f"{job_id}: another job was submitted under this id")
    if verdict == "full":
        raise QueueFullError(f"{state} images wait, limit {limit}")
    if verdict == "refused":
        raise _quota_error(state, *map(float, quota))
    return Opened(is_new=verdict == "opened", state=cast("State", state), at=float(at))


def _quota_error(quota: str, limit: float, used: float, retry_after_s: float) -> TenantQuotaError:
    """Make the error of a job that a quota refused."""
    if quota == "max_open_images":
        reason = f"the tenant has {used:g} open images, limit {limit:g} ({quota})"
    else:
        unit = quota.removesuffix("_per_s")
        reason = f"a job with {used:g} {unit} exceeds the tenant's {limit:g} {unit} a second"
    return TenantQuotaError(reason, quota, limit, retry_after_s)


def read_opened_many(
    jobs: Sequence[Job], answers: Sequence[Any], *, limit: int
) -> list[Opened | LabelyardError]:
    """Parse a pipeline's answers of the open script, refusals included, in their order."""
    opened: list[Opened | LabelyardError] = []
    for job, answer in zip(jobs, answers, strict=True):
        if isinstance(answer, Exception):  # Redis refused this one
            opened.append(as_ours(answer))
            continue
        try:
            opened.append(read_opened(job.job_id, answer, limit=limit))
        except (QueueFullError, TenantQuotaError, IdempotencyConflictError) as error:
            opened.append(error)
    return opened
