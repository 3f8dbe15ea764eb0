"""Results are delivered where their jobs want them: signed, where it is permitted, and retried."""

import base64
import hashlib
import hmac
import json
import logging
import time
from collections.abc import Iterator, Mapping
from email.utils import formatdate
from typing import Any

import pytest

from labelyard.ledger import Pending
from labelyard.messages import Deliver
from labelyard_worker.jobs.delivery.plan import Delivery, deliveries_of
from labelyard_worker.local.servers import SeaweedServer
from tests.support.buckets import Bucket
from tests.support.delivering import SECRET, DeliveryRig, delivering
from tests.support.receiver import Receiver, running_receiver, running_slow_receiver
from tests.support.waiting import wait_until

DAY_S = 86_400


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with running_receiver() as running:
        yield running


@pytest.fixture
def rig(ledger_url: str) -> Iterator[DeliveryRig]:
    with delivering(ledger_url) as running:
        yield running


@pytest.fixture
def logged(caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    caplog.set_level(logging.WARNING, logger="labelyard_worker.delivery")
    return caplog


def storage_of(seaweed: SeaweedServer, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """Lead a worker to the storage, with the administrator's keys."""
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", seaweed.access_key_id)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", seaweed.secret_access_key)
    return {"s3_endpoint_url": seaweed.endpoint_url, "s3_region": seaweed.region}


def lower(headers: Mapping[str, str]) -> dict[str, str]:
    return {name.lower(): value for name, value in headers.items()}


def signature(headers: Mapping[str, str], body: bytes) -> str:
    """Compute the signature as a receiver does, from the specification alone."""
    content = f"{headers['webhook-id']}.{headers['webhook-timestamp']}.".encode() + body
    digest = hmac.digest(base64.b64decode(SECRET[6:]), content, hashlib.sha256)
    return f"v1,{base64.b64encode(digest).decode()}"


def test_a_webhook_is_signed_after_the_specification(rig: DeliveryRig, receiver: Receiver) -> None:
    job = rig.finish(Deliver(webhook=f"{receiver.url}?a=b"))

    state = rig.tried(job)

    (hook,) = receiver.hooks
    headers = lower(hook.headers)
    assert (state.state, state.reason, rig.record(job).undelivered) == ("delivered", "", ())
    assert headers["webhook-signature"] == signature(headers, hook.body)
    assert (hook.path, headers["webhook-id"]) == ("/hook?a=b", job.job_id)
    assert abs(int(headers["webhook-timestamp"]) - time.time()) < 60
    assert json.loads(hook.body)["type"] == "job.succeeded"
    assert json.loads(hook.body)["data"]["job_id"] == job.job_id


def test_the_worker_that_finished_a_job_delivers_it_at_once(
    rig: DeliveryRig, receiver: Receiver
) -> None:
    deliver = Deliver(webhook=receiver.url)
    job = rig.finish(deliver, deliverer="w1")
    record = rig.record(job)
    assert record.result is not None

    rig.pool.offer(Delivery(job, record.result, deliveries_of(job)))

    assert rig.tried(job).state == "delivered"


@pytest.mark.parametrize("status", [302, 400, 404, 429, 500, 503])
def test_a_webhook_that_fails_is_tried_again(
    status: int, rig: DeliveryRig, receiver: Receiver, logged: pytest.LogCaptureFixture
) -> None:
    receiver.statuses = [status]
    receiver.headers = {"location": f"{receiver.url}/elsewhere"}
    job = rig.finish(Deliver(webhook=receiver.url))

    first = rig.tried(job)
    rig.make_due(job)
    second = rig.tried(job, times=2)

    assert first.state == "failed"
    assert first.reason.startswith(f"status {status}")
    assert first.next_try_at is not None
    assert (second.state, second.next_try_at) == ("delivered", None)
    assert [hook.path for hook in receiver.hooks] == ["/hook"] * 2
    assert len({lower(hook.headers)["webhook-id"] for hook in receiver.hooks}) == 1
    assert [record.getMessage() for record in logged.records] == ["delivery_failed"]


def test_a_receiver_that_is_gone_is_not_called_again(rig: DeliveryRig, receiver: Receiver) -> None:
    receiver.statuses = [410]
    job = rig.finish(Deliver(webhook=receiver.url))

    state = rig.tried(job)

    assert (state.state, state.next_try_at) == ("refused", None)
    assert "410" in state.reason
    assert (rig.record(job).undelivered, rig.due_in_s(job)) == ((), None)
    assert rig.ledger.deliveries()["refused"] == 1


@pytest.mark.parametrize(
    ("retry_after", "least_s", "most_s"),
    [
        ("600", 590, 600),
        ("{date}", 400, 600),
        ("1000000000", 3590, 3600),
        ("Fri, 31 Dec 9999 23:59:59 GMT", 3590, 3600),
        ("soon", 0, 4),
        ("-7", 0, 4),
        ("²", 0, 4),
    ],
)
def test_a_receiver_says_when_to_come_again_within_an_hour(
    retry_after: str, least_s: float, most_s: float, rig: DeliveryRig, receiver: Receiver
) -> None:
    receiver.statuses = [503]
    date = formatdate(time.time() + 600, usegmt=True)
    receiver.headers = {"retry-after": retry_after.format(date=date)}
    job = rig.finish(Deliver(webhook=receiver.url))

    rig.tried(job)

    due_in_s = rig.due_in_s(job)
    assert due_in_s is not None
    assert least_s < due_in_s <= most_s


@pytest.mark.parametrize(
    ("settings", "webhook"),
    [
        ({"webhook_hosts": ()}, "http://127.0.0.1:9/"),
        ({"webhook_hosts": ("example.com",)}, "http://example.com/"),
        ({"webhook_secret": None}, "http://127.0.0.1:9/"),
    ],
    ids=["no host", "no TLS", "no secret"],
)
def test_a_webhook_that_is_not_permitted_is_refused_where_its_producer_looks(
    settings: dict[str, Any], webhook: str, ledger_url: str, logged: pytest.LogCaptureFixture
) -> None:
    with delivering(ledger_url, **settings) as rig:
        job = rig.finish(Deliver(webhook=f"{webhook}?token=hush"))

        state = rig.tried(job)

        assert (state.state, rig.record(job).undelivered) == ("refused", ())
        assert "LABELYARD_WEBHOOK_" in state.reason
    assert [record.getMessage() for record in logged.records] == ["delivery_refused"]
    assert "hush" not in str([vars(record) for record in logged.records]) + state.reason


def test_a_webhook_that_an_earlier_version_accepted_is_refused_at_once(
    rig: DeliveryRig, logged: pytest.LogCaptureFixture
) -> None:
    job = rig.finish(Deliver(webhook="http://127.0.0.1:9/"), deliverer="gone")
    message = job.model_dump(mode="json")
    message["deliver"]["webhook"] = "http://[host/?token=hush"
    key = rig.ledger.keys.job(job.job_id)
    rig.client.hset(key, "message", json.dumps(message))
    rig.make_due(job)

    state = rig.tried(job)

    assert (state.state, rig.due_in_s(job)) == ("refused", None)
    assert "hush" not in str([vars(record) for record in logged.records]) + state.reason


def test_no_address_of_a_failed_webhook_is_logged_or_kept(
    rig: DeliveryRig, receiver: Receiver, logged: pytest.LogCaptureFixture
) -> None:
    """Webhooks often carry a secret in their path or query."""
    receiver.statuses = [500]
    job = rig.finish(Deliver(webhook=f"{receiver.url}?token=hush"))

    state = rig.tried(job)

    assert len(logged.records) == 1
    assert "hush" not in str([vars(record) for record in logged.records]) + state.reason


def test_proxies_of_the_environment_are_not_used(
    ledger_url: str, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    with delivering(ledger_url) as rig:
        job = rig.finish(Deliver(webhook=receiver.url))

        assert rig.tried(job).state == "delivered"


@pytest.mark.parametrize(
    ("scheme", "opening", "drip"),
    [
        ("http", b"", b""),
        ("http", b"", b"H"),
        ("http", b"HTTP/1.1 200 OK\r\nx: ", b"x"),
        ("http", b"HTTP/1.1 100 Continue\r\n\r\n", b"HTTP/1.1 100 Continue\r\n\r\n"),
        ("https", b"", b""),
        ("https", b"", b"\x16"),
    ],
    ids=["silent", "status", "header", "continue", "silent handshake", "dripping handshake"],
)
def test_a_call_ends_in_time_however_its_receiver_answers(
    scheme: str, opening: bytes, drip: bytes, ledger_url: str
) -> None:
    with (
        running_slow_receiver(opening, drip=drip) as slow,
        delivering(
            ledger_url,
            webhook_timeout_s=0.3,
            webhook_hosts=("127.0.0.1",),
        ) as rig,
    ):
        job = rig.finish(Deliver(webhook=slow.url.replace("http", scheme, 1)))

        state = rig.tried(job)

        assert state.state == "failed"
        assert slow.calls == 1


def test_a_receiver_that_drips_its_body_has_answered(ledger_url: str) -> None:
    opening = b"HTTP/1.1 200 OK\r\ncontent-length: 100000\r\n\r\n"
    with (
        running_slow_receiver(opening, drip=b"x") as slow,
        delivering(ledger_url, webhook_timeout_s=0.5) as rig,
    ):
        job = rig.finish(Deliver(webhook=slow.url))

        assert rig.tried(job).state == "delivered"


@pytest.mark.parametrize(
    "answer",
    [b"HTTP/1.1 200", b"nonsense\r\n\r\n", b"HTTP/1.1 200 OK\r\n" + b"x: " + b"y" * 100_000],
    ids=["status without a line", "nonsense", "endless header"],
)
def test_an_answer_that_is_not_http_is_a_failure(answer: bytes, ledger_url: str) -> None:
    with (
        running_slow_receiver(answer) as slow,
        delivering(ledger_url, webhook_timeout_s=0.5) as rig,
    ):
        job = rig.finish(Deliver(webhook=slow.url))

        assert rig.tried(job).state == "failed"


def test_a_slow_host_holds_few_calls_and_no_other_hosts(
    ledger_url: str, receiver: Receiver
) -> None:
    with (
        running_slow_receiver() as slow,
        delivering(ledger_url, webhook_timeout_s=20.0, is_started=False) as rig,
    ):
        jobs = [rig.finish(Deliver(webhook=slow.url)) for _ in range(40)]
        rig.start()
        wait_until(lambda: slow.calls == 16)

        other = rig.finish(Deliver(webhook=receiver.url))

        assert rig.tried(other).state == "delivered"
        assert slow.most_at_once == 16
        assert all(rig.state(job).attempts == 0 for job in jobs)


def test_a_host_that_fails_is_left_alone_for_a_while(ledger_url: str, receiver: Receiver) -> None:
    receiver.statuses = [500] * 200
    with delivering(ledger_url, is_started=False) as rig:
        jobs = [rig.finish(Deliver(webhook=receiver.url)) for _ in range(40)]

        rig.start()

        wait_until(lambda: all(rig.due_in_s(job) or 0 > 0 for job in jobs), within_s=20)
        wait_until(lambda: all(rig.state(job).reason for job in jobs), within_s=20)
        untried = [rig.state(job) for job in jobs if not rig.state(job).attempts]
        assert len(receiver.hooks) <= 16 + 5
        assert {state.reason for state in untried} == {"its host is failing: status 500"}
        assert {state.state for state in untried} == {"pending"}


def test_a_result_is_written_as_json_where_it_is_permitted(
    ledger_url: str, seaweed: SeaweedServer, bucket: Bucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    storage = storage_of(seaweed, monkeypatch)
    keys = ["out/default/1.json", "out/default/a b%2F#?ü.json"]
    with delivering(
        ledger_url, result_buckets=(f"{bucket.name}/out/{{tenant}}/",), **storage
    ) as rig:
        jobs = [rig.finish(Deliver(object_uri=bucket.uri(key))) for key in keys]
        elsewhere = rig.finish(Deliver(object_uri=bucket.uri("out/other/1.json")))

        assert [rig.tried(job, "object").state for job in jobs] == ["delivered"] * 2
        refused = rig.tried(elsewhere, "object")

        assert (refused.state, rig.record(elsewhere).undelivered) == ("refused", ())
        assert "LABELYARD_RESULT_BUCKETS" in refused.reason
        assert sorted(bucket.keys()) == sorted(keys)
        result = rig.record(jobs[0]).result
        assert result is not None
        assert json.loads(bucket.get(keys[0])) == result.model_dump(mode="json")


def test_without_a_listed_place_no_object_is_written(rig: DeliveryRig, bucket: Bucket) -> None:
    job = rig.finish(Deliver(object_uri=bucket.uri("1.json")))

    assert rig.tried(job, "object").state == "refused"
    assert bucket.keys() == []


def test_one_delivery_that_fails_keeps_no_other_back(
    ledger_url: str,
    seaweed: SeaweedServer,
    bucket: Bucket,
    receiver: Receiver,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    receiver.statuses = [500]
    storage = storage_of(seaweed, monkeypatch)
    with delivering(ledger_url, result_buckets=(bucket.name,), **storage) as rig:
        job = rig.finish(Deliver(object_uri=bucket.uri("1.json"), webhook=receiver.url))

        rig.tried(job)

        assert rig.state(job, "object").state == "delivered"
        assert rig.record(job).undelivered == ("webhook",)
        rig.make_due(job)
        rig.tried(job, times=2)
        assert rig.state(job, "object").attempts == 1


def test_an_object_is_tried_again_while_storage_refuses_the_worker(
    ledger_url: str, seaweed: SeaweedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    storage = storage_of(seaweed, monkeypatch)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "another")
    with delivering(ledger_url, result_buckets=("results",), **storage) as rig:
        job = rig.finish(Deliver(object_uri="s3://results/1.json"))

        state = rig.tried(job, "object")

        assert (state.state, rig.record(job).undelivered) == ("failed", ("object",))
        assert state.reason == "SignatureDoesNotMatch"


@pytest.mark.parametrize("drip", [b"", b"x"], ids=["silent", "dripping"])
def test_a_write_ends_in_time_however_storage_answers(
    drip: bytes, ledger_url: str, seaweed: SeaweedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    storage = storage_of(seaweed, monkeypatch)
    opening = b"HTTP/1.1 200 OK\r\nx: " if drip else b""
    with running_slow_receiver(opening, drip=drip) as slow:
        storage["s3_endpoint_url"] = slow.url.removesuffix("/hook")
        settings = {"result_buckets": ("results",), "object_timeout_s": 0.3, **storage}
        with delivering(ledger_url, **settings) as rig:
            job = rig.finish(Deliver(object_uri="s3://results/1.json"))

            assert rig.tried(job, "object").state == "failed"


def test_what_a_closing_pool_could_not_deliver_is_due_at_once(ledger_url: str) -> None:
    with (
        running_slow_receiver() as slow,
        delivering(ledger_url, webhook_timeout_s=20.0) as rig,
    ):
        jobs = [rig.finish(Deliver(webhook=slow.url)) for _ in range(20)]
        wait_until(lambda: slow.calls == 16)

        rig.pool.close()

        due = [rig.due_in_s(job) for job in jobs]
        assert all(due_in_s is not None and due_in_s <= 0 for due_in_s in due)
        assert {rig.state(job).state for job in jobs} == {"pending"}


def test_a_draining_pool_lets_a_call_in_flight_end(ledger_url: str) -> None:
    with (
        running_slow_receiver() as slow,
        delivering(ledger_url, webhook_timeout_s=1.5) as rig,
    ):
        job = rig.finish(Deliver(webhook=slow.url))
        wait_until(lambda: slow.calls == 1)

        rig.pool.drain(30.0)
        rig.pool.close()

        assert rig.state(job).attempts == 1


def test_a_result_for_a_failing_host_waits_in_the_ledger_from_the_start(
    ledger_url: str, receiver: Receiver
) -> None:
    """The pending delivery costs the worker neither a lease nor a second write."""
    receiver.statuses = [500] * 200
    with delivering(ledger_url) as rig:
        job = rig.finish(Deliver(webhook=receiver.url))
        before = rig.pool.plan(job, deliveries_of(job))
        for _ in range(5):
            rig.finish(Deliver(webhook=receiver.url))
        wait_until(lambda: rig.pool.plan(job, deliveries_of(job)).due_in_s > 0)

        after = rig.pool.plan(job, deliveries_of(job))

        assert before == Pending(("webhook",), deliverer="w1")
        assert (after.names, after.deliverer) == (("webhook",), "")
        assert after.due_in_s > 5


def test_a_job_without_deliveries_has_nobody_to_deliver_it(rig: DeliveryRig) -> None:
    job = rig.finish(Deliver(stream="s"))

    assert rig.pool.plan(job, deliveries_of(job)) == Pending()
