"""Notifications of AWS, MinIO, SNS and SeaweedFS are read as events; all else is refused."""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from labelyard.errors import InvalidMessageError
from labelyard.ingest.events import EventOrder, ObjectEvent
from labelyard.ingest.notifications import Notification, read_notification
from labelyard.ingest.sns import check_confirm_url

GOLDEN = Path(__file__).parents[1] / "support/data/notifications"
TOPIC = "arn:aws:sns:us-west-2:123456789012:uploads"
FLOWER = "photos/red flower+1é.jpg"
CONFIRM = "https://sns.us-west-2.amazonaws.com/?Action=ConfirmSubscription"


def golden(name: str) -> Notification:
    return read_notification((GOLDEN / f"{name}.json").read_bytes())


def only_event(name: str) -> ObjectEvent:
    [event] = golden(name).events
    return event


@pytest.mark.parametrize(
    ("name", "source", "kind", "bucket", "key", "etag"),
    [
        (
            *("aws_put", "aws", "ObjectCreated:Put", "amzn-s3-demo-bucket", FLOWER),
            "d41d8cd98f00b204e9800998ecf8427e",
        ),
        (
            *("minio_put", "minio", "ObjectCreated:Put", "images", "cats/my photo.jpg"),
            "1d97bf45ecb37f7a7b699418070df08f",
        ),
        (
            *("sns_notification", "aws", "ObjectCreated:Put", "amzn-s3-demo-bucket", FLOWER),
            "d41d8cd98f00b204e9800998ecf8427e",
        ),
        (
            *("seaweedfs_create", "seaweedfs", "ObjectCreated:Put", "photos", "a/b c+d%é.jpg"),
            "336311a016184326ddbdd61edd4eeb52",
        ),
        (
            *("seaweedfs_overwrite", "seaweedfs", "ObjectCreated:Put", "photos", "a/b c+d%é.jpg"),
            "abc161961f913fc9f32975a02320f6f9",
        ),
        (
            *("seaweedfs_multipart", "seaweedfs", "ObjectCreated:CompleteMultipartUpload"),
            *("photos", "multi.jpg", "0b31670df42a7f2c6e7c39d06df55a22-1"),
        ),
        (
            *("seaweedfs_version", "seaweedfs", "ObjectCreated:Put", "photos", "v.jpg"),
            "abc161961f913fc9f32975a02320f6f9",
        ),
        ("aws_delete", "aws", "ObjectRemoved:Delete", "amzn-s3-demo-bucket", FLOWER, None),
        (
            *("seaweedfs_delete", "seaweedfs", "ObjectRemoved:Delete", "photos", "big.jpg"),
            "aa4167f4cafbaca48e0c0cfdb0694d72",
        ),
        (
            *("seaweedfs_delete_marker", "seaweedfs", "ObjectRemoved:DeleteMarkerCreated"),
            *("photos", "v.jpg", None),
        ),
    ],
)
def test_a_real_notification_is_read(
    name: str, source: str, kind: str, bucket: str, key: str, etag: str | None
) -> None:
    event = only_event(name)

    assert (event.source, event.kind, event.bucket, event.key) == (source, kind, bucket, key)
    assert event.etag == etag


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("aws_test", "test"),
        ("seaweedfs_folder", "directory"),
        ("seaweedfs_noncurrent", "metadata"),
        ("seaweedfs_part", "upload_part"),
        ("seaweedfs_system", "not_in_a_bucket"),
        ("seaweedfs_tags", "metadata"),
    ],
)
def test_a_notification_of_something_else_is_ignored_with_its_reason(
    name: str, reason: str
) -> None:
    assert golden(name) == Notification(ignored=(reason,))


def test_a_version_is_that_of_the_object_and_null_is_none() -> None:
    body = (GOLDEN / "aws_put.json").read_text().replace("096fKKXTRTtl3on89fVO.nfljtsv6qko", "null")

    assert only_event("aws_put").version_id == "096fKKXTRTtl3on89fVO.nfljtsv6qko"
    assert only_event("seaweedfs_version").version_id == "671400d6f31b89db3484ad2060f5a31f"
    assert read_notification(body.encode()).events[0].version_id is None


def test_seaweedfs_writes_follow_one_another_in_their_order() -> None:
    created, overwritten = only_event("seaweedfs_create"), only_event("seaweedfs_overwrite")

    assert created.order.last < overwritten.order.first
    assert created.identity != overwritten.identity


def test_an_upload_in_parts_may_have_ended_at_any_time_of_its_second() -> None:
    order = only_event("seaweedfs_multipart").order

    assert order.first == "01795809425379032183"
    assert order.last == "01795809425999999999"


@pytest.mark.parametrize(
    ("older", "newer"),
    [("0055AED6DCD90281E5", "0055AED6DCD90281E6"), ("0055", "0055AED6"), ("00a", "00B")],
)
def test_sequencers_of_different_lengths_are_compared_as_aws_does(older: str, newer: str) -> None:
    assert EventOrder.of_sequencer(older).last < EventOrder.of_sequencer(newer).first


def test_an_event_time_is_an_interval_of_its_precision() -> None:
    exact = EventOrder.of_instant("2024-05-31T08:11:55.042Z")
    coarse = EventOrder.of_instant("2024-05-31T08:11:55Z")

    assert int(exact.last) - int(exact.first) == 10**6 - 1
    assert int(coarse.last) - int(coarse.first) == 10**9 - 1
    assert coarse.first < exact.first < exact.last < coarse.last


def test_a_subscription_to_confirm_is_read() -> None:
    notification = golden("sns_confirmation")

    assert notification.topic_arn == TOPIC
    assert notification.subscription is not None
    assert check_confirm_url(notification.subscription.confirm_url, topic_arn=TOPIC)


@pytest.mark.parametrize(
    "url",
    [
        "",
        "http://sns.us-west-2.amazonaws.com/?Action=ConfirmSubscription&TopicArn=" + TOPIC,
        f"https://sns.us-west-2.amazonaws.com.evil.example/?Action=ConfirmSubscription&TopicArn={TOPIC}",
        f"https://user@sns.us-west-2.amazonaws.com/?Action=ConfirmSubscription&TopicArn={TOPIC}",
        f"https://sns.us-west-2.amazonaws.com:99/?Action=ConfirmSubscription&TopicArn={TOPIC}",
        f"https://sns.us-west-2.amazonaws.com:x/?Action=ConfirmSubscription&TopicArn={TOPIC}",
        f"https://sns.eu-west-1.amazonaws.com/?Action=ConfirmSubscription&TopicArn={TOPIC}",
        f"https://s3.us-west-2.amazonaws.com/?Action=ConfirmSubscription&TopicArn={TOPIC}",
        f"https://sns.us-west-2.amazonaws.com/?Action=DeleteTopic&TopicArn={TOPIC}",
        f"{CONFIRM}&TopicArn={TOPIC}x",
        f"{CONFIRM}&TopicArn={TOPIC}&Token=a b",
        f"{CONFIRM}&TopicArn={TOPIC}&Token=a\r\nHost: evil",
    ],
)
def test_an_address_that_leads_elsewhere_is_not_called(url: str) -> None:
    with pytest.raises(InvalidMessageError):
        check_confirm_url(url, topic_arn=TOPIC)


def changed(**changes: Any) -> bytes:
    """Return AWS's notification with fields of its object, or of the record, replaced."""
    content = json.loads((GOLDEN / "aws_put.json").read_text())
    [record] = content["Records"]
    for name, value in changes.items():
        target = record["s3"]["object"] if name in record["s3"]["object"] else record
        target[name] = value
    return json.dumps(content).encode()


def filer(**changes: Any) -> bytes:
    """Return SeaweedFS's notification with fields of it, its message or its entry replaced."""
    content = json.loads((GOLDEN / "seaweedfs_create.json").read_text())
    places = (content["message"]["new_entry"], content["message"], content)
    for name, value in changes.items():
        next(place for place in places if name in place)[name] = value
    return json.dumps(content).encode()


MALFORMED = {
    "empty": b"",
    "no JSON": b"<xml/>",
    "cut off": (GOLDEN / "aws_put.json").read_bytes()[:200],
    "not UTF-8": b'{"Records": "\xff"}',
    "UTF-16": '{"Records": []}'.encode("utf-16"),
    "a number": b"7",
    "a list": b"[]",
    "null": b"null",
    "an empty object": b"{}",
    "deep": b'{"Records": ' + b"[" * 100_000 + b"]" * 100_000 + b"}",
    "a huge number": b'{"Records": ' + b"9" * 10_000 + b"}",
    "Records is an object": b'{"Records": {}}',
    "Records of numbers": b'{"Records": [1]}',
    "an empty record": b'{"Records": [{}]}',
    "s3 is text": changed(s3="bucket/key"),
    "no key": changed(key=None),
    "empty key": changed(key=""),
    "key is a number": changed(key=5),
    "key is no UTF-8": changed(key="%FF"),
    "key holds NUL": changed(key="a%00b"),
    "key holds half a surrogate": changed(key="a\ud800"),
    "key is too long": changed(key="a" * 1025),
    "version holds a line break": changed(versionId="a\r\nb"),
    "version is a list": changed(versionId=["a"]),
    "etag is not ASCII": changed(eTag="é"),
    "no kind": changed(eventName=None),
    "kind is no name": changed(eventName="Put it"),
    "no time": changed(sequencer="xyz", eventTime="today"),
    "time without an offset": changed(sequencer=None, eventTime="2024-01-01T00:00:00"),
    "SNS without a topic": b'{"Type": "Notification", "Message": "{}"}',
    "SNS without a message": b'{"Type": "Notification", "TopicArn": "arn:aws:sns:a:b:c"}',
    "SNS around text": b'{"Type": "Notification", "TopicArn": "a", "Message": "hello"}',
    "SNS without an address": b'{"Type": "SubscriptionConfirmation", "TopicArn": "a"}',
    "SeaweedFS: unknown kind": filer(event_type="burn"),
    "SeaweedFS: no entry": filer(message={}),
    "SeaweedFS: message is text": filer(message="x"),
    "SeaweedFS: entry is text": filer(new_entry="x"),
    "SeaweedFS: chunks are numbers": filer(chunks=[1]),
    "SeaweedFS: attributes are a list": filer(attributes=[1]),
    "SeaweedFS: time is text": filer(attributes={"mtime": "x"}),
    "SeaweedFS: etag is no base64": filer(extended={"Seaweed-X-Amz-ETag": "!"}),
}


@pytest.mark.parametrize("body", MALFORMED.values(), ids=MALFORMED)
def test_a_malformed_body_is_refused(body: bytes) -> None:
    with pytest.raises(InvalidMessageError, match=r"^invalid_message: notification: "):
        read_notification(body)


NAMES = st.sampled_from(
    [
        *("Records", "s3", "bucket", "object", "name", "key", "eventName", "sequencer", "eTag"),
        *("Type", "TopicArn", "Message", "event_type", "message", "new_entry", "old_entry"),
        *("attributes", "extended", "chunks", "eventTime", "versionId", "new_parent_path"),
    ]
)
WORDS = st.sampled_from(
    ["create", "update", "delete", "Notification", "SubscriptionConfirmation", "/buckets/a/b", "{}"]
)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | WORDS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES, inner, max_size=4),
    max_leaves=12,
)


@given(content=st.dictionaries(NAMES, JSON, max_size=6))
def test_no_json_object_raises_anything_but_a_refusal(content: dict[str, Any]) -> None:
    try:
        notification = read_notification(json.dumps(content).encode())
    except InvalidMessageError:
        return
    assert isinstance(notification, Notification)


def test_records_of_other_services_do_not_keep_those_of_s3_out() -> None:
    content = json.loads((GOLDEN / "aws_put.json").read_text())
    content["Records"].insert(0, {"eventSource": "aws:ses", "ses": {}})

    notification = read_notification(json.dumps(content).encode())

    assert [event.key for event in notification.events] == [FLOWER]
    assert notification.ignored == ("other_service",)
