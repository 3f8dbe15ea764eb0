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
from tests.chaos.play import PATIENCE_S, Play
from tests.chaos.slots import Slot, let_go_on
from tests.support.waiting import wait_until

pytestmark = [pytest.mark.chaos, pytest.mark.timeout(300)]

OUTAGE_S = 4.0
SLOW = "slow-1.5"
VERY_SLOW = "slow-12"


def busy_slot(play: Play) -> Slot:
    """Wait for a worker with jobs in work."""
    return wait_until(
        lambda: next(
            (slot for slot in play.stage.slots if slot.pid and play.effects.in_work(slot.pid)),
            None,
        ),
        within_s=PATIENCE_S,
    )  # type: ignore[return-value]


def end(slot: Slot, number: signal.Signals) -> int | None:
    """End a worker, and return its exit code."""
    pid = slot.signal(number, cause="test")
    wait_until(lambda: slot.has_ended(pid), within_s=PATIENCE_S)
    return next(one.code for one in slot.exits if one.pid == pid)


def test_jobs_of_a_killed_worker_are_run_by_another(play: Play) -> None:
    """Fault 1: SIGKILL of a busy worker."""
    jobs = play.submit(24, tenant=SLOW)
    play.wait_until_begun(jobs, count=12)

    play.fault()
    code = end(busy_slot(play), signal.SIGKILL)

    assert code == 128 + signal.SIGKILL
    assert play.outcomes(jobs) == {"succeeded": 24}
    assert max(play.begun(jobs).values()) == 2


def test_a_worker_that_is_asked_to_end_finishes_what_runs_and_leaves_with_0(play: Play) -> None:
    """Fault 2: SIGTERM under load."""
    jobs = play.submit(24, tenant=SLOW)
    play.wait_until_begun(jobs, count=12)

    play.fault()
    code = end(busy_slot(play), signal.SIGTERM)

    assert code == 0
    assert play.outcomes(jobs) == {"succeeded": 24}
    assert set(play.begun(jobs).values()) == {1}


def test_what_outlasts_the_grace_is_handed_back_and_no_death_is_counted(play: Play) -> None:
    """Fault 2: SIGTERM while a job runs that takes longer than LABELYARD_DRAIN_S."""
    jobs = play.submit(1, tenant=VERY_SLOW)
    play.wait_until_begun(jobs)

    play.fault()
    code = end(busy_slot(play), signal.SIGTERM)
    ended_after_s = time.monotonic() - play.started_at
    play.wait_until_begun(jobs)
    wait_until(lambda: play.begun(jobs)[jobs[0]] == 2, within_s=PATIENCE_S)
    begun_again_after_s = time.monotonic() - play.started_at

    assert code == 0
    assert begun_again_after_s - ended_after_s < 2
    (record,) = play.records(jobs)
    assert (record.state, record.attempts, record.deaths) == ("succeeded", 1, 0)


def test_a_kill_at_the_end_of_the_grace_costs_a_second_run_and_no_second_result(
    play: Play,
) -> None:
    """Fault 3: SIGTERM, then SIGKILL while it drains."""
    jobs = play.submit(12, tenant=SLOW) + play.submit(2, tenant="slow-3")
    play.wait_until_begun(jobs, count=14)
    slot = busy_slot(play)

    play.fault()
    pid = slot.signal(signal.SIGTERM, cause="test")
    first = play.client.wait(jobs[:1], timeout_s=PATIENCE_S)
    os.kill(pid, signal.SIGKILL)
    wait_until(lambda: slot.has_ended(pid), within_s=PATIENCE_S)

    assert play.outcomes(jobs) == {"succeeded": 14}
    assert play.client.wait(jobs[:1], timeout_s=1) == first


def test_a_broker_that_is_killed_and_comes_back_with_its_file_loses_nothing(play: Play) -> None:
    """Fault 4: kill -9 of the broker; jobs are submitted before, while it is down, and after."""
    before = play.submit(200)
    play.wait_until_begun(before)

    play.fault()
    play.stage.broker.kill()
    meanwhile = play.submit(20)
    play.stage.broker.start(within_s=PATIENCE_S)
    after = play.submit(20)

    assert play.outcomes(before + meanwhile + after) == {"succeeded": 240}


def test_a_broker_that_comes_back_empty_loses_nothing(play: Play) -> None:
    """Fault 5: the reconciler sends every job again that is not final."""
    slots = play.stage.slots
    pids = [slot.signal(signal.SIGSTOP) for slot in slots]
    jobs = play.submit(200)

    play.fault()
    play.stage.broker.kill()
    play.stage.broker.empty()
    play.stage.broker.start(within_s=PATIENCE_S)
    assert not any(play.stage.broker.depths().values())
    for pid in pids:
        let_go_on(pid)

    assert play.outcomes(jobs) == {"succeeded": 200}


@pytest.mark.parametrize("is_busy", [True, False], ids=["busy", "idle"])
def test_a_half_open_connection_is_noticed_and_left(play: Play, *, is_busy: bool) -> None:
    """Fault 6: nothing passes any more, and nobody is told."""
    jobs = play.submit(40, tenant="slow-0.5") if is_busy else []
    if is_busy:
        play.wait_until_begun(jobs, count=8)

    play.fault()
    for slot in play.stage.slots:
        slot.links.broker.freeze()
        slot.links.ledger.freeze()
    jobs += play.submit(20)

    assert play.outcomes(jobs) == {"succeeded": len(jobs)}


@contextmanager
def ledger_standing_still(play: Play) -> Iterator[None]:
    """Stop the ledger's process for a while."""
    os.kill(play.stage.ledger.pid, signal.SIGSTOP)
    yield
    let_go_on(play.stage.ledger.pid)


@contextmanager
def cut_off(play: Play, server: str) -> Iterator[None]:
    """Have the workers' connections to a server closed and refused for a while."""
    links = [getattr(slot.links, server) for slot in play.stage.slots]
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
    play: Play, outage: Callable[[Play], AbstractContextManager[None]]
) -> None:
    """Fault 7: away as jobs end, and back."""
    jobs = play.submit(60, tenant="slow-0.5")
    play.wait_until_begun(jobs, count=8)

    play.fault()
    with outage(play):
        time.sleep(OUTAGE_S)

    assert play.outcomes(jobs) == {"succeeded": 60}


def test_a_broker_without_memory_refuses_and_loses_nothing_that_was_accepted(play: Play) -> None:
    """Fault 8: at maxmemory jobs are accepted by the ledger, and sent when there is room."""
    before = play.submit(100, tenant="slow-0.5")
    play.wait_until_begun(before)

    play.fault()
    play.stage.broker.fill()
    handle = play.client.submit(play.stage.uris[:1], ["a cat", "a dog"])
    play.stage.broker.make_room()

    assert not handle.is_published
    assert play.outcomes([*before, handle.id]) == {"succeeded": 101}


def test_a_ledger_without_memory_refuses_a_submit_and_keeps_what_it_has(play: Play) -> None:
    """Fault 8: the producer hears it; what was accepted is finished when there is room."""
    before = play.submit(40, tenant="slow-0.5")
    play.wait_until_begun(before)

    play.fault()
    play.stage.ledger_admin.config_set("maxmemory", "1mb")
    with pytest.raises(LedgerUnavailableError, match="maxmemory"):
        play.submit(1)
    play.stage.ledger_admin.config_set("maxmemory", "0")

    assert play.outcomes(before) == {"succeeded": 40}


def test_connections_that_the_servers_close_cost_no_job(play: Play) -> None:
    """Fault 10: CLIENT KILL while jobs run."""
    jobs = play.submit(40, tenant="slow-0.5")
    play.wait_until_begun(jobs, count=8)

    play.fault()
    play.stage.broker.close_clients()
    close_clients(play.stage.ledger_admin)

    assert play.outcomes(jobs) == {"succeeded": 40}


def test_a_job_of_three_visibility_timeouts_is_delivered_and_begun_once(play: Play) -> None:
    """Fault 10: the heartbeat renews what is in work."""
    play.fault()
    jobs = play.submit(1, tenant=VERY_SLOW)

    assert play.outcomes(jobs) == {"succeeded": 1}
    play.wait_for_rest()
    assert play.begun(jobs) == {jobs[0]: 1}
    assert play.effects.ended[jobs[0]] == 1


@pytest.mark.parametrize("moment", ["before", "at", "during"])
def test_a_cancelled_job_is_final_at_once_and_stays_cancelled(play: Play, moment: str) -> None:
    """Fault 10: a cancel before, at the start of, and during the run."""
    occupied = play.submit(16, tenant=SLOW) if moment == "before" else []
    if occupied:
        play.wait_until_begun(occupied, count=12)
    (job,) = play.submit(1, tenant="slow-5", queue="bulk")
    if moment == "during":
        play.wait_until_begun([job])

    play.fault()
    is_cancelled = play.client.cancel(job)
    state = play.client.status(job).state
    play.wait_for_rest()

    assert is_cancelled
    assert state == "cancelled"
    assert play.outcomes([job]) == {"cancelled": 1}
    assert play.effects.results[job] == 0  # it would have had one after 5 s


def test_a_worker_that_stood_still_finds_its_jobs_done_by_another(play: Play) -> None:
    """Beyond the ten: SIGSTOP for longer than the visibility timeout."""
    jobs = play.submit(24, tenant=SLOW)
    play.wait_until_begun(jobs, count=12)

    play.fault()
    pid = busy_slot(play).signal(signal.SIGSTOP)
    outcomes = play.outcomes(jobs)
    first = play.records(jobs)
    let_go_on(pid)
    play.wait_for_rest()

    assert outcomes == {"succeeded": 24}
    assert play.records(jobs) == first
