"""HTTP server for health probes; a slow or hostile connection holds no thread.

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
from http import HTTPStatus
from typing import Any, Final

log = logging.getLogger(__name__)

Probe = Callable[[], list[str]]

REQUEST_WITHIN_S: Final = 5.0
ANSWER_WITHIN_S: Final = 30.0
MAX_REQUEST_BYTES: Final = 8192
MAX_INCOMPLETE: Final = 64
# Probes read the ledger, whose time-out takes seconds.
PROBES_AT_ONCE: Final = 4
BACKLOG: Final = 256


class ProbeServer:
    """HTTP server on a thread of its own that answers GET and HEAD of a few paths.

    Args:
        probes: Probe of each path; it returns the reasons against, none if all is well.
        host: Address to listen on.
        port: Port to listen on, 0 for any.

    Raises:
        OSError: The address is in use or not local.
    """

    def __init__(self, probes: Mapping[str, Probe], *, host: str, port: int) -> None:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        self._listener = socket.create_server((host, port), family=family, backlog=BACKLOG)
        self.port: int = self._listener.getsockname()[1]
        self._probes = dict(probes)
        self._incomplete: dict[asyncio.StreamWriter, None] = {}  # oldest first
        self._loop = asyncio.new_event_loop()
        self._closing = asyncio.Event()
        self._slots = asyncio.Semaphore(PROBES_AT_ONCE)
        self._thread = threading.Thread(target=self._run, name="labelyard-health", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Stop listening, and drop all connections."""
        self._loop.call_soon_threadsafe(self._closing.set)
        self._thread.join()

    def _run(self) -> None:
        with asyncio.Runner(loop_factory=lambda: self._loop) as runner:
            runner.run(self._listen())  # the runner cancels what is left, and closes the loop

    async def _listen(self) -> None:
        server = await asyncio.start_server(
            self._serve, sock=self._listener, limit=MAX_REQUEST_BYTES
        )
        try:
            await self._closing.wait()
        finally:
            server.close()

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
        probe = self._probes.get(path)
        if probe is None:
            return _response(HTTPStatus.NOT_FOUND, {"paths": sorted(self._probes)})
        async with self._slots:
            why = await self._run_probe(probe)
        status = HTTPStatus.SERVICE_UNAVAILABLE if why else HTTPStatus.OK
        return _response(status, {"ok": not why, "why": why}, has_body=method == b"GET")

    async def _run_probe(self, probe: Probe) -> list[str]:
        """Run a probe on a daemon thread, which does not delay the end of the worker."""
        answer: asyncio.Future[list[str]] = self._loop.create_future()

        def run() -> None:
            try:
                why = probe()
            except Exception as error:
                log.exception("probe_failed")
                why = [f"the probe failed: {type(error).__name__}"]
            with suppress(RuntimeError):  # the loop is closed
                self._loop.call_soon_threadsafe(_set_unless_done, answer, why)

        threading.Thread(target=run, name="labelyard-probe", daemon=True).start()
        return await answer


def _set_unless_done(answer: "asyncio.Future[list[str]]", why: list[str]) -> None:
    if not answer.done():
        answer.set_result(why)


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


def _response(status: HTTPStatus, body: Mapping[str, Any], *, has_body: bool = True) -> bytes:
    payload = json.dumps(body).encode() + b"\n"
    head = (
        f"HTTP/1.1 {status.value} {status.phrase}\r\n"
        "content-type: application/json\r\n"
        f"content-length: {len(payload)}\r\n"
        "connection: close\r\n\r\n"
    )
    return head.encode() + (payload if has_body else b"")
