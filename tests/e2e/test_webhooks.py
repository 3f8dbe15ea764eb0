"""A webhook reaches its receiver, also one that was away when the job ended."""

import json
from collections.abc import Iterator

import pytest

from labelyard import Client
from labelyard.messages import Deliver
from tests.e2e.instant import InstantService
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
