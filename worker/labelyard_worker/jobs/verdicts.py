"""Table of verdicts: the fate of a job after an attempt, by the error that ended it.

Pure functions: neither Redis nor a clock. ``completer.py`` carries a verdict out.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Literal

from labelyard.errors import (
    AliasConflictError,
    BrokerUnavailableError,
    EventGroupNotFoundError,
    IdempotencyConflictError,
    JobCancelledError,
    JobDeadLetteredError,
    JobExpiredError,
    JobNotFoundError,
    LabelSetWorseError,
    LabelyardError,
    LedgerUnavailableError,
    QueueFullError,
    RequestError,
    ResultTimeoutError,
    ResultUnreadableError,
    RunNotFoundError,
    RunStateError,
    RunTimeoutError,
    ServiceConfigError,
    TenantQuotaError,
    TransientError,
    WebhookError,
    WorkerError,
)
from labelyard.ledger import backoff_s
from labelyard_worker.intake.storage_away import StorageAwayError
from labelyard_worker.jobs.cancellation import HandedBackError, RunPausedError

Action = Literal[
    "finish",  # write the result
    "fail",  # write a result that holds the error
    "retry",  # end the attempt, and have the job sent again
    "postpone",  # the same, and the attempt does not count
    "hand_back",  # the same, and the broker brings the message again
    "stop_worker",  # hand back, and stop this worker
    "expire",  # make the job expired
    "drop",  # nothing: the job is final in the ledger already
    "count_death",  # the attempt broke its thread: have the job sent again, and count a death
]

#: Verdict on the error that ended an attempt. The row of the nearest base class counts.
VERDICTS: Final[Mapping[type[BaseException], Action]] = {
    RequestError: "fail",
    TransientError: "retry",  # the last attempt: fail
    StorageAwayError: "postpone",  # after LABELYARD_STORAGE_WAIT_S: as any transient error
    WorkerError: "stop_worker",
    RunPausedError: "postpone",  # for as long as it is paused
    HandedBackError: "hand_back",
    ServiceConfigError: "fail",
    WebhookError: "fail",
    JobCancelledError: "drop",
    JobExpiredError: "expire",
    # Errors of the ledger and the broker, which an attempt needs too: for label sets, or to
    # submit other jobs.
    BrokerUnavailableError: "retry",
    LedgerUnavailableError: "retry",
    QueueFullError: "retry",
    TenantQuotaError: "retry",
    ResultTimeoutError: "retry",
    RunTimeoutError: "retry",
    IdempotencyConflictError: "fail",
    ResultUnreadableError: "fail",
    JobNotFoundError: "fail",
    RunNotFoundError: "fail",
    RunStateError: "fail",
    EventGroupNotFoundError: "fail",
    AliasConflictError: "fail",
    LabelSetWorseError: "fail",
    JobDeadLetteredError: "fail",
    # An error that none of the rows above covers; a test keeps ours from falling to here.
    LabelyardError: "fail",
    BaseException: "count_death",  # MemoryError, SystemExit, a defect of ours
}

#: Seconds until a job whose storage is away is sent again, from and to.
STORAGE_PAUSE_S: Final = (2.0, 6.0)


@dataclass(frozen=True, slots=True)
class Standing:
    """Progress of a job, as the verdict on its attempt needs it.

    Attributes:
        attempt: Number of the attempt, from 1.
        max_attempts: Attempts before a transient error becomes the result.
        queued_s: Seconds from the submit to the start of the attempt.
        storage_wait_s: Seconds since the submit in which a job waits for storage that is away.
    """

    attempt: int
    max_attempts: int
    queued_s: float
    storage_wait_s: float

    @property
    def is_last(self) -> bool:
        """Whether the job has no attempt left after this one."""
        return self.attempt >= self.max_attempts


@dataclass(frozen=True, slots=True)
class Verdict:
    """Fate of a job after an attempt.

    Attributes:
        action: The step that the completer takes.
        delay_s: Shortest and longest time until the job is sent again; draw one between.
        code: Code of the error that a retry may avoid.
    """

    action: Action
    delay_s: tuple[float, float] = (0.0, 0.0)
    code: str = ""


def judge_error(error: BaseException, standing: Standing) -> Verdict:
    """Return the verdict on an attempt that *error* ended."""
    action = next(VERDICTS[base] for base in type(error).__mro__ if base in VERDICTS)
    if action == "postpone":
        if isinstance(error, RunPausedError) or standing.queued_s < standing.storage_wait_s:
            return Verdict("postpone", STORAGE_PAUSE_S, code_of(error))
        action = "retry"
    if action == "retry":
        return Verdict("fail") if standing.is_last else retry_of(code_of(error), standing)
    return Verdict(action)


def judge_result(retryable_code: str | None, standing: Standing) -> Verdict:
    """Return the verdict on an attempt that made a result.

    Args:
        retryable_code: Code of a part's error that a later attempt may avoid, if there is one.
    """
    if retryable_code is None or standing.is_last:
        return Verdict("finish")
    return retry_of(retryable_code, standing)


def retry_of(code: str, standing: Standing) -> Verdict:
    """Return a retry with full jitter, so that jobs that failed together come back apart."""
    return Verdict("retry", (0.0, backoff_s(standing.attempt)), code)


def code_of(error: BaseException) -> str:
    """Return the stable code of an error of ours."""
    return error.code if isinstance(error, LabelyardError) else ""
