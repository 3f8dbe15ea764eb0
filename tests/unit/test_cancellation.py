"""A job runs until its cancellation token ends it: deadline, expiry, cancel, shutdown."""

import threading
from collections.abc import Callable
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor

import pytest

from labelyard.errors import (
    ImageNotFoundError,
    JobCancelledError,
    JobExpiredError,
    JobTimedOutError,
    LabelyardError,
)
from labelyard_worker.jobs.cancellation import (
    HandedBackError,
    RunningJobs,
    Token,
    cancelled,
    handed_back,
)
from tests.support.waiting import wait_until


def token(
    job_id: str = "job-1", *, timeout_s: float = 60.0, expires_in_s: float | None = None
) -> Token:
    return Token(job_id, timeout_s=timeout_s, expires_in_s=expires_in_s)


def test_a_job_may_go_on_until_something_speaks_against_it() -> None:
    token(expires_in_s=60).check()


@pytest.mark.parametrize(
    ("stopped", "error"),
    [
        (token(timeout_s=0), JobTimedOutError),
        (token(expires_in_s=0), JobExpiredError),
        (token(expires_in_s=-5), JobExpiredError),
        (token(timeout_s=0, expires_in_s=0), JobExpiredError),
    ],
    ids=["timed out", "expires now", "expired before", "both"],
)
def test_a_job_whose_time_is_over_stops(stopped: Token, error: type[LabelyardError]) -> None:
    """An expired job is final; one that timed out is tried again."""
    with pytest.raises(error):
        stopped.check()


def test_the_first_reason_to_stop_stands() -> None:
    stopped = token(timeout_s=0)
    stopped.stop(cancelled("job-1"))
    stopped.stop(handed_back("job-1"))

    with pytest.raises(JobCancelledError):
        stopped.check()


def test_waiting_gives_the_futures_answer() -> None:
    future: Future[int] = Future()
    future.set_result(7)

    assert token().wait(future) == 7


@pytest.mark.parametrize(
    "error", [ImageNotFoundError("s3://a/b"), TimeoutError("the future's own"), CancelledError()]
)
def test_waiting_gives_the_futures_error(error: Exception) -> None:
    future: Future[int] = Future()
    future.set_exception(error)

    with pytest.raises(type(error)):
        token().wait(future)


def test_waiting_ends_when_the_job_is_stopped() -> None:
    waiting = token()
    with ThreadPoolExecutor(1) as pool:
        never_answered: Future[int] = Future()
        waiter = pool.submit(waiting.wait, never_answered)

        waiting.stop(handed_back("job-1"))

        with pytest.raises(HandedBackError):
            waiter.result(timeout=5)


def test_a_future_that_a_stopped_job_cancelled_says_why_it_stopped() -> None:
    stopped = token()
    future: Future[int] = Future()
    future.cancel()
    stopped.stop(cancelled("job-1"))

    with pytest.raises(JobCancelledError):
        stopped.wait(future)


def test_waiting_for_room_asks_until_there_is_some() -> None:
    answers = iter([False, False, True])
    asked: list[float] = []

    def is_ready(wait_s: float) -> bool:
        asked.append(wait_s)
        return next(answers)

    token().wait_until(is_ready)

    assert len(asked) == 3
    assert all(0 < wait_s < 1 for wait_s in asked)


def test_waiting_for_room_ends_when_time_is_over() -> None:
    with pytest.raises(JobTimedOutError):
        token(timeout_s=0).wait_until(lambda wait_s: False)


def test_running_jobs_are_those_whose_block_runs() -> None:
    running = RunningJobs()

    with running.holding(token("a")), running.holding(token("b")):
        during = sorted(one.job_id for one in running.all())

    assert during == ["a", "b"]
    assert (len(running), running.all()) == (0, [])


@pytest.mark.parametrize(
    ("stop", "stopped"),
    [
        (lambda running: running.stop("a", cancelled("a")), ["a"]),
        (lambda running: running.stop("nobody", cancelled("nobody")), []),
        (lambda running: running.stop_all(handed_back), ["a", "b"]),
    ],
    ids=["one", "none", "all"],
)
def test_others_can_stop_a_running_job(
    stop: Callable[[RunningJobs], None], stopped: list[str]
) -> None:
    running = RunningJobs()
    with running.holding(token("a")) as a, running.holding(token("b")) as b:
        stop(running)

        assert [one.job_id for one in (a, b) if is_stopped(one)] == stopped


def is_stopped(one: Token) -> bool:
    try:
        one.check()
    except LabelyardError:
        return True
    return False


def test_a_second_attempt_keeps_its_token_when_the_first_one_ends() -> None:
    """With single flight switched off a job can be in work twice."""
    running = RunningJobs()
    second = token("a")
    has_begun, may_end = threading.Event(), threading.Event()

    def first_attempt() -> None:
        with running.holding(token("a")):
            has_begun.set()
            may_end.wait()

    thread = threading.Thread(target=first_attempt)
    thread.start()
    has_begun.wait()
    with running.holding(second):
        may_end.set()
        wait_until(lambda: not thread.is_alive())

        assert running.all() == [second]
