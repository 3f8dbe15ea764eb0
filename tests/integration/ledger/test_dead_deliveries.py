"""Deliveries that are given up or refused are kept, listed, replayed and purged."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from labelyard.errors import InvalidMessageError, JobNotFoundError
from labelyard.ledger import limits, undelivered
from labelyard.ledger.deliveries import DeliveryOutcome
from labelyard.ledger.limits import DELIVER_FOR_S
from labelyard.ledger.undelivered import UndeliveredResult
from labelyard.ledger.webhooks import Webhooks
from labelyard.messages import Deliver, Job, new_job_id
from tests.support.delivering import DeliveryRig, delivering

HOOK = "https://hooks.example.com/a-secret-path"
FAILED = DeliveryOutcome("failed", "status 500")
REFUSED = DeliveryOutcome("refused", "status 410: the receiver wants no more")
DELIVERED = DeliveryOutcome("delivered")
RESULT_TTL_S = 3600


@pytest.fixture
def rig(ledger_url: str) -> Iterator[DeliveryRig]:
    with delivering(ledger_url, is_started=False, result_ttl_s=RESULT_TTL_S) as made:
        yield made


@pytest.fixture
def webhooks(rig: DeliveryRig) -> Webhooks:
    return Webhooks(rig.ledger)


def end(rig: DeliveryRig, job: Job, outcome: DeliveryOutcome, *, name: str = "webhook") -> None:
    """Have a worker try a job's delivery, with this outcome."""
    rig.make_due(job)
    worker = rig.as_worker("w1")
    assert job.job_id in worker.take(1000).job_ids
    worker.settle(job.job_id, {name: outcome})


def finish(rig: DeliveryRig, hook: str = HOOK, **changes: Any) -> Job:
    return rig.finish(Deliver(webhook=hook), **changes)


def age(rig: DeliveryRig, job: Job, *, by_s: float) -> None:
    """Let the job have finished earlier."""
    rig.client.hincrbyfloat(rig.ledger.keys.job(job.job_id), "finished_at", -by_s)


def dead(rig: DeliveryRig, hook: str = HOOK, **changes: Any) -> Job:
    """Finish a job whose webhook is given up."""
    job = finish(rig, hook, **changes)
    age(rig, job, by_s=DELIVER_FOR_S)
    end(rig, job, FAILED)
    return job


def ttl_s(rig: DeliveryRig, job: Job) -> int:
    return int(rig.client.ttl(rig.ledger.keys.job(job.job_id)))


def ids(found: tuple[UndeliveredResult, ...]) -> list[str]:
    return [one.job_id for one in found]


def test_a_webhook_that_is_given_up_is_a_dead_letter_that_names_host_and_reason(
    rig: DeliveryRig, webhooks: Webhooks
) -> None:
    job = dead(rig, tenant="shop")

    (one,) = webhooks.list(state="dead").deliveries

    assert (one.job_id, one.tenant, one.host) == (job.job_id, "shop", "hooks.example.com")
    assert (one.state, one.attempts, one.reason) == ("dead", 1, "status 500")
    assert one.died_at is not None
    assert "a-secret-path" not in str(one)
    assert rig.state(job).is_dead
    assert rig.ledger.deliveries()["dead"] == 1


def test_a_refused_webhook_is_a_dead_letter_too(rig: DeliveryRig, webhooks: Webhooks) -> None:
    job = finish(rig)

    end(rig, job, REFUSED)

    (one,) = webhooks.list().deliveries
    assert (one.state, one.reason) == ("dead", REFUSED.reason)


def test_the_record_of_a_dead_letter_outlives_other_results(rig: DeliveryRig) -> None:
    assert ttl_s(rig, dead(rig)) > 29 * 86_400


def test_pending_failed_and_dead_ones_are_told_apart(rig: DeliveryRig, webhooks: Webhooks) -> None:
    waiting, failed, given_up = finish(rig), finish(rig), dead(rig)
    end(rig, failed, FAILED)
    arrived = finish(rig)
    end(rig, arrived, DELIVERED)

    listed = {one.job_id: one.state for one in webhooks.list().deliveries}

    assert listed == {
        given_up.job_id: "dead",
        waiting.job_id: "pending",
        failed.job_id: "failed",
    }
    assert next(iter(listed)) == given_up.job_id
    assert ids(webhooks.list(state="failed").deliveries) == [failed.job_id]
    assert ids(webhooks.list(state="pending").deliveries) == [waiting.job_id]


def test_the_list_is_narrowed_by_tenant_host_and_time(rig: DeliveryRig, webhooks: Webhooks) -> None:
    old = dead(rig, "http://hooks.example.com:8080/", tenant="shop")
    new = finish(rig, "https://[::1]:8443/x", tenant="press")
    end(rig, new, REFUSED)
    hour_ago = datetime.now(UTC) - timedelta(hours=1)

    assert ids(webhooks.list(tenant="shop").deliveries) == [old.job_id]
    assert ids(webhooks.list(since=hour_ago).deliveries) == [new.job_id]
    assert ids(webhooks.list(host="hooks.example.com:8080").deliveries) == [old.job_id]
    for host in ("::1", "[::1]", "[::1]:8443"):
        assert ids(webhooks.list(host=host).deliveries) == [new.job_id]
    assert webhooks.list(host="example.com").deliveries == ()
    assert len(webhooks.list(limit=1).deliveries) == 1


def test_objects_are_listed_and_replayed_by_their_kind(
    rig: DeliveryRig, webhooks: Webhooks
) -> None:
    job = rig.finish(Deliver(object_uri="s3://results/1.json"))
    end(rig, job, REFUSED, name="object")

    (one,) = webhooks.list(kind="object", host="s3://results").deliveries
    assert (webhooks.list().deliveries, one.state, one.webhook_id) == ((), "dead", "")
    webhooks.replay(job.job_id, kind="object")

    assert rig.record(job).undelivered == ("object",)


def test_a_replayed_dead_letter_is_due_now_and_tried_for_another_day(
    rig: DeliveryRig, webhooks: Webhooks
) -> None:
    job = dead(rig)

    webhooks.replay(job.job_id)

    assert (rig.due_in_s(job) or 0) <= 0
    assert (rig.state(job).state, rig.state(job).attempts) == ("pending", 0)
    assert webhooks.list(state="dead").deliveries == ()
    end(rig, job, FAILED)
    assert 1 < (rig.due_in_s(job) or 0) < 3
    end(rig, job, DELIVERED)
    assert rig.state(job).state == "delivered"
    assert ttl_s(rig, job) <= RESULT_TTL_S


def test_a_replayed_dead_letter_that_fails_for_another_day_is_one_again(
    rig: DeliveryRig, webhooks: Webhooks
) -> None:
    job = dead(rig)
    webhooks.replay(job.job_id)
    key = rig.ledger.keys.job(job.job_id)
    rig.client.hincrbyfloat(key, "delivery_replayed_at", -DELIVER_FOR_S)

    end(rig, job, FAILED)

    assert ids(webhooks.list(state="dead").deliveries) == [job.job_id]
    assert ttl_s(rig, job) > 29 * 86_400


def test_a_webhook_that_has_arrived_is_called_again_when_it_is_named(
    rig: DeliveryRig, webhooks: Webhooks
) -> None:
    job = finish(rig)
    end(rig, job, DELIVERED)

    webhooks.replay(job.job_id)

    assert rig.as_worker("w2").take(10).job_ids == (job.job_id,)


def test_a_replay_ends_the_pause_of_a_failed_webhook(rig: DeliveryRig, webhooks: Webhooks) -> None:
    job = finish(rig)
    end(rig, job, DeliveryOutcome("failed", "status 503", 3000.0))

    webhooks.replay(job.job_id)

    assert (rig.due_in_s(job) or 0) <= 0
    assert rig.state(job).attempts == 1


def test_a_replay_leaves_the_lease_to_the_worker_that_delivers(
    rig: DeliveryRig, webhooks: Webhooks
) -> None:
    job = finish(rig)
    rig.as_worker("w1").take(10)

    webhooks.replay(job.job_id)

    assert (rig.due_in_s(job) or 0) > 50
    assert rig.as_worker("w2").take(10).job_ids == ()


def test_all_dead_letters_of_a_host_are_replayed_and_no_others(
    rig: DeliveryRig, webhooks: Webhooks
) -> None:
    here = {dead(rig).job_id for _ in range(3)}
    elsewhere, failed = dead(rig, "https://other.example.com/"), finish(rig)
    end(rig, failed, DeliveryOutcome("failed", "status 503", 3000.0))

    number = webhooks.replay_all(host="hooks.example.com")

    assert number == 3
    assert set(rig.as_worker("w2").take(10).job_ids) == here
    assert ids(webhooks.list(state="dead").deliveries) == [elsewhere.job_id]
    assert webhooks.replay_all(state="failed") == 1
    assert rig.as_worker("w2").take(10).job_ids == (failed.job_id,)


def test_more_failed_webhooks_than_a_list_examines_are_all_replayed(
    rig: DeliveryRig, webhooks: Webhooks, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(undelivered, "MAX_EXAMINED", 10)
    monkeypatch.setattr(undelivered, "EXAMINED_AT_ONCE", 7)
    failed = {finish(rig).job_id for _ in range(300)}  # more than Redis scans at once
    worker = rig.as_worker("w1")
    for job_id in worker.take(1000).job_ids:
        worker.settle(job_id, {"webhook": DeliveryOutcome("failed", "status 503", 3000.0)})

    number = webhooks.replay_all(state="failed")

    assert webhooks.list(state="failed").is_cut
    assert number == 300
    assert set(rig.as_worker("w2").take(1000).job_ids) == failed


def test_a_purged_dead_letter_is_readable_as_long_as_other_results(
    rig: DeliveryRig, webhooks: Webhooks
) -> None:
    first, second = dead(rig), dead(rig)

    webhooks.purge(first.job_id)

    assert ids(webhooks.list().deliveries) == [second.job_id]
    assert 0 < ttl_s(rig, first) <= RESULT_TTL_S
    with pytest.raises(JobNotFoundError, match="no dead delivery"):
        webhooks.purge(first.job_id)
    assert (webhooks.purge_all(), webhooks.list().deliveries) == (1, ())


def test_jobs_without_such_a_webhook_are_not_replayed(rig: DeliveryRig, webhooks: Webhooks) -> None:
    job = rig.finish(Deliver())

    with pytest.raises(JobNotFoundError):
        webhooks.replay(new_job_id())
    with pytest.raises(InvalidMessageError, match=r"deliver\.webhook is not set"):
        webhooks.replay(job.job_id)


@pytest.mark.parametrize(
    "wrong",
    [{"state": "lost"}, {"kind": "stream"}, {"since": datetime(2026, 1, 1)}, {"limit": 0}],  # noqa: DTZ001
)
def test_conditions_that_no_delivery_can_meet_are_refused(
    wrong: dict[str, Any], webhooks: Webhooks
) -> None:
    with pytest.raises(InvalidMessageError, match=next(iter(wrong))):
        webhooks.list(**wrong)


def test_the_oldest_dead_letters_are_dropped_beyond_the_bound_and_counted(
    rig: DeliveryRig, webhooks: Webhooks
) -> None:
    oldest = dead(rig)
    others = {f"no-record-{number}": number + 9e9 for number in range(limits.MAX_DEAD_DELIVERIES)}
    rig.client.zadd(rig.ledger.keys.dead_deliveries, others)

    dead(rig)

    assert rig.client.zcard(rig.ledger.keys.dead_deliveries) == limits.MAX_DEAD_DELIVERIES
    assert 0 < ttl_s(rig, oldest) <= RESULT_TTL_S
    assert rig.ledger.deliveries()["dropped"] == 2


def test_dead_letters_whose_record_is_gone_are_dropped_from_the_list(
    rig: DeliveryRig, webhooks: Webhooks
) -> None:
    job = dead(rig)
    rig.client.delete(rig.ledger.keys.job(job.job_id))

    assert webhooks.list().deliveries == ()
    assert rig.client.zcard(rig.ledger.keys.dead_deliveries) == 0


def test_a_job_that_runs_again_is_no_dead_delivery(rig: DeliveryRig, webhooks: Webhooks) -> None:
    job = dead(rig)
    rig.client.zadd(rig.ledger.keys.dead_letters, {job.job_id: 0})

    rig.ledger.replay(job.job_id)

    assert webhooks.list().deliveries == ()
    assert rig.record(job).deliveries == {}


def test_an_erased_job_is_no_dead_delivery(rig: DeliveryRig) -> None:
    job = dead(rig)

    rig.ledger.run(rig.ledger.commands.forget(job.job_id))

    assert rig.client.zcard(rig.ledger.keys.dead_deliveries) == 0


def test_a_schedule_of_settings_changes_pauses_and_the_end(ledger_url: str) -> None:
    times = {
        "delivery_first_pause_s": 100,
        "delivery_longest_pause_s": 150,
        "deliver_for_s": 10 * 86_400,
    }
    with delivering(ledger_url, is_started=False, **times) as rig:
        job = finish(rig)
        age(rig, job, by_s=2 * 86_400)
        pauses = []
        for _ in range(2):
            rig.make_due(job)
            rig.as_worker("w1").take(10)
            rig.pool._ledger._worker = "w1"
            rig.pool._ledger.settle(job.job_id, {"webhook": FAILED})
            pauses.append(rig.due_in_s(job) or 0)

        assert 74 < pauses[0] < 126
        assert 111 < pauses[1] <= 150
        assert ttl_s(rig, job) > 7 * 86_400
