"""HTTP server of the ingest service: bounded heads, bodies, times and connections."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from http import HTTPStatus
from typing import Final, Protocol

from labelyard.ingest.counters import IngestCounters
from labelyard.ingest.http_messages import (
    MAX_HEAD_BYTES,
    RequestHead,
    RequestRefusedError,
    SenderAnswer,
    parse_head,
    read_body,
)
from labelyard.stream_server import StreamServer

#: Seconds that a connection may wait for its next request.
IDLE_S: Final = 75.0
#: Seconds that a sender may take to read an answer.
WRITE_S: Final = 10.0
#: Bytes of an unread body that are discarded, and seconds for it, before a connection is closed.
DISCARDED_BYTES: Final = 1024 * 1024
DISCARD_S: Final = 0.5
#: Connections beyond the requests that are answered at once; more are closed at their first byte.
IDLE_CONNECTIONS: Final = 1000


class RequestLimits(Protocol):
    """Limits of requests, read for each one anew."""

    @property
    def max_body_bytes(self) -> int:
        """Largest body."""

    @property
    def max_requests(self) -> int:
        """Requests that are answered at once."""

    @property
    def request_timeout_s(self) -> float:
        """Seconds that a sender has for a request."""


class HttpServer:
    """Reads requests and writes answers; one request of a connection at a time."""

    def __init__(
        self,
        answer: Callable[[RequestHead, bytes], Awaitable[SenderAnswer]],
        *,
        check: Callable[[RequestHead], SenderAnswer | None],
        limits: Callable[[], RequestLimits],
        counters: IngestCounters,
    ) -> None:
        """Serve *answer*.

        Args:
            answer: Answers a request.
            check: Refuses a request before its body is read; ``None`` admits it.
            limits: Returns the limits that hold now.
        """
        self._answer = answer
        self._check = check
        self._limits = limits
        self._counters = counters
        self._idle: set[asyncio.StreamWriter] = set()
        self._server = StreamServer(self._accept, limit=MAX_HEAD_BYTES)
        self._is_closing = False

    async def start(self, host: str, port: int) -> int:
        """Listen; returns the port, which the system chooses if *port* is 0."""
        return await self._server.listen(host, port, backlog=512)

    async def close(self, *, drain_s: float) -> None:
        """Stop listening, let running requests end within *drain_s*, and close all connections."""
        self._is_closing = True
        await self._server.stop_listening()
        for writer in list(self._idle):
            writer.close()
        await self._server.wait_until_idle(drain_s)
        await self._server.close()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._counters.connections += 1
        try:
            while await self._serve_request(reader, writer):
                pass
        except (OSError, EOFError, TimeoutError):  # the sender is gone, or does not read
            pass
        finally:
            self._counters.connections -= 1
            self._idle.discard(writer)
            writer.close()

    async def _serve_request(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> bool:
        """Answer one request; returns whether another one may follow."""
        self._idle.add(writer)
        async with asyncio.timeout(IDLE_S):
            first = b"" if self._is_closing else await reader.read(1)
        self._idle.discard(writer)
        if not first:
            return False
        began = time.monotonic()
        head: RequestHead | None = None
        try:
            head, body = await self._read(first, reader, writer)
            answer = await self._run(head, body)
        except RequestRefusedError as error:
            answer = SenderAnswer.of_json(error.status, {"error": error.text})
            head = None
        except _AnsweredEarly as early:
            answer, head = early.answer, early.head if not early.head.has_body else None
        is_kept_alive = head is not None and head.is_kept_alive and not self._is_closing
        is_head = head is not None and head.method == "HEAD"
        self._counters.note_request(answer.status, time.monotonic() - began)
        writer.write(answer.encode(is_kept_alive=is_kept_alive, has_body=not is_head))
        async with asyncio.timeout(WRITE_S):
            await writer.drain()
        if not is_kept_alive:
            await _discard(reader, writer)
        return is_kept_alive

    async def _read(
        self, first: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> tuple[RequestHead, bytes]:
        """Read a request, within the time that a sender has for it."""
        limits = self._limits()
        if self._counters.connections > limits.max_requests + IDLE_CONNECTIONS:
            raise RequestRefusedError(HTTPStatus.SERVICE_UNAVAILABLE, "too many connections")
        try:
            async with asyncio.timeout(limits.request_timeout_s):
                try:
                    raw = first + await reader.readuntil(b"\r\n\r\n")
                except asyncio.LimitOverrunError:
                    raise RequestRefusedError(
                        HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE, "the head is too large"
                    ) from None
                head = parse_head(raw)
                if (refusal := self._check(head)) is not None:
                    raise _AnsweredEarly(refusal, head)
                if head.is_expecting and head.has_body:
                    writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
                return head, await read_body(reader, head, max_bytes=limits.max_body_bytes)
        except TimeoutError:
            raise RequestRefusedError(
                HTTPStatus.REQUEST_TIMEOUT, "the request is too slow"
            ) from None

    async def _run(self, head: RequestHead, body: bytes) -> SenderAnswer:
        self._counters.running += 1
        try:
            return await self._answer(head, body)
        finally:
            self._counters.running -= 1


async def _discard(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Read on for a moment: closing a connection with unread bytes would destroy the answer."""
    if writer.can_write_eof():
        writer.write_eof()
    left = DISCARDED_BYTES
    try:
        async with asyncio.timeout(DISCARD_S):
            while left > 0 and (read := await reader.read(DISCARDED_BYTES)):
                left -= len(read)
    except TimeoutError:
        pass


class _AnsweredEarly(Exception):  # noqa: N818 - it is no error
    """A request that was answered before its body was read."""

    def __init__(self, answer: SenderAnswer, head: RequestHead) -> None:
        super().__init__(answer.status)
        self.answer = answer
        self.head = head
