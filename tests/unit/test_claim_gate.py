"""The gate in front of claims: how many jobs compute while tenants take turns."""

import threading
from collections.abc import Callable

import pytest

from labelyard_worker.broker.claim_gate import COMPUTING_JOBS, OPEN_AFTER_S, ClaimGate
from labelyard_worker.waiting_jobs import WaitingJobs


class Clock:
    """Clock that stands still unless it is moved."""

    def __init__(self) -> None:
        self.now_s = 100.0

    def __call__(self) -> float:
        return self.now_s


@pytest.fixture
def jobs() -> WaitingJobs:
    return WaitingJobs()


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def woken() -> list[None]:
    return []


@pytest.fixture
def gate(jobs: WaitingJobs, clock: Clock, woken: list[None]) -> ClaimGate:
    gate = ClaimGate(lambda: woken.append(None), jobs=jobs, clock=clock)
    gate.is_on = True
    return gate


def test_without_turns_any_number_of_jobs_may_compute(gate: ClaimGate) -> None:
    gate.is_on = False

    assert gate.is_open(64)


def test_claims_stop_at_the_number_of_computing_jobs(gate: ClaimGate) -> None:
    assert gate.is_open(COMPUTING_JOBS - 1)
    assert not gate.is_open(COMPUTING_JOBS)


def test_waiting_jobs_do_not_count(gate: ClaimGate, jobs: WaitingJobs) -> None:
    with jobs.waiting(), jobs.waiting():
        assert gate.is_open(COMPUTING_JOBS + 1)
        assert not gate.is_open(COMPUTING_JOBS + 2)

    assert not gate.is_open(COMPUTING_JOBS)


def test_a_job_that_begins_to_wait_at_a_closed_gate_wakes_the_event_loop_once(
    gate: ClaimGate, jobs: WaitingJobs, woken: list[None]
) -> None:
    with jobs.waiting():
        pass
    assert not woken  # nobody asked

    gate.is_open(COMPUTING_JOBS)
    with jobs.waiting(), jobs.waiting():
        pass

    assert len(woken) == 1


def test_one_claim_passes_after_a_while_although_all_jobs_seem_to_compute(
    gate: ClaimGate, clock: Clock
) -> None:
    assert gate.is_open(0)
    clock.now_s += 0.9 * OPEN_AFTER_S
    assert not gate.is_open(10)

    clock.now_s += 0.2 * OPEN_AFTER_S

    assert gate.is_open(10)
    assert not gate.is_open(10)


def test_jobs_of_many_threads_are_counted(jobs: WaitingJobs) -> None:
    barrier = threading.Barrier(5)

    def wait_together(step: Callable[[], object]) -> None:
        with jobs.waiting():
            step()
            barrier.wait(timeout=5)

    threads = [threading.Thread(target=wait_together, args=(barrier.wait,)) for _ in range(4)]
    for thread in threads:
        thread.start()
    barrier.wait(timeout=5)
    during = jobs.count
    barrier.wait(timeout=5)
    for thread in threads:
        thread.join()

    assert (during, jobs.count) == (4, 0)
