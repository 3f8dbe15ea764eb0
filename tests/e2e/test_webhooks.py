"""A webhook reaches its receiver, also one that was away when the job ended."""

import json
from collections.abc import Iterator

import pytest

from labelyard import Client
from labelyard.messages import Deliver
from tests.e2e.instant import InstantService
from tests.support.receiver import Receiver, running_receiver
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


def test_a_webhook_to_a_host_that_is_not_allowed_is_dropped_once_and_for_all(
    instant: InstantService, producer: Client
) -> None:
    deliver = Deliver(webhook="http://localhost:9/hook")

    result = producer.classify(
        [instant.picture()], labels=LABELS, timeout_s=TIMEOUT_S, deliver=deliver
    )

    assert result.status == "succeeded"
    wait_until(lambda: producer.status(result.job_id).undelivered == ())
    assert f"delivery_refused job_id={result.job_id}" in instant.log()
