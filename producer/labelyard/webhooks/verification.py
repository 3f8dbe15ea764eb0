"""Verification of webhooks by their receivers, after the Standard Webhooks specification."""

import hmac
import json
import math
import time
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import Any, Final

from pydantic import ValidationError

from labelyard.errors import (
    WebhookBodyError,
    WebhookHeadersError,
    WebhookSignatureError,
    WebhookTimestampError,
)
from labelyard.messages import Result
from labelyard.runs.run_end import RunEnd
from labelyard.webhooks.signature import (
    ID_HEADER,
    SIGNATURE_HEADER,
    TIMESTAMP_HEADER,
    VERSION,
    Secrets,
    secret_keys,
    signature,
)

#: Seconds by which a webhook's timestamp may differ from the receiver's clock.
TOLERANCE_S: Final = 300.0
# Signatures of one request that are compared: more are an attempt to cost time.
MAX_SIGNATURES: Final = 32
LONGEST_TIMESTAMP: Final = 15

# A mapping, or pairs as an ASGI server passes them.
Headers = Mapping[str, str] | Mapping[bytes, bytes] | Iterable[tuple[str | bytes, str | bytes]]


class WebhookPayload(dict[str, Any]):
    """Payload of a verified webhook: the parsed body, with what its headers hold.

    Attributes:
        id: The ``webhook-id``, the same for each attempt: a receiver ignores one that it has
            already processed.
        sent_at: When this attempt was signed.
    """

    def __init__(self, payload: Mapping[str, Any], *, message_id: str, sent_at: datetime) -> None:
        super().__init__(payload)
        self.id: str = message_id
        self.sent_at: datetime = sent_at

    def __repr__(self) -> str:
        """Return a summary; the payload is left out."""
        return f"WebhookPayload(id={self.id!r}, type={self.get('type')!r})"

    def result(self) -> Result:
        """Return the job's result as the clients do.

        Raises:
            WebhookBodyError: The payload does not hold a result that is read here.
        """
        try:
            return Result.model_validate(self.get("data"), strict=False)
        except ValidationError:
            raise WebhookBodyError("the payload's data is not a result of a job") from None

    def run_end(self) -> RunEnd:
        """Return the end of a run, if ``type`` begins with ``run.``.

        Raises:
            WebhookBodyError: The payload does not hold the end of a run that is read here.
        """
        try:
            return RunEnd.model_validate(self.get("data"), strict=False)
        except ValidationError:
            raise WebhookBodyError("the payload's data is not the end of a run") from None


def verify(
    headers: Headers,
    body: str | bytes,
    secret: Secrets,
    *,
    tolerance_s: float = TOLERANCE_S,
    now: float | None = None,
) -> WebhookPayload:
    """Verify a webhook and return its payload; call it before anything else reads the body.

    Args:
        headers: Headers of the request: a mapping with names in any case, or pairs of text or
            bytes.
        body: Body of the request as it came, byte for byte; JSON that was parsed and written again
            is not the same.
        secret: ``LABELYARD_WEBHOOK_SECRET`` of the workers. Several, while it is changed: each is
            accepted.
        tolerance_s: Seconds that the timestamp may lie in the past or in the future.
        now: The receiver's time in seconds since the epoch; the clock's if it is not given.

    Returns:
        The parsed JSON object, ``{"type": "job.succeeded", "data": …}``; ``payload.result()`` is
        its result, and ``payload.run_end()`` that of a run.

    Raises:
        WebhookHeadersError: A header is missing or malformed.
        WebhookTimestampError: It was signed too long ago, or by a clock that is ahead.
        WebhookSignatureError: None of its signatures was made with a secret.
        WebhookBodyError: The signature is right, and the body is not a JSON object.
        ServiceConfigError: A secret is not ``whsec_`` and base64, or there is none.

    Source:
        Standard Webhooks 1.0.0, "Verifying webhook authenticity".
    """
    keys = secret_keys(secret)
    raw = _raw(body)
    found = _read_headers(headers)
    message_id, timestamp = found[ID_HEADER], found[TIMESTAMP_HEADER]
    _check_signature(raw, found, keys=keys)
    at = _read_timestamp(timestamp)
    _check_time(at, now=time.time() if now is None else now, tolerance_s=tolerance_s)
    sent_at = datetime.fromtimestamp(at, UTC)
    return WebhookPayload(_read_body(raw), message_id=message_id, sent_at=sent_at)


def _raw(body: Any) -> bytes:
    if isinstance(body, str):
        return body.encode("utf-8", "surrogatepass")
    if isinstance(body, bytes | bytearray | memoryview):
        return bytes(body)
    raise WebhookBodyError(f"pass the body as it came, bytes or text, not {type(body).__name__}")


def _read_headers(headers: Any) -> dict[str, str]:
    """Find the three headers.

    Raises:
        WebhookHeadersError: One is missing, is there twice, or is not text.
    """
    pairs = headers.items() if hasattr(headers, "items") else headers
    wanted = (ID_HEADER, TIMESTAMP_HEADER, SIGNATURE_HEADER)
    found: dict[str, str] = {}
    for name, value in pairs:
        known = _text(name).lower()
        if known not in wanted:
            continue
        if known in found:
            raise WebhookHeadersError(f"{known} is there twice")
        found[known] = _text(value).strip()
    for known in wanted:
        if not found.get(known):
            raise WebhookHeadersError(f"{known} is missing")
    return found


def _text(value: Any) -> str:
    return value.decode("latin-1") if isinstance(value, bytes) else str(value)


def _read_timestamp(text: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) <= LONGEST_TIMESTAMP):
        raise WebhookHeadersError(f"{TIMESTAMP_HEADER} is not a number of seconds")
    try:
        datetime.fromtimestamp(int(text), UTC)
    except (ValueError, OverflowError, OSError):
        raise WebhookHeadersError(f"{TIMESTAMP_HEADER} is not a time") from None
    return int(text)


def _check_time(at: int, *, now: float, tolerance_s: float) -> None:
    late_s = now - at
    if math.isnan(tolerance_s) or abs(late_s) > tolerance_s:
        side = "before" if late_s > 0 else "after"
        raise WebhookTimestampError(
            f"it was signed {abs(late_s):.0f} s {side} this machine's time; {tolerance_s:g} s are "
            "allowed"
        )


def _check_signature(body: bytes, headers: Mapping[str, str], *, keys: tuple[bytes, ...]) -> None:
    """Compare every signature with that of every key, in a time that depends on neither.

    Raises:
        WebhookSignatureError: None is equal.
    """
    offered = [
        text.encode("utf-8", "surrogatepass")
        for version, comma, text in (
            one.partition(",") for one in headers[SIGNATURE_HEADER].split()
        )
        if comma and version == VERSION
    ]
    if not offered or len(offered) > MAX_SIGNATURES:
        raise WebhookSignatureError(
            f"{SIGNATURE_HEADER} has {len(offered)} signatures of version {VERSION}; 1 to "
            f"{MAX_SIGNATURES} are read"
        )
    is_signed = False
    for key in keys:
        expected = signature(
            body,
            message_id=headers[ID_HEADER],
            timestamp=headers[TIMESTAMP_HEADER],
            key=key,
        ).encode()
        for one in offered:
            is_signed |= hmac.compare_digest(one, expected)
    if not is_signed:
        raise WebhookSignatureError(
            "no signature was made with this secret: compare it with the workers' "
            "LABELYARD_WEBHOOK_SECRET, and pass the body byte for byte"
        )


def _read_body(body: bytes) -> dict[str, Any]:
    try:
        payload = json.loads(body)
    except (ValueError, RecursionError):
        raise WebhookBodyError("the body is not JSON") from None
    if not isinstance(payload, dict):
        raise WebhookBodyError("the body is not a JSON object")
    return payload
