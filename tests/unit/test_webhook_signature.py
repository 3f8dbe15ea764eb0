"""Webhooks are signed after the Standard Webhooks specification."""

import base64
import hashlib
import hmac
import uuid

import pytest
from hypothesis import given
from hypothesis import strategies as st

from labelyard.errors import ServiceConfigError
from labelyard.webhooks import sign, webhook_id
from labelyard_worker.jobs.delivery.signature import webhook_keys

SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
JOB_IDS = st.from_regex(r"\A[A-Za-z0-9][A-Za-z0-9._-]{0,127}\Z")


def test_the_signature_is_that_of_the_specifications_own_example() -> None:
    """Standard Webhooks 1.0.0, the test vector of its reference libraries."""
    headers = sign(
        b'{"test": 2432232314}', SECRET, message_id="msg_p5jXN8AQM9LWM0D4loKWxJek", at=1614265330
    )

    assert headers["webhook-signature"] == "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="


@pytest.mark.parametrize("secret", ["MfKQ9r8GKYqrTwjU", "whsec_not base64!"])
def test_a_secret_of_another_form_stops_the_start_unseen(secret: str) -> None:
    with pytest.raises(ServiceConfigError, match="LABELYARD_WEBHOOK_SECRET") as raised:
        webhook_keys(secret)

    assert secret not in str(raised.value)
    assert raised.value.__cause__ is None


def test_each_of_two_secrets_signs() -> None:
    other = f"whsec_{base64.b64encode(b'another key of 24 bytes.').decode()}"

    keys = webhook_keys(f"{SECRET}, {other}")

    headers = sign(b"{}", keys, message_id="a", at=1)
    expected = [hmac.digest(key, b"a.1.{}", hashlib.sha256) for key in keys]
    written = " ".join(f"v1,{base64.b64encode(one).decode()}" for one in expected)
    assert (len(keys), headers["webhook-signature"]) == (2, written)


def test_without_a_secret_there_is_no_key() -> None:
    assert webhook_keys(None) == webhook_keys("") == ()


@given(JOB_IDS)
def test_a_webhook_id_holds_no_dot_and_is_the_same_each_time(job_id: str) -> None:
    assert "." not in webhook_id(job_id)
    assert webhook_id(job_id) == webhook_id(job_id)
    assert ("." in job_id) or webhook_id(job_id) == job_id


def test_job_ids_that_differ_by_a_dot_alone_have_different_webhook_ids() -> None:
    ids = ["a.b", "a-b", "a_b", "a..b", "ab"]

    assert len({webhook_id(job_id) for job_id in ids}) == len(ids)
    assert uuid.UUID(webhook_id("a.b")).version == 5
