"""The probe port answers probes, whatever else connects to it."""

import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing

import psutil
import pytest

from labelyard_worker.operations import probe_server
from labelyard_worker.operations.probe_server import MAX_INCOMPLETE, ProbeServer
from tests.support.waiting import wait_until

STRANGERS = 200
PROBE_WITHIN_S = 5.0


@pytest.fixture
def server() -> Iterator[ProbeServer]:
    probes: dict[str, Callable[[], list[str]]] = {"/live": list, "/ready": lambda: ["not yet"]}
    with closing(ProbeServer(probes, host="127.0.0.1", port=0)) as started:
        yield started


def connect(server: ProbeServer) -> socket.socket:
    return socket.create_connection(("127.0.0.1", server.port), timeout=PROBE_WITHIN_S)


def exchange(server: ProbeServer, request: bytes) -> bytes:
    """Send a request, and read until the server closes."""
    with connect(server) as connection:
        connection.sendall(request)
        answer = b""
        while piece := connection.recv(65_536):
            answer += piece
    return answer


def is_alive(server: ProbeServer) -> bool:
    return exchange(server, b"GET /live HTTP/1.1\r\nhost: a\r\n\r\n").startswith(b"HTTP/1.1 200 ")


def test_200_silent_and_dripping_connections_leave_probes_answered(server: ProbeServer) -> None:
    """Such connections take no thread each, and their number is bounded."""
    process = psutil.Process()
    before_threads = threading.active_count()
    with ExitStack() as strangers:
        opened = [strangers.enter_context(connect(server)) for _ in range(STRANGERS)]
        for connection in opened[::2]:
            connection.send(b"G")
        answers = [is_alive(server) for _ in range(10)]
        for connection in opened[1::2]:
            try_to_send(connection, b"GET /live HTTP/1.1\r\n")
        answers += [is_alive(server) for _ in range(10)]
        held = [
            one
            for one in process.net_connections()
            if one.laddr.port == server.port and one.status == psutil.CONN_ESTABLISHED
        ]

        assert all(answers)
        assert threading.active_count() <= before_threads
        assert len(held) <= MAX_INCOMPLETE + 1


def try_to_send(connection: socket.socket, data: bytes) -> None:
    try:
        connection.send(data)
    except ConnectionError:
        return  # it was the oldest, and is gone


@pytest.mark.parametrize("beginning", [b"", b"GET /live HTTP/1.1\r\nx: "], ids=["silent", "drips"])
def test_a_request_that_never_ends_is_dropped_in_time(
    beginning: bytes, server: ProbeServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The time is for the whole request: a byte now and then does not extend it."""
    monkeypatch.setattr(probe_server, "REQUEST_WITHIN_S", 0.3)
    with connect(server) as stranger:
        stranger.sendall(beginning)
        stranger.settimeout(0.01)

        def is_dropped() -> bool:
            try:
                if beginning:
                    stranger.send(b"a")
                return stranger.recv(1) == b""
            except TimeoutError:
                return False
            except ConnectionError:
                return True

        wait_until(is_dropped, within_s=10)


@pytest.mark.parametrize(
    ("request_line", "status"),
    [
        (b"GET /live HTTP/1.1", 200),
        (b"GET /live?from=kubelet HTTP/1.0", 200),
        (b"HEAD /live HTTP/1.1", 200),
        (b"GET /ready HTTP/1.1", 503),
        (b"HEAD /ready HTTP/1.1", 503),
        (b"GET / HTTP/1.1", 404),
        (b"POST /live HTTP/1.1", 405),
        (b"\xff\xfe", 405),
    ],
)
@pytest.mark.parametrize("end", [b"\r\n\r\n", b"\n\n"], ids=["CRLF", "LF"])
def test_each_request_has_its_status(
    request_line: bytes, status: int, end: bytes, server: ProbeServer
) -> None:
    answer = exchange(server, request_line + end)

    assert answer.startswith(b"HTTP/1.1 %d " % status)
    assert answer.endswith(b"\r\n\r\n") == request_line.startswith(b"HEAD")


def test_a_request_without_end_or_measure_gets_no_answer(server: ProbeServer) -> None:
    assert exchange(server, b"GET /" + b"a" * 8192) == b""
    assert is_alive(server)


def test_a_probe_that_raises_says_no_and_the_next_is_asked() -> None:
    outcomes = iter([ValueError("a secret"), None])

    def probe() -> list[str]:
        if (outcome := next(outcomes)) is not None:
            raise outcome
        return []

    with closing(ProbeServer({"/live": probe}, host="127.0.0.1", port=0)) as server:
        first = exchange(server, b"GET /live HTTP/1.1\r\n\r\n")

        assert first.startswith(b"HTTP/1.1 503 ")
        assert b"ValueError" in first
        assert b"secret" not in first
        assert is_alive(server)


def test_a_probe_that_hangs_does_not_hold_up_the_others() -> None:
    """Nor the end of the worker."""
    let_go = threading.Event()
    probes: dict[str, Callable[[], list[str]]] = {
        "/live": list,
        "/ready": lambda: [] if let_go.wait(30) else ["late"],
    }
    server = ProbeServer(probes, host="127.0.0.1", port=0)
    with connect(server) as hung:
        hung.sendall(b"GET /ready HTTP/1.1\r\n\r\n")
        wait_until(lambda: any(t.name == "labelyard-probe" for t in threading.enumerate()))

        assert is_alive(server)
        started_at = time.monotonic()
        server.close()
        assert time.monotonic() - started_at < 20
    let_go.set()
    wait_until(lambda: not any(t.name == "labelyard-probe" for t in threading.enumerate()))


LARGE = b"x" * 5_000_000


def pages_server(**pages: probe_server.Page) -> ProbeServer:
    """Serve pages beside a probe that says yes."""
    return ProbeServer(
        {"/live": list},
        pages={f"/{name}": page for name, page in pages.items()},
        host="127.0.0.1",
        port=0,
    )


def test_a_page_has_the_type_and_text_that_the_peer_accepts() -> None:
    with closing(pages_server(metrics=lambda accept: (f"text/{accept}", b"a 1\n"))) as server:
        request = b"%s /metrics?a=b HTTP/1.1\r\nHost: a\r\nACCEPT : open \r\n\r\n"
        got, head = (exchange(server, request % method) for method in (b"GET", b"HEAD"))

    assert got.startswith(b"HTTP/1.1 200 OK\r\ncontent-type: text/open\r\ncontent-length: 4\r\n")
    assert got.endswith(b"\r\n\r\na 1\n")
    assert head == got.removesuffix(b"a 1\n")


def test_a_page_that_raises_is_an_error_without_its_text() -> None:
    def fail(accept: str) -> tuple[str, bytes]:
        raise ValueError("a secret")

    with closing(pages_server(metrics=fail)) as server:
        answer = exchange(server, b"GET /metrics HTTP/1.1\r\n\r\n")

        assert answer.startswith(b"HTTP/1.1 500 ")
        assert b"ValueError" in answer
        assert b"secret" not in answer
        assert is_alive(server)


def test_scrapers_that_do_not_read_leave_probes_and_other_scrapers_answered() -> None:
    with closing(pages_server(metrics=lambda _: ("text/plain", LARGE))) as server, ExitStack() as s:
        for _ in range(20):
            s.enter_context(connect(server)).sendall(b"GET /metrics HTTP/1.1\r\n\r\n")

        assert is_alive(server)
        assert exchange(server, b"GET /metrics HTTP/1.1\r\n\r\n").endswith(LARGE)


def test_pages_that_hang_leave_probes_answered() -> None:
    let_go = threading.Event()
    with (
        closing(pages_server(metrics=lambda _: ("text/plain", b"%d" % let_go.wait(30)))) as server,
        ExitStack() as scrapers,
    ):
        for _ in range(10):
            scrapers.enter_context(connect(server)).sendall(b"GET /metrics HTTP/1.1\r\n\r\n")

        assert is_alive(server)
        let_go.set()
        wait_until(lambda: not any(t.name == "labelyard-probe" for t in threading.enumerate()))


def test_pages_are_answered_in_parallel() -> None:
    both = threading.Barrier(2, timeout=PROBE_WITHIN_S)
    answers: list[bytes] = []

    def page(accept: str) -> tuple[str, bytes]:
        both.wait()
        return "text/plain", b"together"

    with closing(pages_server(metrics=page)) as server:
        request = b"GET /metrics HTTP/1.1\r\n\r\n"
        scrapers = [
            threading.Thread(target=lambda: answers.append(exchange(server, request)))
            for _ in range(2)
        ]
        for scraper in scrapers:
            scraper.start()
        for scraper in scrapers:
            scraper.join()

    assert [answer.endswith(b"together") for answer in answers] == [True, True]


def test_an_unknown_path_lists_probes_and_pages() -> None:
    with closing(pages_server(metrics=lambda _: ("", b""))) as server:
        assert b'["/live", "/metrics"]' in exchange(server, b"GET / HTTP/1.1\r\n\r\n")
