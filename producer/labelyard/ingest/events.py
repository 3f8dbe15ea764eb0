"""Events of object storage, in one form for all sources: the object, the change and its time."""

import hashlib
import re
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

from labelyard.arguments import is_text
from labelyard.buckets import is_bucket_name
from labelyard.errors import InvalidMessageError
from labelyard.fields import MAX_KEY_BYTES

#: Kinds of events begin so when an object is gone.
REMOVAL: Final = ("ObjectRemoved:", "LifecycleExpiration:")
_SEQUENCER_DIGITS: Final = 32  # AWS sends 16 to 18
_SEQUENCER: Final = re.compile(rf"[0-9A-Fa-f]{{1,{_SEQUENCER_DIGITS}}}")
_TIME_DIGITS: Final = 20
# Objects of a bucket without versions, or from before it had them, have this version in S3.
NO_VERSION: Final = "null"


@dataclass(frozen=True, slots=True)
class EventOrder:
    """Time of an event, as texts that sort like the times of one kind.

    Attributes:
        kind: ``sequencer``, or ``time``; times of different kinds cannot be compared.
        first: Earliest time that the event may have.
        last: Latest time; equal to *first* if the source is exact.
    """

    kind: str
    first: str
    last: str

    @classmethod
    def of_sequencer(cls, sequencer: str) -> "EventOrder":
        """Read S3's sequencer, a hexadecimal number of any length.

        Source: AWS, "Event message structure": right-pad the shorter one with zeros, and compare
        as text.
        """
        padded = sequencer.upper().ljust(_SEQUENCER_DIGITS, "0")
        return cls("sequencer", padded, padded)

    @classmethod
    def of_nanoseconds(cls, first: int, last: int) -> "EventOrder":
        """Write an interval of nanoseconds since the epoch."""
        return cls("time", f"{first:0{_TIME_DIGITS}d}", f"{last:0{_TIME_DIGITS}d}")

    @classmethod
    def of_instant(cls, text: str) -> "EventOrder":
        """Read S3's ``eventTime``, which has milliseconds, or seconds in some servers.

        Raises:
            ValueError: It is not a time with an offset, from 1970 on.
        """
        at = datetime.fromisoformat(text)
        if at.tzinfo is None or at.year < 1970:
            raise ValueError("eventTime")
        since = at.astimezone(UTC) - datetime(1970, 1, 1, tzinfo=UTC)
        first = (since.days * 86_400 + since.seconds) * 10**9 + since.microseconds * 1000
        return cls.of_nanoseconds(first, first + (10**6 if since.microseconds else 10**9) - 1)


@dataclass(frozen=True, slots=True)
class ObjectEvent:
    """One change of one object.

    Attributes:
        source: ``aws``, ``minio``, ``seaweedfs`` or another name that the sender gave.
        kind: S3's name of the event without ``s3:``, for example ``ObjectCreated:Put``.
        bucket: Name of the bucket.
        key: Key of the object, decoded.
        order: Time of the event.
        version_id: Version of the object, in a bucket that keeps versions.
        etag: ETag without quotes.
    """

    source: str
    kind: str
    bucket: str
    key: str
    order: EventOrder
    version_id: str | None = None
    etag: str | None = None

    @property
    def is_removal(self) -> bool:
        """Whether the event removed the object, or hid it behind a delete marker."""
        return self.kind.startswith(REMOVAL)

    @property
    def uri(self) -> str:
        """Address of the object."""
        return f"s3://{self.bucket}/{self.key}"

    @property
    def identity(self) -> str:
        """Digest that is equal for the same event sent again, and for no other of the object."""
        what = "removed" if self.is_removal else "stored"
        if self.version_id is not None:
            return _digest(f"{what}:{self.version_id}")
        return _digest(f"{what}:{self.etag or ''}:{self.order.kind}:{self.order.first}")

    def mark(self, *, has_version: bool) -> str:
        """Return the digest of the object's address, or of one version of it."""
        version = f"\0{self.version_id}" if has_version and self.version_id else ""
        return _digest(f"{self.uri}{version}")


def _digest(text: str) -> str:
    """Return 32 hexadecimal digits: Redis keeps a mark of short values in half the memory."""
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()


def new_event(
    *,
    source: str,
    kind: Any,
    bucket: Any,
    key: Any,
    order: EventOrder,
    version_id: Any = None,
    etag: Any = None,
) -> ObjectEvent:
    """Make an event of fields that came over the network.

    Raises:
        InvalidMessageError: A field cannot be part of an event; the text names it.
    """
    if not isinstance(bucket, str) or not is_bucket_name(bucket):
        raise InvalidMessageError("notification: the bucket's name is missing or not a name")
    if not isinstance(key, str) or not key or not is_text(key) or "\0" in key:
        raise InvalidMessageError("notification: the object's key is missing or not text")
    if len(key.encode()) > MAX_KEY_BYTES:
        raise InvalidMessageError(f"notification: the key is longer than {MAX_KEY_BYTES} bytes")
    if not isinstance(kind, str) or not re.fullmatch(r"(s3:)?\w{1,64}:[\w:]{1,64}", kind):
        raise InvalidMessageError("notification: eventName is missing or not a name")
    version = _optional(version_id, name="versionId", longest=1024)
    return ObjectEvent(
        source=source,
        kind=kind.removeprefix("s3:"),
        bucket=bucket,
        key=key,
        order=order,
        version_id=None if version == NO_VERSION else version,
        etag=(_optional(etag, name="eTag", longest=256) or "").strip('"') or None,
    )


def order_of(sequencer: Any, event_time: Any) -> EventOrder:
    """Read the time of an S3 event: its sequencer, else its ``eventTime``.

    Raises:
        InvalidMessageError: It has neither.
    """
    if isinstance(sequencer, str) and _SEQUENCER.fullmatch(sequencer):
        return EventOrder.of_sequencer(sequencer)
    try:
        return EventOrder.of_instant(event_time)
    except (TypeError, ValueError, OverflowError):
        raise InvalidMessageError(
            "notification: an event needs a sequencer, or an eventTime with an offset"
        ) from None


def _optional(value: Any, *, name: str, longest: int) -> str | None:
    """Return text that may be missing, if it can stand in an HTTP header."""
    if value is None or value == "":
        return None
    if not isinstance(value, str) or len(value) > longest or not value.isascii():
        raise InvalidMessageError(f"notification: {name} is not text of an S3 server")
    if not value.isprintable():
        raise InvalidMessageError(f"notification: {name} holds control characters")
    return value
