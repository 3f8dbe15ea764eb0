"""The ingest service's HTTP server holds its bounds, whatever a sender does."""

import asyncio
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import pytest

from labelyard.ingest.counters import IngestCounters
from labelyard.ingest.http_messages import RequestHead, SenderAnswer
from labelyard.ingest.http_server import HttpServer
from tests.support.waiting import wait_until


@dataclass
class Limits:
    max_body_bytes: int = 100
    max_requests: int = 4
    request_timeout_s: float = 5.0


@dataclass
class Served:
    """A server in another thread that answers with the body it got.

    Attributes:
        port: Port that it listens on.
        bodies: Bodies of the requests, in their order.
        gate: Answers wait until it is set.
    """

    port: int = 0
    bodies: list[bytes] = field(default_factory=list)
    gate: threading.Event = field(default_factory=threading.Event)
    counters: IngestCounters = field(default_factory=IngestCounters)
    stop: threading.Event = field(default_factory=threading.Event)

    def connect(self) -> socket.socket:
        return socket.create_connection(("127.0.0.1", self.port), timeout=10)

    def exchange(self, *parts: bytes) -> bytes:
        """Send *parts*, and read until the server closes the connection."""
        with self.connect() as connection:
            for part in parts:
                connection.sendall(part)
            return read_all(connection)


def read_all(connection: socket.socket) -> bytes:
    read = b""
    try:
        while part := connection.recv(65536):
            read += part
    except ConnectionResetError:
        pass
    return read


@contextmanager
def serving(limits: Limits, *, drain_s: float = 5.0, is_open: bool = True) -> Iterator[Served]:
    """Run a server while the block runs."""
    served = Served()
    if is_open:
        served.gate.set()

    async def answer(head: RequestHead, body: bytes) -> SenderAnswer:
        served.bodies.append(body)
        await asyncio.to_thread(served.gate.wait, 10)
        return SenderAnswer(200, f"{head.method} {head.path} {len(body)}")

    def check(head: RequestHead) -> SenderAnswer | None:
        return SenderAnswer(401, "no") if head.path == "/secret" else None

    async def main() -> None:
        server = HttpServer(answer, check=check, limits=lambda: limits, counters=served.counters)
        served.port = await server.start("127.0.0.1", 0)
        await asyncio.to_thread(served.stop.wait)
        await server.close(drain_s=drain_s)

    thread = threading.Thread(target=lambda: asyncio.run(main()))
    thread.start()
    try:
        wait_until(lambda: served.port)
        yield served
    finally:
        served.stop.set()
        thread.join()


@pytest.fixture
def served() -> Iterator[Served]:
    with serving(Limits()) as running:
        yield running


def request(body: bytes = b"", *headers: str, line: str = "POST /a HTTP/1.1") -> bytes:
    lines = [line, "Host: x", "Connection: close", *headers]
    return "\r\n".join([*lines, "", ""]).encode() + body


@pytest.mark.parametrize(
    "body",
    [
        request(b"hello", "Content-Length: 5"),
        request(
            b"3\r\nhel\r\n2;x=y\r\nlo\r\n0\r\nTrailer: x\r\n\r\n", "Transfer-Encoding: chunked"
        ),
    ],
    ids=["length", "chunks"],
)
def test_a_body_is_read_by_its_length_or_its_chunks(served: Served, body: bytes) -> None:
    assert served.exchange(body).endswith(b"POST /a 5")
    assert served.bodies == [b"hello"]


def test_a_request_that_comes_byte_by_byte_is_read(served: Served) -> None:
    parts = [bytes([one]) for one in request(b"hello", "Content-Length: 5")]

    assert b"POST /a 5" in served.exchange(*parts)


def test_a_connection_carries_one_request_after_the_other(served: Served) -> None:
    kept = request(b"ab", "Content-Length: 2").replace(b"Connection: close\r\n", b"")

    read = served.exchange(kept + kept, request(b"", line="HEAD /b?c=d HTTP/1.1"))

    assert read.count(b"HTTP/1.1 200 OK") == 3
    assert read.count(b"POST /a 2") == 2
    assert b"HEAD /b" not in read


def test_a_sender_that_waits_for_100_continue_gets_it(served: Served) -> None:
    head = request(b"", "Content-Length: 2", "Expect: 100-continue")
    with served.connect() as connection:
        connection.sendall(head)
        first = connection.recv(100)
        connection.sendall(b"ab")
        rest = read_all(connection)

    assert first.startswith(b"HTTP/1.1 100 Continue")
    assert b"POST /a 2" in rest


@pytest.mark.parametrize(
    ("raw", "status"),
    [
        (b"hello\r\n\r\n", 400),
        (request(line="POST a HTTP/1.1"), 400),
        (request(line="POST /a HTTP/2"), 400),
        (request(line="POST /a b HTTP/1.1"), 400),
        (request(b"", "No colon"), 400),
        (request(b"", " Folded: x"), 400),
        (request(b"", "Name : x"), 400),
        (request(b"", "Content-Length: -1"), 400),
        (request(b"", "Content-Length: 1", "Content-Length: 2"), 400),
        (request(b"", "Content-Length: 5", "Transfer-Encoding: chunked"), 400),
        (request(b"", "Transfer-Encoding: gzip"), 501),
        (request(b"x\r\n", "Transfer-Encoding: chunked"), 400),
        (request(b"3\r\nabcd\r\n", "Transfer-Encoding: chunked"), 400),
        (request(b"a" * 101, "Content-Length: 101"), 413),
        (request(b"40\r\n" + b"a" * 64 + b"\r\n40\r\n", "Transfer-Encoding: chunked"), 413),
        (request(b"", f"X: {'a' * 20_000}"), 431),
        (request(b"abc", "Content-Length: 3", line="POST /secret HTTP/1.1"), 401),
    ],
)
def test_a_request_beyond_the_rules_is_refused_and_nothing_is_run(
    served: Served, raw: bytes, status: int
) -> None:
    read = served.exchange(raw)

    assert read.startswith(f"HTTP/1.1 {status} ".encode())
    assert b"Connection: close" in read
    assert served.bodies == []
    assert b"POST /a 2" in served.exchange(request(b"ab", "Content-Length: 2"))


def test_a_sender_that_closes_early_runs_nothing(served: Served) -> None:
    with served.connect() as connection:
        connection.sendall(request(b"ab", "Content-Length: 9"))
    wait_until(lambda: served.counters.connections == 0)

    assert served.bodies == []


def test_a_slow_sender_is_cut_off_and_others_are_served_meanwhile() -> None:
    with serving(Limits(request_timeout_s=0.3)) as served, served.connect() as slow:
        slow.sendall(b"POST /a HTTP/1.1\r\nX: ")
        other = served.exchange(request(b"ab", "Content-Length: 2"))
        read = read_all(slow)

    assert b"POST /a 2" in other
    assert read.startswith(b"HTTP/1.1 408 ")


def test_running_requests_are_answered_before_the_server_ends_and_idle_connections_closed() -> None:
    with (
        serving(Limits(), is_open=False) as served,
        served.connect() as idle,
        served.connect() as running,
    ):
        running.sendall(request(b"ab", "Content-Length: 2"))
        wait_until(lambda: served.bodies)
        served.stop.set()
        closed = read_all(idle)
        served.gate.set()
        answered = read_all(running)

    assert closed == b""
    assert b"POST /a 2" in answered


def test_a_request_that_does_not_end_is_cut_off_when_the_drain_is_over() -> None:
    with serving(Limits(), drain_s=0.1, is_open=False) as served, served.connect() as running:
        running.sendall(request(b"ab", "Content-Length: 2"))
        wait_until(lambda: served.bodies)
        served.stop.set()
        read = read_all(running)
        served.gate.set()

    assert read == b""


def test_the_counters_are_text_that_prometheus_reads(served: Served) -> None:
    served.exchange(request(b"ab", "Content-Length: 2"))
    wait_until(lambda: served.counters.connections == 0)

    text = served.counters.text()

    assert 'labelyard_ingest_requests_total{status="200"} 1' in text
    assert 'labelyard_ingest_request_seconds_bucket{le="+Inf"} 1' in text
    assert "labelyard_ingest_running_requests 0" in text
