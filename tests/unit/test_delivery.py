"""Results are taken where their jobs want them: signed, where it is allowed, and tried again."""

import base64
import hashlib
import hmac
import json
import logging
import time
from collections.abc import Iterator, Mapping
from contextlib import closing
from typing import Any

import boto3
import pytest

from labelyard.errors import ServiceConfigError
from labelyard.messages import Deliver
from labelyard.testing import sample_result
from labelyard_worker.delivery import Delivery, owed_by, sign, webhook_key
from labelyard_worker.local.servers import SeaweedServer
from labelyard_worker.settings import WorkerSettings
from tests.support.buckets import Bucket
from tests.support.receiver import Receiver, running_receiver

SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
ALL_OWED = ("object", "webhook")


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with running_receiver() as running:
        yield running


@pytest.fixture
def logged(caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    caplog.set_level(logging.WARNING, logger="labelyard_worker.delivery")
    return caplog


def delivery(s3: Any = None, **settings: Any) -> Delivery:
    settings = {"webhook_secret": SECRET, "webhook_hosts": ("127.0.0.1",), **settings}
    return Delivery.of(WorkerSettings(**settings), s3)


def signature(hook_headers: Mapping[str, str], body: bytes) -> str:
    """Compute what a receiver would, from the specification alone."""
    headers = {name.lower(): value for name, value in hook_headers.items()}
    content = f"{headers['webhook-id']}.{headers['webhook-timestamp']}.".encode() + body
    digest = hmac.digest(base64.b64decode(SECRET[6:]), content, hashlib.sha256)
    return f"v1,{base64.b64encode(digest).decode()}"


def test_a_webhook_is_signed_after_the_specification(receiver: Receiver) -> None:
    result = sample_result()

    owed = delivery().deliver(result, Deliver(webhook=receiver.url), ("webhook",))

    (hook,) = receiver.hooks
    headers = {name.lower(): value for name, value in hook.headers.items()}
    assert owed == ()
    assert headers["webhook-signature"] == signature(hook.headers, hook.body)
    assert headers["webhook-id"] == result.job_id
    assert abs(int(headers["webhook-timestamp"]) - time.time()) < 60
    event = json.loads(hook.body)
    assert (event["type"], event["data"]["job_id"]) == ("job.succeeded", result.job_id)


def test_the_signature_is_that_of_the_specifications_own_example() -> None:
    """Standard Webhooks 1.0.0, the test vector of its reference libraries."""
    headers = sign(
        b'{"test": 2432232314}',
        message_id="msg_p5jXN8AQM9LWM0D4loKWxJek",
        at=1614265330,
        key=webhook_key(SECRET),
    )

    assert headers["webhook-signature"] == "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="


@pytest.mark.parametrize("status", [400, 429, 500, 503])
def test_a_webhook_that_fails_is_still_owed(
    status: int, receiver: Receiver, logged: pytest.LogCaptureFixture
) -> None:
    receiver.statuses = [status]

    owed = delivery().deliver(sample_result(), Deliver(webhook=receiver.url), ("webhook",))

    assert owed == ("webhook",)
    assert [record.getMessage() for record in logged.records] == ["delivery_failed"]
    assert vars(logged.records[0])["fields"]["why"] == f"status {status}"


def test_a_webhook_follows_no_redirect(receiver: Receiver) -> None:
    receiver.statuses = [302]
    receiver.headers = {"location": receiver.url + "/elsewhere"}

    owed = delivery().deliver(sample_result(), Deliver(webhook=receiver.url), ("webhook",))

    assert owed == ("webhook",)
    assert [hook.path for hook in receiver.hooks] == ["/hook"]


@pytest.mark.parametrize(
    "settings",
    [{"webhook_hosts": ()}, {"webhook_hosts": ("example.com",)}, {"webhook_secret": None}],
    ids=["no host", "another host", "no secret"],
)
def test_a_webhook_that_is_not_allowed_is_dropped_with_a_warning(
    settings: dict[str, Any], receiver: Receiver, logged: pytest.LogCaptureFixture
) -> None:
    hook = Deliver(webhook=receiver.url)

    owed = delivery(**settings).deliver(sample_result(), hook, ("webhook",))

    assert (owed, receiver.hooks) == ((), [])
    assert [record.getMessage() for record in logged.records] == ["delivery_refused"]


def test_no_address_is_logged(receiver: Receiver, logged: pytest.LogCaptureFixture) -> None:
    """Webhooks often carry a secret in their path or query."""
    receiver.statuses = [500]
    url = f"{receiver.url}?token=hush"

    delivery().deliver(sample_result(), Deliver(webhook=url), ("webhook",))
    delivery(webhook_hosts=()).deliver(sample_result(), Deliver(webhook=url), ("webhook",))

    assert len(logged.records) == 2
    assert "hush" not in str([vars(record) for record in logged.records])


def test_an_object_is_the_result_as_json(bucket: Bucket) -> None:
    result = sample_result()
    deliver = Deliver(object_uri=bucket.uri("jobs/1.json"))

    owed = delivery(bucket.s3).deliver(result, deliver, ("object",))

    assert owed == ()
    assert json.loads(bucket.get("jobs/1.json")) == result.model_dump(mode="json")


def test_an_object_for_a_bucket_that_is_not_allowed_is_dropped_with_a_warning(
    bucket: Bucket, logged: pytest.LogCaptureFixture
) -> None:
    deliver = Deliver(object_uri=bucket.uri("jobs/1.json"))

    owed = delivery(bucket.s3, allowed_buckets=("mine",)).deliver(
        sample_result(), deliver, ("object",)
    )

    assert (owed, bucket.keys()) == ((), [])
    assert [record.getMessage() for record in logged.records] == ["delivery_refused"]


def test_an_object_is_still_owed_while_storage_refuses_us(
    seaweed: SeaweedServer, logged: pytest.LogCaptureFixture
) -> None:
    with closing(
        boto3.client(
            "s3",
            endpoint_url=seaweed.endpoint_url,
            region_name=seaweed.region,
            aws_access_key_id=seaweed.access_key_id,
            aws_secret_access_key="another",
        )
    ) as s3:
        owed = delivery(s3).deliver(
            sample_result(), Deliver(object_uri="s3://results/1.json"), ("object",)
        )

    assert owed == ("object",)
    assert vars(logged.records[0])["fields"]["why"] == "SignatureDoesNotMatch"


def test_one_delivery_that_fails_keeps_no_other_back(bucket: Bucket, receiver: Receiver) -> None:
    receiver.statuses = [500]
    deliver = Deliver(object_uri=bucket.uri("1.json"), webhook=receiver.url)

    owed = delivery(bucket.s3).deliver(sample_result(), deliver, owed_by(deliver))

    assert (owed, bucket.keys()) == (("webhook",), ["1.json"])


def test_an_object_is_still_owed_while_storage_is_away(seaweed: SeaweedServer) -> None:
    options = {"connect_timeout": 0.2, "retries": {"total_max_attempts": 1}}
    with closing(seaweed.s3_client(**options)) as s3:
        s3.meta.events.register("before-sign.s3.PutObject", lead_nowhere)

        owed = delivery(s3).deliver(
            sample_result(), Deliver(object_uri="s3://results/1.json"), ("object",)
        )

    assert owed == ("object",)


def lead_nowhere(request: Any, **_: Any) -> None:
    """Send a request to a port where nobody listens."""
    request.url = "http://127.0.0.1:9/"


@pytest.mark.parametrize(
    ("deliver", "owed"),
    [
        (Deliver(), ()),
        (Deliver(stream="s"), ()),
        (Deliver(object_uri="s3://a/b"), ("object",)),
        (Deliver(object_uri="s3://a/b", webhook="https://a/"), ALL_OWED),
    ],
)
def test_what_is_owed_is_what_the_job_asked_for(deliver: Deliver, owed: tuple[str, ...]) -> None:
    """The stream is written with the result, in one step."""
    assert owed_by(deliver) == owed


@pytest.mark.parametrize("secret", ["MfKQ9r8GKYqrTwjU", "whsec_not base64!"])
def test_a_secret_of_another_form_stops_the_start_unseen(secret: str) -> None:
    with pytest.raises(ServiceConfigError, match="LABELYARD_WEBHOOK_SECRET") as raised:
        webhook_key(secret)

    assert secret not in str(raised.value)
