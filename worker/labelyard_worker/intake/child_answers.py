"""Parse the answers of intake children, checked field by field."""

import os
import re
from dataclasses import replace
from typing import Any

from labelyard.errors import (
    ImageAccessDeniedError,
    ImageNotFoundError,
    ImageTooLargeError,
    ImageUndecodableError,
    LabelyardError,
    StorageUnavailableError,
    UnsupportedUriError,
)
from labelyard_worker.intake.frames import Frame, MalformedFrameError
from labelyard_worker.pixels import MAX_EDGE_PX, ImageFacts, Pixels

MAX_REASON = 500
MAX_ETAG = 1024
MAX_STAMP = 2048
# Payloads up to this size are accepted for every checkpoint.
MIN_PAYLOAD_BYTES = 1024 * 1024

ERRORS: dict[str, type[Any]] = {
    error.code: error
    for error in (
        ImageAccessDeniedError,
        ImageNotFoundError,
        ImageTooLargeError,
        ImageUndecodableError,
        StorageUnavailableError,
        UnsupportedUriError,
    )
}
_MD5 = re.compile(r"[0-9a-f]{32}")


def describe_error(error: LabelyardError) -> dict[str, Any]:
    """Turn one of our errors into fields of a frame; its address stays with the worker."""
    reason = str(error.args[1]) if len(error.args) > 1 else ""
    return {"op": "error", "code": error.code, "reason": reason[:MAX_REASON]}


def to_error(head: dict[str, Any], *, uri: str) -> LabelyardError:
    """Rebuild an error that a child reported.

    Raises:
        MalformedFrameError: The child may not report this error.
    """
    kind = ERRORS.get(text(head, "code", most=64))
    if kind is None:
        raise MalformedFrameError("an unknown error code")
    error: LabelyardError = kind(uri, text(head, "reason", most=MAX_REASON))
    return error


def to_pixels(frame: Frame, *, etag: str | None, stamp: str = "") -> Pixels:
    """Rebuild pixels that a decoder sent.

    Raises:
        MalformedFrameError: Fields are missing, or contradict each other.
    """
    head = frame.head
    height, width = number(head, "height"), number(head, "width")
    if not frame.payload or len(frame.payload) != 3 * height * width:
        raise MalformedFrameError(f"{len(frame.payload)} bytes for {width} x {height} pixels")
    try:
        facts = ImageFacts.parse(head.get("facts"))
    except ValueError as error:
        raise MalformedFrameError(str(error)) from error
    return Pixels(frame.payload, height, width, replace(facts, etag=etag), stamp)


def to_file(frame: Frame, *, max_bytes: int) -> tuple[int, int, str | None]:
    """Return descriptor, size and ETag of a fetched file.

    Raises:
        MalformedFrameError: The file is missing, or is not the one that was described.
    """
    size = number(frame.head, "size", least=0, most=max_bytes)
    etag = frame.head.get("etag")
    if etag is not None:
        etag = text(frame.head, "etag", most=MAX_ETAG)
    if frame.fd is None:
        raise MalformedFrameError("a file without a descriptor")
    if os.fstat(frame.fd).st_size != size:
        raise MalformedFrameError("the file's size is not the announced one")
    return frame.fd, size, etag


def md5_of(head: dict[str, Any]) -> str:
    """Return the digest of a file that differs from its ETag."""
    digest = text(head, "md5", most=32)
    if not _MD5.fullmatch(digest):
        raise MalformedFrameError("md5 is not an MD5 in hexadecimal")
    return digest


def number(head: dict[str, Any], name: str, *, least: int = 1, most: int = MAX_EDGE_PX) -> int:
    """Return a whole number of a head within its bounds."""
    value = head.get(name)
    if type(value) is not int or not least <= value <= most:
        raise MalformedFrameError(f"{name} is not a number from {least} to {most}")
    return value


def text(head: dict[str, Any], name: str, *, most: int) -> str:
    """Return a text of a head within its bounds."""
    value = head.get(name)
    if not isinstance(value, str) or len(value) > most:
        raise MalformedFrameError(f"{name} is not a text of at most {most} characters")
    return value
