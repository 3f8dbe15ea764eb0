"""Bodies that object storage sends, as events: S3's JSON, also inside SNS, and SeaweedFS's."""

import json
from dataclasses import dataclass
from typing import Any, Final, Literal
from urllib.parse import unquote_plus

from labelyard.errors import InvalidMessageError
from labelyard.ingest.events import ObjectEvent, new_event, order_of
from labelyard.ingest.seaweedfs import read_filer_event

SNS_TYPES: Final = ("Notification", "SubscriptionConfirmation", "UnsubscribeConfirmation")
MAX_SOURCE_CHARS: Final = 32
MAX_ARN_CHARS: Final = 512


@dataclass(frozen=True, slots=True)
class Subscription:
    """Request of SNS to confirm a subscription, or that one was ended.

    Attributes:
        is_new: Whether it is to be confirmed; else it has ended.
        confirm_url: Address that confirms it.
    """

    is_new: bool
    confirm_url: str


@dataclass(frozen=True, slots=True)
class Notification:
    """Content of one request.

    Attributes:
        events: Changes of objects.
        ignored: Reasons of the parts that are no change of an object: ``test``, ``directory``,
            ``metadata``, ``upload_part``, ``other_service``.
        topic_arn: Topic of SNS that it came through; empty if it came directly.
        subscription: The request of SNS, if it is one.
    """

    events: tuple[ObjectEvent, ...] = ()
    ignored: tuple[str, ...] = ()
    topic_arn: str = ""
    subscription: Subscription | None = None


def read_notification(body: bytes) -> Notification:
    """Read the body of a request.

    Raises:
        InvalidMessageError: It is not a notification of S3, SNS or SeaweedFS; the text names the
            fault, and nothing of the body.
    """
    content = _parse(body)
    if content.get("Type") in SNS_TYPES:
        return _read_sns(content)
    return _read_plain(content)


def _parse(body: bytes | str) -> dict[str, Any]:
    try:
        text = body.decode() if isinstance(body, bytes) else body
        content = json.loads(text.removeprefix("\ufeff"))
    except UnicodeDecodeError:
        raise InvalidMessageError("notification: the body is not UTF-8") from None
    except (ValueError, RecursionError):
        raise InvalidMessageError("notification: the body is not JSON") from None
    if not isinstance(content, dict):
        raise InvalidMessageError("notification: the body is not a JSON object")
    return content


def _read_plain(content: dict[str, Any]) -> Notification:
    if "Records" in content:
        return _read_records(content["Records"])
    if content.get("Event") == "s3:TestEvent":
        return Notification(ignored=("test",))
    if "event_type" in content and "message" in content:
        found = read_filer_event(content)
        if isinstance(found, ObjectEvent):
            return Notification(events=(found,))
        return Notification(ignored=(found,))
    raise InvalidMessageError(
        "notification: neither Records of S3, nor a message of SNS, nor an event of SeaweedFS"
    )


def _read_sns(content: dict[str, Any]) -> Notification:
    kind: Literal["Notification"] | str = content["Type"]
    arn, url = content.get("TopicArn"), content.get("SubscribeURL")
    if not isinstance(arn, str) or not 0 < len(arn) <= MAX_ARN_CHARS:
        raise InvalidMessageError("notification: a message of SNS needs a TopicArn")
    if kind == "Notification":
        message = content.get("Message")
        if not isinstance(message, str):
            raise InvalidMessageError("notification: a message of SNS needs a Message")
        inner = _read_plain(_parse(message))
        return Notification(inner.events, inner.ignored, topic_arn=arn)
    if not isinstance(url, str):
        raise InvalidMessageError("notification: a confirmation of SNS needs a SubscribeURL")
    is_new = kind == "SubscriptionConfirmation"
    return Notification(topic_arn=arn, subscription=Subscription(is_new, url))


def _read_records(records: Any) -> Notification:
    if not isinstance(records, list) or not all(isinstance(one, dict) for one in records):
        raise InvalidMessageError("notification: Records is not a list of objects")
    events, ignored = [], []
    for record in records:
        if "s3" not in record and record.get("eventSource", "aws:s3") != "aws:s3":
            ignored.append("other_service")
        else:
            events.append(_read_record(record))
    return Notification(tuple(events), tuple(ignored))


def _read_record(record: dict[str, Any]) -> ObjectEvent:
    """Read one element of ``Records``; the key is URL-encoded there, with + for a space."""
    entity = record.get("s3")
    bucket = entity.get("bucket") if isinstance(entity, dict) else None
    stored = entity.get("object") if isinstance(entity, dict) else None
    if not isinstance(bucket, dict) or not isinstance(stored, dict):
        raise InvalidMessageError("notification: a record needs s3.bucket and s3.object")
    return new_event(
        source=_source_of(record),
        kind=record.get("eventName"),
        bucket=bucket.get("name"),
        key=_decoded(stored.get("key")),
        order=order_of(stored.get("sequencer"), record.get("eventTime")),
        version_id=stored.get("versionId"),
        etag=stored.get("eTag"),
    )


def _decoded(key: Any) -> Any:
    if not isinstance(key, str):
        return key
    try:
        return unquote_plus(key, errors="strict")
    except UnicodeDecodeError:
        raise InvalidMessageError("notification: the decoded key is not UTF-8") from None


def _source_of(record: dict[str, Any]) -> str:
    source = record.get("eventSource")
    if not isinstance(source, str):
        return "s3"
    name = source.partition(":")[0][:MAX_SOURCE_CHARS]
    return name if name.isalnum() and name.isascii() else "s3"
