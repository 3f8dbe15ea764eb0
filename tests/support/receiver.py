"""A receiver of webhooks with given answers."""

import socket
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


@dataclass(frozen=True, slots=True)
class Hook:
    """One request that the receiver got."""

    path: str
    headers: Mapping[str, str]
    body: bytes


@dataclass
class Receiver:
    """The received requests, and the answers to give.

    Attributes:
        url: Where calls go to; the path may be extended.
        hooks: Calls, in their order.
        statuses: Answers to the next calls; then 204.
        headers: Sent with each answer.
        fails_with: Status of every answer while it is set.
    """

    url: str = ""
    hooks: list[Hook] = field(default_factory=list)
    statuses: list[int] = field(default_factory=list)
    headers: dict[str, str] = field(default_factory=dict)
    fails_with: int | None = None

    def next_status(self) -> int:
        """Return the status of the next answer."""
        return self.fails_with or (self.statuses.pop(0) if self.statuses else 204)


@contextmanager
def running_receiver() -> Iterator[Receiver]:
    """Listen on 127.0.0.1 while the block runs."""
    receiver = Receiver()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.do_POST()

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers.get("content-length", 0)))
            receiver.hooks.append(Hook(self.path, dict(self.headers.items()), body))
            self.send_response(receiver.next_status())
            for name, value in receiver.headers.items():
                self.send_header(name, value)
            self.end_headers()

        def log_message(self, *args: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        receiver.url = f"http://127.0.0.1:{server.server_address[1]}/hook"
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield receiver
        finally:
            server.shutdown()
            thread.join()


@dataclass
class SlowReceiver:
    """A receiver that takes its time.

    Attributes:
        url: Where calls go to.
        calls: Connections accepted so far.
        most_at_once: Most connections that were open at one time.
    """

    url: str = ""
    calls: int = 0
    most_at_once: int = 0


@contextmanager
def running_slow_receiver(opening: bytes = b"", *, drip: bytes = b"") -> Iterator[SlowReceiver]:
    """Answer every connection with *opening*, then a *drip* each 50 ms, while the block runs."""
    receiver = SlowReceiver()
    ended = threading.Event()
    lock = threading.Lock()
    open_connections: list[socket.socket] = []
    threads: list[threading.Thread] = []

    def serve(connection: socket.socket) -> None:
        with connection, suppress(OSError):
            connection.sendall(opening)
            connection.settimeout(0.05)
            while not ended.is_set():
                with suppress(TimeoutError):
                    if not connection.recv(65536):
                        break
                connection.sendall(drip)
        with lock:
            open_connections.remove(connection)

    def accept(server: socket.socket) -> None:
        server.settimeout(0.05)
        while not ended.is_set():
            with suppress(TimeoutError):
                connection, _ = server.accept()
                with lock:
                    open_connections.append(connection)
                    receiver.calls += 1
                    receiver.most_at_once = max(receiver.most_at_once, len(open_connections))
                threads.append(threading.Thread(target=serve, args=(connection,)))
                threads[-1].start()

    with socket.create_server(("127.0.0.1", 0), backlog=256) as server:
        receiver.url = f"http://127.0.0.1:{server.getsockname()[1]}/hook"
        acceptor = threading.Thread(target=accept, args=(server,))
        acceptor.start()
        try:
            yield receiver
        finally:
            ended.set()
            for thread in (acceptor, *threads):
                thread.join()
