"""Webhook events of SeaweedFS's filer, which knows paths and entries but no S3 events.

A bucket is a folder of ``/buckets``. The parts of an upload lie under ``.uploads``, and the
versions of an object, in a bucket that keeps them, under ``KEY.versions``.
"""

import base64
import binascii
from typing import Any, Final

from labelyard.errors import InvalidMessageError
from labelyard.ingest.events import EventOrder, ObjectEvent, new_event

BUCKETS: Final = "/buckets/"
UPLOADS: Final = ".uploads"
VERSIONS: Final = ".versions"
NANOSECONDS: Final = 10**9
MAX_SECONDS: Final = 10**10
KINDS: Final = frozenset({"create", "update", "rename", "delete"})


def read_filer_event(content: dict[str, Any]) -> ObjectEvent | str:
    """Read an event of the filer.

    Returns:
        The change of an object, or the reason to ignore the event: ``not_in_a_bucket``,
        ``directory``, ``upload_part``, ``metadata``.

    Raises:
        InvalidMessageError: It is not an event of the filer.
    """
    kind, message = content["event_type"], content["message"]
    if not isinstance(kind, str) or kind not in KINDS or not isinstance(message, dict):
        raise InvalidMessageError("notification: event_type or message is not SeaweedFS's")
    old, new = _entry(message, "old_entry"), _entry(message, "new_entry")
    entry = new if new is not None else old
    if entry is None:
        raise InvalidMessageError("notification: an event of SeaweedFS needs an entry")
    path = content.get("key")
    if new is not None and isinstance(message.get("new_parent_path"), str):
        path = f"{message['new_parent_path'].rstrip('/')}/{entry.get('name')}"
    if not isinstance(path, str):
        raise InvalidMessageError("notification: an event of SeaweedFS needs a key")
    bucket, _, key = path.removeprefix(BUCKETS).partition("/")
    if not path.startswith(BUCKETS) or bucket.startswith(".") or not key:
        return "not_in_a_bucket"
    if entry.get("is_directory"):
        return "directory"
    if key.partition("/")[0] == UPLOADS:
        return "upload_part"
    if new is not None and old is not None and _content_of(old) == _content_of(new):
        return "metadata"
    return _event(bucket, key, entry, is_removed=new is None)


def _event(bucket: str, key: str, entry: dict[str, Any], *, is_removed: bool) -> ObjectEvent:
    extended = _mapping(entry, "extended")
    version = _text(extended.get("Seaweed-X-Amz-Version-Id"))
    folder, _, name = key.rpartition("/")
    if version and folder.endswith(VERSIONS) and name == f"v_{version}":
        key = folder.removesuffix(VERSIONS)
    is_multipart = "X-Seaweedfs-Upload-Id" in extended
    is_marker = "Seaweed-X-Amz-Delete-Marker" in extended
    kind = "ObjectCreated:CompleteMultipartUpload" if is_multipart else "ObjectCreated:Put"
    if is_removed:
        kind = "ObjectRemoved:Delete"
    elif is_marker:
        kind = "ObjectRemoved:DeleteMarkerCreated"
    return new_event(
        source="seaweedfs",
        kind=kind,
        bucket=bucket,
        key=key,
        order=_order(entry),
        version_id=version,
        etag=_text(extended.get("Seaweed-X-Amz-ETag")),
    )


def _order(entry: dict[str, Any]) -> EventOrder:
    """Return when the entry was written: to the nanosecond if its last chunk has the time.

    The entry's own time has whole seconds only. An upload in parts ends after its last chunk was
    written, so that its time may be any in that second.
    """
    attributes = _mapping(entry, "attributes")
    seconds = _number(attributes.get("mtime"), limit=MAX_SECONDS)
    written = seconds * NANOSECONDS + _number(attributes.get("mtime_ns"), limit=NANOSECONDS)
    chunks = [_number(one.get("modified_ts_ns"), limit=2**63) for one in _chunks(entry)]
    is_multipart = "X-Seaweedfs-Upload-Id" in _mapping(entry, "extended")
    if chunks and not is_multipart:
        return EventOrder.of_nanoseconds(max(chunks), max(chunks))
    first = max([written, *chunks])
    return EventOrder.of_nanoseconds(first, max(first, (seconds + 1) * NANOSECONDS - 1))


def _content_of(entry: dict[str, Any]) -> tuple[Any, ...]:
    """Return the fields of an entry that change with its object, and not with its tags."""
    attributes, extended = _mapping(entry, "attributes"), _mapping(entry, "extended")
    return (
        attributes.get("md5"),
        attributes.get("file_size"),
        attributes.get("mtime") if not _chunks(entry) else None,
        extended.get("Seaweed-X-Amz-ETag"),
        [one.get("modified_ts_ns") for one in _chunks(entry)],
    )


def _entry(message: dict[str, Any], name: str) -> dict[str, Any] | None:
    entry = message.get(name)
    if entry is not None and not isinstance(entry, dict):
        raise InvalidMessageError(f"notification: {name} is not an object")
    return entry


def _mapping(entry: dict[str, Any], name: str) -> dict[str, Any]:
    value = entry.get(name) or {}
    if not isinstance(value, dict):
        raise InvalidMessageError(f"notification: {name} is not an object")
    return value


def _chunks(entry: dict[str, Any]) -> list[dict[str, Any]]:
    chunks = entry.get("chunks") or []
    if not isinstance(chunks, list) or not all(isinstance(one, dict) for one in chunks):
        raise InvalidMessageError("notification: chunks is not a list of objects")
    return chunks


def _number(value: Any, *, limit: int) -> int:
    if value is None:
        return 0
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < limit:
        raise InvalidMessageError("notification: a time of SeaweedFS is out of range")
    return value


def _text(value: Any) -> str | None:
    """Read an extended attribute, which JSON carries as base64."""
    if value is None:
        return None
    try:
        return base64.b64decode(value, validate=True).decode("ascii")
    except (TypeError, ValueError, binascii.Error):
        raise InvalidMessageError("notification: an attribute of SeaweedFS is not base64") from None
