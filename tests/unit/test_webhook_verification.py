"""Receivers verify webhooks, and reject whatever is forged, repeated or malformed."""

import hmac
import json
from typing import Any
from unittest import mock

import pytest
from hypothesis import given
from hypothesis import strategies as st

from labelyard.errors import (
    ServiceConfigError,
    WebhookBodyError,
    WebhookError,
    WebhookHeadersError,
    WebhookSignatureError,
    WebhookTimestampError,
)
from labelyard.testing import sample_job, sample_result
from labelyard.webhooks import sign, verify
from labelyard_worker.jobs.delivery.signature import webhook_body

SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
OTHER = "whsec_YW5vdGhlciBrZXkgb2YgMjQgYnl0ZXMu"
NOW = 1_800_000_000
BODY = b'{"type":"job.succeeded","data":{"job_id":"a"}}'


def signed(body: bytes | str = BODY, secret: Any = SECRET, *, at: float = NOW) -> dict[str, str]:
    return sign(body, secret, message_id="msg-1", at=at)


def test_a_signed_webhook_is_verified_and_its_payload_returned() -> None:
    payload = verify(signed(), BODY, SECRET, now=NOW)

    assert payload == {"type": "job.succeeded", "data": {"job_id": "a"}}
    assert (payload.id, payload.sent_at.timestamp()) == ("msg-1", NOW)


def test_the_payload_holds_the_result_as_a_client_reads_it() -> None:
    result = sample_result("partial", job=sample_job())
    body = webhook_body(result)

    payload = verify(signed(body), body, SECRET, now=NOW)

    assert (payload["type"], payload.result()) == ("job.partial", result)


def test_a_payload_of_something_else_has_no_result() -> None:
    payload = verify(signed(), BODY, SECRET, now=NOW)

    with pytest.raises(WebhookBodyError, match="not a result"):
        payload.result()


@pytest.mark.parametrize("change", [str.upper, str.title, str.lower])
def test_header_names_may_have_any_case(change: Any) -> None:
    headers = {change(name): value for name, value in signed().items()}

    assert verify(headers, BODY, SECRET, now=NOW).id == "msg-1"


def test_headers_may_be_pairs_of_bytes_and_the_body_text() -> None:
    pairs = [(name.encode(), value.encode()) for name, value in signed().items()]
    others = [(b"host", b"example.com"), (b"accept", b"*/*"), (b"accept", b"text/plain")]

    assert verify([*others, *pairs], BODY.decode(), SECRET, now=NOW).id == "msg-1"


def test_a_body_that_is_not_ascii_is_the_same_as_text_and_as_bytes() -> None:
    text = json.dumps({"type": "x", "label": "ein Kätzchen 🐈"}, ensure_ascii=False)

    for body in (text, text.encode(), bytearray(text.encode()), memoryview(text.encode())):
        assert verify(signed(text), body, SECRET, now=NOW)["label"] == "ein Kätzchen 🐈"  # type: ignore[arg-type]


@pytest.mark.parametrize("secrets", [[OTHER, SECRET], (SECRET, OTHER), iter([SECRET, OTHER])])
def test_each_of_several_secrets_is_accepted(secrets: Any) -> None:
    assert verify(signed(), BODY, secrets, now=NOW).id == "msg-1"


def test_one_of_several_signatures_is_enough() -> None:
    headers = signed(secret=[OTHER, SECRET])

    assert verify(headers, BODY, SECRET, now=NOW) == verify(headers, BODY, OTHER, now=NOW)


def test_signatures_of_other_versions_are_ignored() -> None:
    headers = signed()
    headers["webhook-signature"] = f"v1a,bm90IHJlYWQgaGVyZQ== {headers['webhook-signature']} v2,x"

    assert verify(headers, BODY, SECRET, now=NOW).id == "msg-1"


def test_another_secret_is_rejected() -> None:
    with pytest.raises(WebhookSignatureError, match="LABELYARD_WEBHOOK_SECRET") as raised:
        verify(signed(), BODY, OTHER, now=NOW)

    assert OTHER[6:] not in str(raised.value)


@pytest.mark.parametrize("name", ["webhook-id", "webhook-timestamp"])
def test_a_signed_header_that_was_changed_is_rejected(name: str) -> None:
    headers = signed()
    headers[name] = f"{headers[name]}1"

    with pytest.raises(WebhookSignatureError):
        verify(headers, BODY, SECRET, now=NOW)


@given(st.binary(max_size=200), st.text(max_size=80))
def test_bytes_that_nobody_signed_are_rejected(body: bytes, signature: str) -> None:
    headers = {**signed(), "webhook-signature": f"v1,{signature}"}

    with pytest.raises(WebhookError):
        verify(headers, body, SECRET, now=NOW)


@pytest.mark.parametrize("offered", ["", "v1", "v1,", "v2,AAAA", "no", " ".join(["v1,x"] * 33)])
def test_signatures_of_no_use_are_rejected(offered: str) -> None:
    headers = {**signed(), "webhook-signature": offered}

    with pytest.raises((WebhookSignatureError, WebhookHeadersError)):
        verify(headers, BODY, SECRET, now=NOW)


@pytest.mark.parametrize("name", ["webhook-id", "webhook-timestamp", "webhook-signature"])
def test_a_header_that_is_missing_is_named(name: str) -> None:
    headers = signed()
    del headers[name]

    with pytest.raises(WebhookHeadersError, match=f"{name} is missing"):
        verify(headers, BODY, SECRET, now=NOW)


def test_a_header_that_is_there_twice_is_rejected() -> None:
    pairs = [*signed().items(), ("Webhook-Id", "msg-2")]

    with pytest.raises(WebhookHeadersError, match="webhook-id is there twice"):
        verify(pairs, BODY, SECRET, now=NOW)


@pytest.mark.parametrize("at", [NOW - 301, NOW + 301])
def test_a_webhook_that_was_signed_at_another_time_is_rejected(at: float) -> None:
    with pytest.raises(WebhookTimestampError, match="301 s"):
        verify(signed(at=at), BODY, SECRET, now=NOW)


def test_the_tolerance_can_be_changed() -> None:
    headers = signed(at=NOW - 3000)

    assert verify(headers, BODY, SECRET, now=NOW, tolerance_s=3000).id == "msg-1"
    with pytest.raises(WebhookTimestampError):
        verify(headers, BODY, SECRET, now=NOW, tolerance_s=2999)
    with pytest.raises(WebhookTimestampError):
        verify(headers, BODY, SECRET, now=NOW, tolerance_s=float("nan"))


@pytest.mark.parametrize("timestamp", ["-1", "1e9", "٣", "nan", "1" * 16, "9" * 15, "1.5"])
def test_a_timestamp_of_another_form_is_rejected(timestamp: str) -> None:
    """Signed as it stands: a sender with the secret may still be broken."""
    from labelyard.webhooks.signature import secret_keys, signature

    (key,) = secret_keys(SECRET)
    text = signature(BODY, message_id="a", timestamp=timestamp, key=key)
    headers = {"webhook-id": "a", "webhook-timestamp": timestamp, "webhook-signature": f"v1,{text}"}

    with pytest.raises(WebhookHeadersError, match="webhook-timestamp"):
        verify(headers, BODY, SECRET, now=NOW)


@pytest.mark.parametrize("body", [b"", b"{", b"[1]", b'"a"', b"\xff\xfe", b"[" * 100_000])
def test_a_signed_body_that_is_not_an_object_is_rejected(body: bytes) -> None:
    with pytest.raises(WebhookBodyError, match="the body is not"):
        verify(signed(body), body, SECRET, now=NOW)


def test_a_body_that_was_parsed_already_is_rejected_with_the_reason() -> None:
    with pytest.raises(WebhookBodyError, match="as it came"):
        verify(signed(), json.loads(BODY), SECRET, now=NOW)


@pytest.mark.parametrize("secret", ["", [], ["whsec_", SECRET], "whsec_no base64!", [None], b""])
def test_a_secret_that_cannot_be_read_is_the_receivers_fault_and_not_shown(secret: Any) -> None:
    with pytest.raises(ServiceConfigError, match="webhook secret") as raised:
        verify(signed(), BODY, secret, now=NOW)

    assert "no base64" not in str(raised.value)


def test_every_signature_is_compared_with_every_secret_in_constant_time() -> None:
    """Also after one was equal: the time of a call shows neither secret nor signature."""
    headers = signed(secret=[SECRET, OTHER])

    with mock.patch(
        "labelyard.webhooks.verification.hmac.compare_digest", side_effect=hmac.compare_digest
    ) as compare:
        verify(headers, BODY, [SECRET, OTHER], now=NOW)

    assert compare.call_count == 4


def test_a_payload_shows_no_content_where_it_is_logged() -> None:
    payload = verify(signed(), BODY, SECRET, now=NOW)

    assert repr(payload) == "WebhookPayload(id='msg-1', type='job.succeeded')"
