"""A webhook reaches its receiver, also one that was away when the job ended."""

import base64
import json
from collections.abc import Iterator

import pytest

from labelyard import Client
from labelyard.ledger.limits import DELIVER_FOR_S
from labelyard.messages import Deliver
from labelyard.webhooks import verify
from tests.e2e.instant import WEBHOOK_KEY, WEBHOOK_SECRET, InstantService
from tests.support.receiver import Receiver, running_receiver, running_slow_receiver
from tests.support.waiting import wait_until

LABELS = ["a cat", "a dog"]
TIMEOUT_S = 30.0


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with running_receiver() as running:
        yield running


@pytest.fixture
def producer(instant: InstantService) -> Iterator[Client]:
    with instant.client() as client:
        yield client


def test_a_webhook_that_failed_comes_again_with_the_same_id(
    instant: InstantService, producer: Client, receiver: Receiver
) -> None:
    receiver.statuses = [503]
    uri = instant.picture()

    result = producer.classify(
        [uri], labels=LABELS, timeout_s=TIMEOUT_S, deliver=Deliver(webhook=receiver.url)
    )

    wait_until(lambda: len(receiver.hooks) == 2, within_s=TIMEOUT_S)
    wait_until(lambda: producer.status(result.job_id).undelivered == ())
    ids = [{name.lower(): value for name, value in hook.headers.items()} for hook in receiver.hooks]
    assert [headers["webhook-id"] for headers in ids] == [result.job_id] * 2
    assert json.loads(receiver.hooks[1].body)["data"] == result.model_dump(mode="json")


def test_a_receiver_that_fails_for_a_while_gets_everything_later(
    instant: InstantService, producer: Client, receiver: Receiver
) -> None:
    """It fails as a whole, so that its host's breaker opens, and no job is the worse for it."""
    receiver.fails_with = 503
    options = {"deliver": Deliver(webhook=receiver.url), "tenant": "failing-receiver"}
    jobs = [producer.prepare([instant.picture()], LABELS, **options) for _ in range(12)]  # type: ignore[arg-type]
    handles = producer.submit_many(jobs)

    records = producer.wait(handles, timeout_s=TIMEOUT_S)
    wait_until(lambda: len(receiver.hooks) >= 7, within_s=TIMEOUT_S)
    waiting = producer.webhooks.list(tenant="failing-receiver").deliveries
    failures = len(receiver.hooks)
    receiver.fails_with = None

    ids = {handle.id for handle in handles}
    wait_until(
        lambda: all(producer.status(one).undelivered == () for one in ids), within_s=TIMEOUT_S
    )
    payloads = [verify(hook.headers, hook.body, WEBHOOK_SECRET) for hook in receiver.hooks]
    assert {record.state for record in records} == {"succeeded"}
    assert {one.job_id for one in waiting} == ids
    assert {one.state for one in waiting} <= {"pending", "failed"}
    arrived = [payload.result() for payload in payloads[failures:]]
    results = {record.job_id: record.result for record in records}
    assert {one.job_id for one in arrived} | {one.id for one in payloads[:failures]} >= ids
    assert all(one == results[one.job_id] for one in arrived)
    assert {one.job_id: one.deliveries["webhook"].state for one in map(producer.status, ids)} == (
        dict.fromkeys(ids, "delivered")
    )
    assert producer.webhooks.list(tenant="failing-receiver").deliveries == ()


def test_a_webhook_that_fails_for_a_day_is_a_dead_letter_that_can_be_replayed(
    instant: InstantService, producer: Client, receiver: Receiver
) -> None:
    receiver.fails_with = 500
    options = {"deliver": Deliver(webhook=receiver.url), "tenant": "dead-receiver"}
    job = producer.submit([instant.picture()], LABELS, **options)  # type: ignore[arg-type]
    wait_until(lambda: receiver.hooks, within_s=TIMEOUT_S)

    ledger = producer._ledger
    ledger.client.hincrbyfloat(ledger.keys.job(job.id), "finished_at", -DELIVER_FOR_S)
    dead = wait_until(
        lambda: producer.webhooks.list(state="dead", tenant="dead-receiver").deliveries,
        within_s=TIMEOUT_S,
    )
    receiver.fails_with = None
    count = len(receiver.hooks)
    assert producer.webhooks.replay_all(tenant="dead-receiver") == 1

    wait_until(lambda: producer.status(job.id).undelivered == (), within_s=TIMEOUT_S)
    assert [(one.job_id, one.reason) for one in dead] == [(job.id, "status 500")]
    assert [verify(hook.headers, hook.body, WEBHOOK_SECRET).id for hook in receiver.hooks] == (
        [job.id] * (count + 1)
    )
    assert producer.status(job.id).deliveries["webhook"].state == "delivered"
    assert job.state() == "succeeded"


def test_the_secret_is_in_no_log(instant: InstantService, producer: Client) -> None:
    producer.classify([instant.picture()], labels=LABELS, timeout_s=TIMEOUT_S)

    log = instant.log()

    assert base64.b64encode(WEBHOOK_KEY).decode() not in log
    assert WEBHOOK_KEY.decode() not in log


def test_a_webhook_that_is_not_permitted_is_refused_where_its_producer_looks(
    instant: InstantService, producer: Client
) -> None:
    deliver = Deliver(webhook="http://localhost:9/hook", object_uri="s3://pictures/a.json")

    result = producer.classify(
        [instant.picture()], labels=LABELS, timeout_s=TIMEOUT_S, deliver=deliver
    )

    assert result.status == "succeeded"
    wait_until(lambda: producer.status(result.job_id).undelivered == ())
    states = producer.status(result.job_id).deliveries
    assert {name: state.state for name, state in states.items()} == {
        "webhook": "refused",
        "object": "refused",
    }
    assert "LABELYARD_WEBHOOK_HOSTS" in states["webhook"].reason
    assert "LABELYARD_RESULT_BUCKETS" in states["object"].reason
    assert f"delivery_refused job_id={result.job_id}" in instant.log()


def test_receivers_that_hang_hold_up_no_job(instant: InstantService, producer: Client) -> None:
    """More of them than the worker has slots; its limit for a call is longer than the test."""
    with running_slow_receiver(b"HTTP/1.1 200 OK\r\nx: ", drip=b"x") as slow:
        jobs = [
            producer.prepare([instant.picture()], LABELS, deliver=Deliver(webhook=slow.url))
            for _ in range(80)
        ]
        handles = producer.submit_many(jobs)

        records = producer.wait(handles, timeout_s=TIMEOUT_S)

        assert {record.state for record in records} == {"succeeded"}
        assert slow.most_at_once <= 16
        shown = producer.status(handles[-1].id)
        assert shown.undelivered == ("webhook",)
        assert shown.deliveries["webhook"].state in ("pending", "failed")
    ledger = producer._ledger
    for handle in handles:  # the shared worker delivers nothing of this to later tests
        ledger.client.delete(ledger.keys.job(handle.id))
