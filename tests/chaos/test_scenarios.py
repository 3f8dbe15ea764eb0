"""The ten faults that must be survived, one by one, each with its outcome."""

import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import partial

import pytest

from labelyard.errors import LedgerUnavailableError
from tests.chaos.brokers import close_clients
from tests.chaos.scenario_run import PATIENCE_S, ScenarioRun
from tests.chaos.slots import Slot, resume
from tests.support.waiting import wait_until

pytestmark = [pytest.mark.chaos, pytest.mark.timeout(300)]

OUTAGE_S = 4.0
SLOW = "slow-1.5"
VERY_SLOW = "slow-12"


def busy_slot(run: ScenarioRun) -> Slot:
    """Wait for a worker with jobs in work."""
    return wait_until(
        lambda: next(
            (slot for slot in run.environment.slots if slot.pid and run.effects.in_work(slot.pid)),
            None,
        ),
        within_s=PATIENCE_S,
    )  # type: ignore[return-value]


def end(slot: Slot, number: signal.Signals) -> int | None:
    """End a worker, and return its exit code."""
    pid = slot.signal(number, cause="test")
    wait_until(lambda: slot.has_ended(pid), within_s=PATIENCE_S)
    return next(one.code for one in slot.exits if one.pid == pid)


def test_jobs_of_a_killed_worker_are_run_by_another(run: ScenarioRun) -> None:
    """Fault 1: SIGKILL of a busy worker."""
    jobs = run.submit(24, tenant=SLOW)
    run.wait_until_begun(jobs, count=12)

    run.fault()
    code = end(busy_slot(run), signal.SIGKILL)

    assert code == 128 + signal.SIGKILL
    assert run.outcomes(jobs) == {"succeeded": 24}
    assert max(run.begun(jobs).values()) == 2


def test_a_worker_that_is_asked_to_end_finishes_what_runs_and_leaves_with_0(
    run: ScenarioRun,
) -> None:
    """Fault 2: SIGTERM under load."""
    jobs = run.submit(24, tenant=SLOW)
    run.wait_until_begun(jobs, count=12)

    run.fault()
    code = end(busy_slot(run), signal.SIGTERM)

    assert code == 0
    assert run.outcomes(jobs) == {"succeeded": 24}
    assert set(run.begun(jobs).values()) == {1}


def test_what_outlasts_the_grace_is_handed_back_and_no_death_is_counted(run: ScenarioRun) -> None:
    """Fault 2: SIGTERM while a job runs that takes longer than LABELYARD_DRAIN_S."""
    jobs = run.submit(1, tenant=VERY_SLOW)
    run.wait_until_begun(jobs)

    run.fault()
    code = end(busy_slot(run), signal.SIGTERM)
    ended_after_s = time.monotonic() - run.started_at
    run.wait_until_begun(jobs)
    wait_until(lambda: run.begun(jobs)[jobs[0]] == 2, within_s=PATIENCE_S)
    begun_again_after_s = time.monotonic() - run.started_at

    assert code == 0
    assert begun_again_after_s - ended_after_s < 2
    (record,) = run.records(jobs)
    assert (record.state, record.attempts, record.deaths) == ("succeeded", 1, 0)


def test_a_kill_at_the_end_of_the_grace_costs_a_second_run_and_no_second_result(
    run: ScenarioRun,
) -> None:
    """Fault 3: SIGTERM, then SIGKILL while it drains."""
    jobs = run.submit(12, tenant=SLOW) + run.submit(2, tenant="slow-3")
    run.wait_until_begun(jobs, count=14)
    slot = busy_slot(run)

    run.fault()
    pid = slot.signal(signal.SIGTERM, cause="test")
    first = run.client.wait(jobs[:1], timeout_s=PATIENCE_S)
    os.kill(pid, signal.SIGKILL)
    wait_until(lambda: slot.has_ended(pid), within_s=PATIENCE_S)

    assert run.outcomes(jobs) == {"succeeded": 14}
    assert run.client.wait(jobs[:1], timeout_s=1) == first


def test_a_broker_that_is_killed_and_comes_back_with_its_file_loses_nothing(
    run: ScenarioRun,
) -> None:
    """Fault 4: kill -9 of the broker; jobs are submitted before, while it is down, and after."""
    before = run.submit(200)
    run.wait_until_begun(before)

    run.fault()
    run.environment.broker.kill()
    meanwhile = run.submit(20)
    run.environment.broker.start(within_s=PATIENCE_S)
    after = run.submit(20)

    assert run.outcomes(before + meanwhile + after) == {"succeeded": 240}


def test_a_broker_that_comes_back_empty_loses_nothing(run: ScenarioRun) -> None:
    """Fault 5: the reconciler republishes every job that is not final."""
    slots = run.environment.slots
    pids = [slot.signal(signal.SIGSTOP) for slot in slots]
    jobs = run.submit(200)

    run.fault()
    run.environment.broker.kill()
    run.environment.broker.empty()
    run.environment.broker.start(within_s=PATIENCE_S)
    assert not any(run.environment.broker.depths().values())
    for pid in pids:
        resume(pid)

    assert run.outcomes(jobs) == {"succeeded": 200}


@pytest.mark.parametrize("is_busy", [True, False], ids=["busy", "idle"])
def test_a_half_open_connection_is_noticed_and_left(run: ScenarioRun, *, is_busy: bool) -> None:
    """Fault 6: connections freeze without being closed."""
    jobs = run.submit(40, tenant="slow-0.5") if is_busy else []
    if is_busy:
        run.wait_until_begun(jobs, count=8)

    run.fault()
    for slot in run.environment.slots:
        slot.links.broker.freeze()
        slot.links.ledger.freeze()
    jobs += run.submit(20)

    assert run.outcomes(jobs) == {"succeeded": len(jobs)}


@contextmanager
def ledger_standing_still(run: ScenarioRun) -> Iterator[None]:
    """Stop the ledger's process for a while."""
    os.kill(run.environment.ledger.pid, signal.SIGSTOP)
    yield
    resume(run.environment.ledger.pid)


@contextmanager
def cut_off(run: ScenarioRun, server: str) -> Iterator[None]:
    """Have the workers' connections to a server closed and refused for a while."""
    links = [getattr(slot.links, server) for slot in run.environment.slots]
    for link in links:
        link.sever()
    yield
    for link in links:
        link.start()


OUTAGES = {
    "ledger_standing_still": ledger_standing_still,
    "ledger_cut_off": partial(cut_off, server="ledger"),
    "storage_cut_off": partial(cut_off, server="storage"),
}


@pytest.mark.parametrize("outage", OUTAGES.values(), ids=OUTAGES)
def test_four_seconds_without_ledger_or_storage_delay_jobs_and_fail_none(
    run: ScenarioRun, outage: Callable[[ScenarioRun], AbstractContextManager[None]]
) -> None:
    """Fault 7: away as jobs end, and back."""
    jobs = run.submit(60, tenant="slow-0.5")
    run.wait_until_begun(jobs, count=8)

    run.fault()
    with outage(run):
        time.sleep(OUTAGE_S)

    assert run.outcomes(jobs) == {"succeeded": 60}


def test_a_broker_without_memory_refuses_and_loses_nothing_that_was_accepted(
    run: ScenarioRun,
) -> None:
    """Fault 8: at maxmemory jobs are accepted by the ledger, and sent when there is room."""
    before = run.submit(100, tenant="slow-0.5")
    run.wait_until_begun(before)

    run.fault()
    run.environment.broker.fill()
    handle = run.client.submit(run.environment.uris[:1], ["a cat", "a dog"])
    run.environment.broker.make_room()

    assert not handle.is_published
    assert run.outcomes([*before, handle.id]) == {"succeeded": 101}


def test_a_ledger_without_memory_refuses_a_submit_and_keeps_what_it_has(run: ScenarioRun) -> None:
    """Fault 8: the producer gets an error; accepted jobs finish when there is room."""
    before = run.submit(40, tenant="slow-0.5")
    run.wait_until_begun(before)

    run.fault()
    run.environment.ledger_admin.config_set("maxmemory", "1mb")
    with pytest.raises(LedgerUnavailableError, match="maxmemory"):
        run.submit(1)
    run.environment.ledger_admin.config_set("maxmemory", "0")

    assert run.outcomes(before) == {"succeeded": 40}


def test_connections_that_the_servers_close_cost_no_job(run: ScenarioRun) -> None:
    """Fault 10: CLIENT KILL while jobs run."""
    jobs = run.submit(40, tenant="slow-0.5")
    run.wait_until_begun(jobs, count=8)

    run.fault()
    run.environment.broker.close_clients()
    close_clients(run.environment.ledger_admin)

    assert run.outcomes(jobs) == {"succeeded": 40}


def test_a_job_of_three_visibility_timeouts_is_delivered_and_begun_once(run: ScenarioRun) -> None:
    """Fault 10: the heartbeat renews the messages of running jobs."""
    run.fault()
    jobs = run.submit(1, tenant=VERY_SLOW)

    assert run.outcomes(jobs) == {"succeeded": 1}
    run.wait_for_rest()
    assert run.begun(jobs) == {jobs[0]: 1}
    assert run.effects.ended[jobs[0]] == 1


@pytest.mark.parametrize("moment", ["before", "at", "during"])
def test_a_cancelled_job_is_final_at_once_and_stays_cancelled(
    run: ScenarioRun, moment: str
) -> None:
    """Fault 10: a cancel before, at the start of, and during the run."""
    occupied = run.submit(16, tenant=SLOW) if moment == "before" else []
    if occupied:
        run.wait_until_begun(occupied, count=12)
    (job,) = run.submit(1, tenant="slow-5", queue="bulk")
    if moment == "during":
        run.wait_until_begun([job])

    run.fault()
    is_cancelled = run.client.cancel(job)
    state = run.client.status(job).state
    run.wait_for_rest()

    assert is_cancelled
    assert state == "cancelled"
    assert run.outcomes([job]) == {"cancelled": 1}
    assert run.effects.results[job] == 0  # it would have had one after 5 s


def test_a_worker_that_stood_still_finds_its_jobs_done_by_another(run: ScenarioRun) -> None:
    """Eleventh fault: SIGSTOP for longer than the visibility timeout."""
    jobs = run.submit(24, tenant=SLOW)
    run.wait_until_begun(jobs, count=12)

    run.fault()
    pid = busy_slot(run).signal(signal.SIGSTOP)
    outcomes = run.outcomes(jobs)
    first = run.records(jobs)
    resume(pid)
    run.wait_for_rest()

    assert outcomes == {"succeeded": 24}
    assert run.records(jobs) == first
