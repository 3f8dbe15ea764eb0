"""HTTP server for health probes and metrics; a slow or hostile connection holds no thread.

One thread reads all connections. A request that is not complete in time is dropped, and so is
the oldest incomplete one when there are too many.
"""

import asyncio
import json
import logging
import socket
import threading
from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import partial
from http import HTTPStatus
from types import MappingProxyType
from typing import Any, Final, TypeVar

from labelyard.stream_server import StreamServer

log = logging.getLogger(__name__)

Answer = TypeVar("Answer")
Probe = Callable[[], list[str]]
#: Returns the content type and the body, given the request's header ``accept``.
Page = Callable[[str], tuple[str, bytes]]

REQUEST_WITHIN_S: Final = 5.0
ANSWER_WITHIN_S: Final = 30.0
MAX_REQUEST_BYTES: Final = 8192
MAX_INCOMPLETE: Final = 64
# Probes read the ledger, whose time-out takes seconds.
PROBES_AT_ONCE: Final = 4
# Apart from the probes: a scraper must never keep a worker from being found alive.
PAGES_AT_ONCE: Final = 2
JSON_TYPE: Final = "application/json"
BACKLOG: Final = 256


class ProbeServer:
    """HTTP server on a thread of its own that answers GET and HEAD of a few paths.

    Args:
        probes: Probe of each path; it returns the reasons against, none if all is well.
        pages: Page of each further path.
        host: Address to listen on.
        port: Port to listen on, 0 for any.

    Raises:
        OSError: The address is in use or not local.
    """

    def __init__(
        self,
        probes: Mapping[str, Probe],
        *,
        pages: Mapping[str, Page] = MappingProxyType({}),
        host: str,
        port: int,
    ) -> None:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        self._listener = socket.create_server((host, port), family=family, backlog=BACKLOG)
        self.port: int = self._listener.getsockname()[1]
        self._probes = dict(probes)
        self._pages = dict(pages)
        self._incomplete: dict[asyncio.StreamWriter, None] = {}  # oldest first
        self._loop = asyncio.new_event_loop()
        self._closing = asyncio.Event()
        self._probe_slots = asyncio.Semaphore(PROBES_AT_ONCE)
        self._page_slots = asyncio.Semaphore(PAGES_AT_ONCE)
        self._thread = threading.Thread(
            target=self._serve_all, name="labelyard-health", daemon=True
        )
        self._thread.start()

    def close(self) -> None:
        """Stop listening, and drop all connections."""
        self._loop.call_soon_threadsafe(self._closing.set)
        self._thread.join()

    def _serve_all(self) -> None:
        with asyncio.Runner(loop_factory=lambda: self._loop) as runner:
            runner.run(self._listen())  # the runner closes the loop

    async def _listen(self) -> None:
        server = StreamServer(self._serve, limit=MAX_REQUEST_BYTES)
        try:
            await server.listen(sock=self._listener)
            await self._closing.wait()
        finally:
            await server.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Read one request and answer it; the connection ends with it."""
        self._incomplete[writer] = None
        if len(self._incomplete) > MAX_INCOMPLETE:
            oldest = next(iter(self._incomplete))
            del self._incomplete[oldest]
            oldest.transport.abort()
        try:
            async with asyncio.timeout(REQUEST_WITHIN_S):
                request = await _read_request(reader)
            self._incomplete.pop(writer, None)
            async with asyncio.timeout(ANSWER_WITHIN_S):
                writer.write(await self._answer(request))
                await writer.drain()
        except (TimeoutError, EOFError, ValueError, ConnectionError):
            pass  # the peer is not a probe, or it has gone
        finally:
            self._incomplete.pop(writer, None)
            writer.close()

    async def _answer(self, request: bytes) -> bytes:
        method, _, rest = request.partition(b" ")
        path = rest.partition(b" ")[0].partition(b"?")[0].decode("latin-1")
        if method not in (b"GET", b"HEAD"):
            return _response(HTTPStatus.METHOD_NOT_ALLOWED, {"methods": ["GET", "HEAD"]})
        has_body = method == b"GET"
        if (page := self._pages.get(path)) is not None:
            async with self._page_slots:
                return await self._answer_page(page, request, has_body=has_body)
        probe = self._probes.get(path)
        if probe is None:
            paths = sorted([*self._probes, *self._pages])
            return _response(HTTPStatus.NOT_FOUND, {"paths": paths})
        async with self._probe_slots:
            answer = await self._run(probe)
        why = answer if isinstance(answer, list) else [f"the probe failed: {answer}"]
        status = HTTPStatus.SERVICE_UNAVAILABLE if why else HTTPStatus.OK
        return _response(status, {"ok": not why, "why": why}, has_body=has_body)

    async def _answer_page(self, page: Page, request: bytes, *, has_body: bool) -> bytes:
        answer = await self._run(partial(page, _header(request, b"accept")))
        if isinstance(answer, str):
            return _response(HTTPStatus.INTERNAL_SERVER_ERROR, {"why": [answer]}, has_body=has_body)
        content_type, body = answer
        return _head(HTTPStatus.OK, content_type, len(body)) + (body if has_body else b"")

    async def _run(self, call: Callable[[], Answer]) -> Answer | str:
        """Make a call on a daemon thread, which does not delay the end of the worker.

        Returns:
            Its answer, or the name of the exception that it raised.
        """
        future: asyncio.Future[Answer | str] = self._loop.create_future()

        def run() -> None:
            answer: Answer | str
            try:
                answer = call()
            except Exception as error:
                log.exception("probe_failed")
                answer = type(error).__name__
            with suppress(RuntimeError):  # the loop is closed
                self._loop.call_soon_threadsafe(_set_unless_done, future, answer)

        threading.Thread(target=run, name="labelyard-probe", daemon=True).start()
        return await future


def _set_unless_done(future: "asyncio.Future[Answer]", answer: Answer) -> None:
    if not future.done():
        future.set_result(answer)


async def _read_request(reader: asyncio.StreamReader) -> bytes:
    """Read a request's head.

    Raises:
        EOFError: The peer went away before its end.
        ValueError: It is too long.
    """
    request = b""
    while b"\r\n\r\n" not in request and b"\n\n" not in request:
        piece = await reader.read(MAX_REQUEST_BYTES)
        if not piece:
            raise EOFError
        request += piece
        if len(request) > MAX_REQUEST_BYTES:
            raise ValueError("a probe's request is short")
    return request


def _header(request: bytes, name: bytes) -> str:
    """Return the value of a request's header; several are joined with commas, as HTTP has it."""
    lines = (line.partition(b":") for line in request.splitlines()[1:])
    values = [value.strip() for key, _, value in lines if key.strip().lower() == name]
    return b",".join(values).decode("latin-1")


def _response(status: HTTPStatus, body: Mapping[str, Any], *, has_body: bool = True) -> bytes:
    payload = json.dumps(body).encode() + b"\n"
    return _head(status, JSON_TYPE, len(payload)) + (payload if has_body else b"")


def _head(status: HTTPStatus, content_type: str, length_bytes: int) -> bytes:
    return (
        f"HTTP/1.1 {status.value} {status.phrase}\r\n"
        f"content-type: {content_type}\r\n"
        f"content-length: {length_bytes}\r\n"
        "connection: close\r\n\r\n"
    ).encode()
