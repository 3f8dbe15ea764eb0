"""Envelope of a received message: parsed with the standard library, within limits."""

import base64
import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final, TypeGuard

# The longest job that the contract allows has 10,000 prompts of 1,000 characters, in base64.
MAX_ENVELOPE_BYTES: Final = 16 * 1024 * 1024
# json.loads makes an object of each: as many take some tenths of a second and 100 MB.
MAX_JSON_VALUES: Final = 500_000
_TASK_ID: Final = re.compile(r"[\x21-\x7e]{1,255}")
_PLAIN: Final = re.compile(r"[\x20-\x7e]{1,511}")
_JOB_ID: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")


class EnvelopeRefusedError(ValueError):
    """The envelope is not a plain call of one of our tasks; the message is set aside."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


@dataclass(frozen=True, slots=True)
class Envelope:
    """Envelope of a received message, unchecked.

    Attributes:
        raw: Returns the message's bytes, to be kept if it is set aside.
        body: Text of the body, or its bytes.
        fault: Why the message cannot be parsed; empty if it can.
        is_redelivered: Whether the broker has delivered the message before.
    """

    raw: Callable[[], bytes]
    headers: Any = None
    body: Any = b""
    content_type: Any = None
    content_encoding: Any = None
    correlation_id: Any = None
    is_redelivered: bool = False
    fault: str = ""


def unpack(raw: bytes) -> Envelope:
    """Parse a message from a list on Redis; return an empty envelope if it is unreadable."""
    try:
        check_size(raw)
        message = json.loads(raw.decode())
        return _to_envelope(message, raw)
    except EnvelopeRefusedError as error:
        return Envelope(lambda: raw, fault=error.reason)
    except Exception as error:  # noqa: BLE001 - bytes of any kind are set aside
        return Envelope(lambda: raw, fault=f"the envelope is not JSON ({type(error).__name__})")


def check_size(text: str | bytes) -> None:
    """Refuse JSON whose parsing alone would hold up the event loop.

    Raises:
        EnvelopeRefusedError: It is too long, or holds too many values.
    """
    if len(text) > MAX_ENVELOPE_BYTES:
        raise EnvelopeRefusedError(f"{len(text)} bytes are too many (limit {MAX_ENVELOPE_BYTES})")
    if len(text) <= MAX_JSON_VALUES:
        return
    raw = text if isinstance(text, bytes) else text.encode("utf-8", "replace")
    if sum(raw.count(separator) for separator in (b",", b"[", b"{")) > MAX_JSON_VALUES:
        raise EnvelopeRefusedError(f"more than {MAX_JSON_VALUES} JSON values are too many")


def _to_envelope(message: Any, raw: bytes) -> Envelope:
    if not isinstance(message, dict):
        raise EnvelopeRefusedError("the envelope is not a JSON object")
    properties = message.get("properties")
    properties = properties if isinstance(properties, dict) else {}
    info = properties.get("delivery_info")
    body, fault = _decode_body(message.get("body"), properties.get("body_encoding"))
    return Envelope(
        lambda: raw,
        headers=message.get("headers"),
        body=body,
        content_type=message.get("content-type"),
        content_encoding=message.get("content-encoding"),
        correlation_id=properties.get("correlation_id"),
        is_redelivered=isinstance(info, dict) and info.get("redelivered") is True,
        fault=fault,
    )


def _decode_body(body: Any, encoding: Any) -> tuple[Any, str]:
    """Decode the body by *encoding*; the second value is the reason if that is impossible."""
    if encoding is None or encoding == "":
        return body, ""
    if encoding != "base64":
        return body, "properties.body_encoding is neither absent nor base64"
    try:
        return base64.b64decode(body, validate=True), ""
    except (ValueError, TypeError):
        return body, "the body is not base64, as properties.body_encoding says it is"


def read_text(body: Any) -> str:
    """Read a body as text.

    Raises:
        EnvelopeRefusedError: It is not a text, or not UTF-8.
    """
    if isinstance(body, bytes | bytearray | memoryview):
        try:
            return str(body, "utf-8")
        except UnicodeDecodeError as error:
            raise EnvelopeRefusedError("the body is not UTF-8") from error
    if not isinstance(body, str):
        raise EnvelopeRefusedError("the body is missing or not a text")
    if not body.isascii():
        try:
            body.encode()
        except UnicodeEncodeError as error:  # JSON can name half of a surrogate pair
            raise EnvelopeRefusedError("the body is not UTF-8") from error
    return body


def read_instant(value: Any, name: str) -> float | None:
    """Read an ISO 8601 instant as Celery writes it; one without a zone is UTC."""
    if value is None:
        return None
    try:
        instant = datetime.fromisoformat(value)
        return (instant if instant.tzinfo else instant.replace(tzinfo=UTC)).timestamp()
    except (ValueError, TypeError, OverflowError) as error:
        raise EnvelopeRefusedError(f"headers.{name} is not an ISO 8601 instant") from error


def find_job_id(envelope: Envelope) -> str:
    """Find the id of the job that a refused message carries; empty if it names none."""
    headers = envelope.headers if isinstance(envelope.headers, dict) else {}
    found = (_job_id_in_body(envelope.body), headers.get("id"), envelope.correlation_id)
    return next((job_id for job_id in found if is_job_id(job_id)), "")


def _job_id_in_body(body: Any) -> Any:
    try:
        text = read_text(body)
        check_size(text)
        value = json.loads(text)
        while isinstance(value, list):
            value = value[0]
        return value.get("job_id")
    except Exception:  # noqa: BLE001 - a missing id is no error
        return None


def is_job_id(value: Any) -> TypeGuard[str]:
    """Return whether *value* can be a job's id."""
    return isinstance(value, str) and _JOB_ID.fullmatch(value) is not None


def is_plain(value: Any) -> TypeGuard[str]:
    """Return whether *value* is a short text of printable ASCII."""
    return isinstance(value, str) and _PLAIN.fullmatch(value) is not None


def is_task_id(value: Any) -> TypeGuard[str]:
    """Return whether *value* can be the id of a call."""
    return isinstance(value, str) and _TASK_ID.fullmatch(value) is not None
