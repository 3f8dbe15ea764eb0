"""Requests and answers of HTTP/1.1, as far as senders of notifications need them."""

import asyncio
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any, Final

MAX_HEAD_BYTES: Final = 16 * 1024
MAX_CHUNK_LINE_BYTES: Final = 64
_REQUEST_LINE: Final = re.compile(r"([A-Z]{1,16}) (/[\x21-\x7e]*) HTTP/1\.([01])")
_HEADER: Final = re.compile(r"([!#$%&'*+.^_`|~0-9A-Za-z-]+):[ \t]*(.*?)[ \t]*")
_LENGTH: Final = re.compile(r"\d{1,12}")
_CHUNK: Final = re.compile(rb"([0-9A-Fa-f]{1,8})[ \t]*(?:;[^\r\n]*)?\r\n")


class RequestRefusedError(Exception):
    """A request that is not answered by the service: its status, and a text for the sender."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(status, text)
        self.status = status
        self.text = text


@dataclass(frozen=True, slots=True)
class RequestHead:
    """Request line and headers of a request.

    Attributes:
        path: Path without the query.
        headers: Values by lower-case name; those of a repeated name are joined by commas.
        is_kept_alive: Whether the sender wants to use the connection again.
    """

    method: str
    path: str
    headers: Mapping[str, str]
    is_kept_alive: bool

    @property
    def has_body(self) -> bool:
        """Whether a body follows."""
        return "transfer-encoding" in self.headers or self.headers.get("content-length", "0") != "0"

    @property
    def is_expecting(self) -> bool:
        """Whether the sender waits for ``100 Continue`` before it sends the body."""
        return self.headers.get("expect", "").lower() == "100-continue"


@dataclass(frozen=True, slots=True)
class SenderAnswer:
    """Answer to a request.

    Attributes:
        body: Text of the body; empty for none.
    """

    status: int
    body: str = ""
    content_type: str = "application/json"
    headers: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def of_json(
        cls, status: int, content: Mapping[str, Any], *, retry_after_s: int | None = None
    ) -> "SenderAnswer":
        """Answer with a JSON object."""
        headers = {} if retry_after_s is None else {"Retry-After": str(retry_after_s)}
        return cls(status, json.dumps(content) + "\n", headers=headers)

    def encode(self, *, is_kept_alive: bool, has_body: bool = True) -> bytes:
        """Write the answer as it is sent.

        Args:
            has_body: ``False`` for an answer to HEAD.
        """
        body = self.body.encode()
        lines = [
            f"HTTP/1.1 {self.status} {HTTPStatus(self.status).phrase}",
            f"Content-Length: {len(body)}",
            f"Connection: {'keep-alive' if is_kept_alive else 'close'}",
            *(f"{name}: {value}" for name, value in self.headers.items()),
        ]
        if body:
            lines.append(f"Content-Type: {self.content_type}")
        if self.status == HTTPStatus.NO_CONTENT:
            lines.pop(1)
        head = "\r\n".join([*lines, "", ""]).encode("ascii")
        return head + body if has_body else head


def parse_head(raw: bytes) -> RequestHead:
    """Parse request line and headers, up to the empty line.

    Raises:
        RequestRefusedError: It is not a request of HTTP/1.
    """
    try:
        first, *lines = raw.decode("latin-1").removesuffix("\r\n\r\n").split("\r\n")
    except ValueError:  # pragma: no cover - latin-1 decodes all bytes
        raise RequestRefusedError(HTTPStatus.BAD_REQUEST, "not a request") from None
    match = _REQUEST_LINE.fullmatch(first)
    if match is None:
        raise RequestRefusedError(HTTPStatus.BAD_REQUEST, "not a request of HTTP/1.1")
    headers: dict[str, str] = {}
    for line in lines:
        if (pair := _HEADER.fullmatch(line)) is None:
            raise RequestRefusedError(HTTPStatus.BAD_REQUEST, "a header is malformed")
        name, value = pair[1].lower(), pair[2]
        headers[name] = f"{headers[name]}, {value}" if name in headers else value
    if "content-length" in headers and "transfer-encoding" in headers:
        raise RequestRefusedError(HTTPStatus.BAD_REQUEST, "two lengths of the body")
    connection = headers.get("connection", "").lower()
    is_kept_alive = connection != "close" and (match[3] == "1" or connection == "keep-alive")
    return RequestHead(match[1], match[2].partition("?")[0], headers, is_kept_alive)


async def read_body(reader: asyncio.StreamReader, head: RequestHead, *, max_bytes: int) -> bytes:
    """Read the body that *head* announces.

    Raises:
        RequestRefusedError: It is too large, or its length is malformed.
        asyncio.IncompleteReadError: The sender closed the connection.
    """
    if "transfer-encoding" in head.headers:
        return await _read_chunks(reader, head, max_bytes=max_bytes)
    length = head.headers.get("content-length", "0")
    if not _LENGTH.fullmatch(length):
        raise RequestRefusedError(HTTPStatus.BAD_REQUEST, "Content-Length is not a number")
    if int(length) > max_bytes:
        raise _too_large(max_bytes)
    return await reader.readexactly(int(length))


async def _read_chunks(reader: asyncio.StreamReader, head: RequestHead, *, max_bytes: int) -> bytes:
    if head.headers["transfer-encoding"].lower() != "chunked":
        raise RequestRefusedError(
            HTTPStatus.NOT_IMPLEMENTED, "this transfer coding is not supported"
        )
    body = bytearray()
    while True:
        match = _CHUNK.fullmatch(await _read_line(reader))
        if match is None:
            raise RequestRefusedError(HTTPStatus.BAD_REQUEST, "a chunk is malformed")
        size = int(match[1], 16)
        if len(body) + size > max_bytes:
            raise _too_large(max_bytes)
        if size == 0:
            break
        body += await reader.readexactly(size)
        if await reader.readexactly(2) != b"\r\n":
            raise RequestRefusedError(HTTPStatus.BAD_REQUEST, "a chunk is malformed")
    trailer_bytes = 0
    while (line := await _read_line(reader)) != b"\r\n":
        trailer_bytes += len(line)
        if trailer_bytes > MAX_HEAD_BYTES:
            raise RequestRefusedError(HTTPStatus.BAD_REQUEST, "the trailer is too large")
    return bytes(body)


async def _read_line(reader: asyncio.StreamReader) -> bytes:
    try:
        return await reader.readuntil(b"\r\n")
    except asyncio.LimitOverrunError:
        raise RequestRefusedError(HTTPStatus.BAD_REQUEST, "a line is too long") from None


def _too_large(max_bytes: int) -> RequestRefusedError:
    return RequestRefusedError(
        HTTPStatus.REQUEST_ENTITY_TOO_LARGE, f"the body is larger than {max_bytes} bytes"
    )
