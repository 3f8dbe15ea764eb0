"""One worker at a time delivers a job, and nothing is forgotten when it dies."""

from collections.abc import Iterator

import pytest

from labelyard.ledger.deliveries import DeliveryOutcome
from labelyard.ledger.limits import DELIVER_FOR_S, LONGEST_PAUSE_S
from labelyard.messages import Deliver, Job, new_job_id
from tests.support.delivering import DeliveryRig, delivering
from tests.support.waiting import wait_until

HOOK = Deliver(webhook="http://127.0.0.1:9/")
FAILED = {"webhook": DeliveryOutcome("failed", "status 500")}
DELIVERED = {"webhook": DeliveryOutcome("delivered")}


@pytest.fixture
def rig(ledger_url: str) -> Iterator[DeliveryRig]:
    with delivering(ledger_url, is_started=False) as made:
        yield made


def take(rig: DeliveryRig, worker: str, *, lease_s: float = 60) -> list[str]:
    return list(rig.as_worker(worker, lease_s=lease_s).take(100).job_ids)


def age(rig: DeliveryRig, job: Job, *, by_s: float) -> None:
    """Let the job have finished earlier."""
    key = rig.ledger.keys.job(job.job_id)
    rig.client.hincrbyfloat(key, "finished_at", -by_s)


def ttl_s(rig: DeliveryRig, job: Job) -> int:
    return int(rig.client.ttl(rig.ledger.keys.job(job.job_id)))


def test_a_job_is_taken_by_one_worker(rig: DeliveryRig) -> None:
    jobs = {rig.finish(HOOK).job_id for _ in range(5)}

    first, second = take(rig, "a"), take(rig, "b")

    assert (set(first), second) == (jobs, [])


def test_the_worker_that_finished_a_job_has_its_lease(rig: DeliveryRig) -> None:
    job = rig.finish(HOOK, deliverer="a")

    assert take(rig, "b") == []
    assert rig.as_worker("a").hold(job.job_id)
    assert not rig.as_worker("b").hold(job.job_id)


def test_a_dead_workers_deliveries_are_taken_when_its_lease_ends(rig: DeliveryRig) -> None:
    job = rig.finish(HOOK)
    take(rig, "dead", lease_s=0.05)

    wait_until(lambda: take(rig, "b") == [job.job_id])

    assert not rig.as_worker("dead").hold(job.job_id)


def test_a_lease_that_is_renewed_lasts(rig: DeliveryRig) -> None:
    job = rig.finish(HOOK)
    take(rig, "a", lease_s=0.2)

    assert rig.as_worker("a").hold(job.job_id)

    due_in_s = rig.due_in_s(job)
    assert due_in_s is not None
    assert due_in_s > 50


def test_a_worker_that_lost_its_lease_can_tell_only_of_what_it_delivered(
    rig: DeliveryRig,
) -> None:
    job = rig.finish(HOOK)
    take(rig, "slow", lease_s=0.01)
    wait_until(lambda: take(rig, "b"))

    rig.as_worker("slow").settle(job.job_id, FAILED)
    untouched = rig.state(job)
    rig.as_worker("slow").settle(job.job_id, DELIVERED)

    assert (untouched.state, untouched.attempts) == ("pending", 0)
    assert rig.state(job).state == "delivered"
    assert rig.record(job).undelivered == ()


def test_pauses_double_up_to_an_hour(rig: DeliveryRig) -> None:
    job = rig.finish(HOOK)
    pauses = []
    for _ in range(16):
        rig.make_due(job)
        take(rig, "a")
        rig.as_worker("a").settle(job.job_id, FAILED)
        pauses.append(rig.due_in_s(job) or 0)

    assert all(0.7 * 2**n < pause <= 1.3 * 2**n for n, pause in enumerate(pauses[:11], start=1))
    assert all(0.7 * LONGEST_PAUSE_S < pause <= LONGEST_PAUSE_S for pause in pauses[12:])
    assert len(set(map(round, pauses[11:]))) > 1, "jobs of one outage would come at once"


def test_a_pause_does_not_grow_because_the_first_attempt_came_late(rig: DeliveryRig) -> None:
    job = rig.finish(HOOK)
    age(rig, job, by_s=DELIVER_FOR_S / 2)
    take(rig, "a")

    rig.as_worker("a").settle(job.job_id, FAILED)

    assert (rig.due_in_s(job) or 99) < 3


def test_a_delivery_that_fails_for_a_day_is_given_up_visibly(rig: DeliveryRig) -> None:
    job = rig.finish(HOOK)
    age(rig, job, by_s=DELIVER_FOR_S)
    take(rig, "a")

    rig.as_worker("a").settle(job.job_id, FAILED)

    state = rig.state(job)
    assert (state.state, state.next_try_at, state.reason) == ("failed", None, "status 500")
    assert (rig.record(job).undelivered, rig.due_in_s(job)) == ((), None)
    assert rig.ledger.deliveries() == {
        "pending": 0,
        "dead": 1,
        "delivered": 0,
        "refused": 0,
        "given_up": 1,
        "dropped": 0,
    }


def test_a_record_lives_as_long_as_its_deliveries_are_pending(ledger_url: str) -> None:
    with delivering(ledger_url, is_started=False, result_ttl_s=3600) as rig:
        job = rig.finish(HOOK)
        before_s = ttl_s(rig, job)
        take(rig, "a")

        rig.as_worker("a").settle(job.job_id, DELIVERED)

        assert before_s > DELIVER_FOR_S + LONGEST_PAUSE_S
        assert 3000 < ttl_s(rig, job) <= 3600


def test_a_postponed_delivery_is_no_attempt(rig: DeliveryRig) -> None:
    job = rig.finish(HOOK)
    take(rig, "a")

    rig.as_worker("a").settle(job.job_id, {"webhook": DeliveryOutcome("postponed", "busy", 30.0)})

    state = rig.state(job)
    assert (state.state, state.attempts, state.reason) == ("pending", 0, "busy")
    assert 25 < (rig.due_in_s(job) or 0) <= 30


def test_a_postponed_delivery_keeps_the_reason_of_its_last_failure(rig: DeliveryRig) -> None:
    job = rig.finish(HOOK)
    for outcome in (FAILED["webhook"], DeliveryOutcome("postponed", "its host is failing", 30.0)):
        rig.make_due(job)
        take(rig, "a")
        rig.as_worker("a").settle(job.job_id, {"webhook": outcome})

    assert (rig.state(job).attempts, rig.state(job).reason) == (1, "status 500")


def test_one_delivery_is_settled_without_the_other(rig: DeliveryRig) -> None:
    job = rig.finish(Deliver(webhook=HOOK.webhook, object_uri="s3://results/1.json"))
    take(rig, "a")

    rig.as_worker("a").settle(job.job_id, {**FAILED, "object": DeliveryOutcome("delivered")})

    record = rig.record(job)
    assert record.undelivered == ("webhook",)
    states = {name: state.state for name, state in record.deliveries.items()}
    assert states == {"object": "delivered", "webhook": "failed"}


def test_a_job_without_a_record_or_a_result_is_dropped(rig: DeliveryRig) -> None:
    owed = rig.ledger.keys.pending_deliveries
    rig.client.zadd(owed, {new_job_id(): 0})

    assert take(rig, "a") == []
    assert rig.client.zcard(owed) == 0


def test_a_replayed_job_owes_what_it_owed_at_first(rig: DeliveryRig) -> None:
    job = rig.finish(HOOK)
    rig.client.zadd(rig.ledger.keys.dead_letters, {job.job_id: 0})
    take(rig, "a")
    rig.as_worker("a").settle(job.job_id, FAILED)

    rig.ledger.replay(job.job_id)

    assert (rig.record(job).deliveries, rig.due_in_s(job)) == ({}, None)
