"""Every error has a verdict, and the verdict depends on nothing but the job's standing."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from labelyard.errors import (
    BatcherFullError,
    BrokerUnavailableError,
    DeviceFailedError,
    IdempotencyConflictError,
    ImageNotFoundError,
    InvalidMessageError,
    JobCancelledError,
    JobDeadLetteredError,
    JobExpiredError,
    JobNotFoundError,
    JobTimedOutError,
    LabelyardError,
    LedgerUnavailableError,
    ModelLoadError,
    ProducerError,
    QueueFullError,
    ResultTimeoutError,
    ResultUnreadableError,
    ServiceConfigError,
    StorageUnavailableError,
    UnknownLabelSetError,
    all_errors,
)
from labelyard.ledger import backoff_s
from labelyard_worker.intake.sources.source import SourceDownError
from labelyard_worker.intake.storage_away import StorageAwayError
from labelyard_worker.jobs.cancellation import HandedBackError
from labelyard_worker.jobs.verdicts import (
    STORAGE_PAUSE_S,
    VERDICTS,
    Standing,
    Verdict,
    judge_error,
    judge_result,
)

FIRST = Standing(attempt=1, max_attempts=3, queued_s=0.5, storage_wait_s=60.0)
LAST = replace(FIRST, attempt=3)
TOO_LATE = replace(FIRST, queued_s=61.0)
NEVER_WAITS = replace(FIRST, storage_wait_s=0.0, queued_s=0.0)
WORKER_ERRORS = [HandedBackError, StorageAwayError, SourceDownError]
ERRORS = [cls for cls in all_errors() if cls.__module__ == "labelyard.errors"] + WORKER_ERRORS
# Bases that stand for nothing in particular: the code raises their children.
BASES = {LabelyardError, ProducerError}


def retry(code: str, attempt: int = 1) -> Verdict:
    return Verdict("retry", (0.0, backoff_s(attempt)), code)


CASES = [
    (InvalidMessageError("x"), FIRST, Verdict("fail")),
    (UnknownLabelSetError("x"), FIRST, Verdict("fail")),
    (ImageNotFoundError("x"), FIRST, Verdict("fail")),
    (ServiceConfigError("x"), FIRST, Verdict("fail")),
    (StorageUnavailableError("x"), FIRST, retry("storage_unavailable")),
    (StorageUnavailableError("x"), replace(FIRST, attempt=2), retry("storage_unavailable", 2)),
    (StorageUnavailableError("x"), LAST, Verdict("fail")),
    (StorageUnavailableError("x"), replace(FIRST, attempt=9), Verdict("fail")),
    (SourceDownError("x"), FIRST, retry("storage_unavailable")),
    (BatcherFullError("x"), FIRST, retry("batcher_full")),
    (JobTimedOutError("x"), FIRST, retry("inference_timeout")),
    (JobTimedOutError("x"), LAST, Verdict("fail")),
    (StorageAwayError("x"), FIRST, Verdict("postpone", STORAGE_PAUSE_S, "storage_unavailable")),
    (StorageAwayError("x"), LAST, Verdict("postpone", STORAGE_PAUSE_S, "storage_unavailable")),
    (StorageAwayError("x"), TOO_LATE, retry("storage_unavailable")),
    (StorageAwayError("x"), replace(TOO_LATE, attempt=3), Verdict("fail")),
    (StorageAwayError("x"), NEVER_WAITS, retry("storage_unavailable")),
    (ModelLoadError("x"), FIRST, Verdict("stop_worker")),
    (DeviceFailedError("x"), LAST, Verdict("stop_worker")),
    (HandedBackError("x"), LAST, Verdict("hand_back")),
    (JobExpiredError("x"), LAST, Verdict("expire")),
    (JobCancelledError("x"), LAST, Verdict("drop")),
    (LedgerUnavailableError("x"), FIRST, retry("ledger_unavailable")),
    (LedgerUnavailableError("x"), LAST, Verdict("fail")),
    (BrokerUnavailableError("x"), FIRST, retry("broker_unavailable")),
    (QueueFullError("x"), FIRST, retry("queue_full")),
    (ResultTimeoutError("x"), FIRST, retry("result_timeout")),
    (IdempotencyConflictError("x"), FIRST, Verdict("fail")),
    (ResultUnreadableError("x"), FIRST, Verdict("fail")),
    (JobNotFoundError("x"), FIRST, Verdict("fail")),
    (JobDeadLetteredError("x"), FIRST, Verdict("fail")),
    (MemoryError("x"), FIRST, Verdict("count_death")),
    (SystemExit("x"), LAST, Verdict("count_death")),
    (KeyboardInterrupt(), FIRST, Verdict("count_death")),
    (ZeroDivisionError("x"), LAST, Verdict("count_death")),
]


@pytest.mark.parametrize(
    ("error", "standing", "verdict"),
    CASES,
    ids=[f"{type(error).__name__}-{verdict.action}" for error, _, verdict in CASES],
)
def test_an_error_has_its_verdict(
    error: BaseException, standing: Standing, verdict: Verdict
) -> None:
    assert judge_error(error, standing) == verdict


@pytest.mark.parametrize("cls", ERRORS, ids=lambda cls: cls.__name__)
def test_every_error_has_a_row_of_its_own_or_of_its_family(cls: type[LabelyardError]) -> None:
    """A new error that no row covers would fail its job by the row of LabelyardError."""
    row = next(base for base in cls.__mro__ if base in VERDICTS)

    assert row is not BaseException
    assert (row is LabelyardError) == (cls in BASES)


@pytest.mark.parametrize("cls", ERRORS, ids=lambda cls: cls.__name__)
def test_an_error_is_retryable_if_and_only_if_its_verdict_keeps_the_job_alive(
    cls: type[LabelyardError],
) -> None:
    verdict = judge_error(cls("x"), FIRST)

    keeps_alive = verdict.action in {"retry", "postpone", "hand_back", "stop_worker"}
    assert keeps_alive == cls.is_retryable


@pytest.mark.parametrize(
    ("code", "standing", "verdict"),
    [
        (None, FIRST, Verdict("finish")),
        (None, LAST, Verdict("finish")),
        ("batcher_full", FIRST, retry("batcher_full")),
        ("batcher_full", LAST, Verdict("finish")),
    ],
)
def test_a_result_is_kept_unless_a_later_attempt_may_do_better(
    code: str | None, standing: Standing, verdict: Verdict
) -> None:
    assert judge_result(code, standing) == verdict


@given(
    cls=st.sampled_from(ERRORS),
    attempt=st.integers(1, 50),
    max_attempts=st.integers(1, 50),
    queued_s=st.floats(0, 1e6),
    storage_wait_s=st.floats(0, 1e6),
)
def test_a_job_comes_to_an_end(
    cls: type[LabelyardError],
    attempt: int,
    max_attempts: int,
    queued_s: float,
    storage_wait_s: float,
) -> None:
    """A retry uses an attempt and a postponement uses time; both run out. Delays are bounded."""
    standing = Standing(attempt, max_attempts, queued_s, storage_wait_s)

    verdict = judge_error(cls("x"), standing)

    shortest, longest = verdict.delay_s
    assert 0 <= shortest <= longest <= 32
    assert verdict.action != "retry" or attempt < max_attempts
    assert verdict.action != "postpone" or queued_s < storage_wait_s
