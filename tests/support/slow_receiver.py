"""A webhook receiver that counts calls, and that can answer slowly or never."""

import socket
import threading
from collections import Counter
from contextlib import suppress
from types import TracebackType
from typing import Final, Self

HOST: Final = "127.0.0.1"
LONGEST_CALL_S: Final = 60.0
READ_BYTES: Final = 65_536


class SlowReceiver:
    """Answer webhook calls with 204, a header byte at a time, or not at all.

    Attributes:
        calls: Completed calls by ``webhook-id``.
    """

    def __init__(self) -> None:
        self.calls: Counter[str] = Counter()
        self._byte_every_s = -1.0
        self._changed = threading.Condition()
        self._is_closed = False
        self._listener = socket.create_server((HOST, 0), backlog=256)
        self._acceptor = threading.Thread(target=self._accept, name="slow-receiver", daemon=True)

    @property
    def url(self) -> str:
        """Address that calls go to."""
        return f"http://{HOST}:{self._listener.getsockname()[1]}/hook"

    @property
    def authority(self) -> str:
        """Host and port, as an allow-list names them."""
        return f"{HOST}:{self._listener.getsockname()[1]}"

    def drip(self, byte_every_s: float) -> None:
        """Send one header byte every *byte_every_s* seconds from now on; 0 sends nothing."""
        with self._changed:
            self._byte_every_s = byte_every_s

    def recover(self) -> None:
        """Answer new calls at once; calls in progress are cut off."""
        with self._changed:
            self._byte_every_s = -1.0
            self._changed.notify_all()

    def __enter__(self) -> Self:
        self._acceptor.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        with self._changed:
            self._is_closed = True
            self._changed.notify_all()
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._acceptor.join()
        self._listener.close()

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            connection.settimeout(LONGEST_CALL_S)
            threading.Thread(
                target=self._answer, args=(connection,), name="slow-receiver-call", daemon=True
            ).start()

    def _answer(self, connection: socket.socket) -> None:
        with connection, suppress(OSError, ValueError):
            webhook_id = read_call(connection)
            if not webhook_id:
                return
            if self._byte_every_s >= 0:
                self._drip_answer(connection)
                return
            connection.sendall(b"HTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n")
            with self._changed:
                self.calls[webhook_id] += 1

    def _drip_answer(self, connection: socket.socket) -> None:
        connection.sendall(b"HTTP/1.1 200 OK\r\nx: ")
        while True:
            with self._changed:
                every_s = self._byte_every_s
                if every_s < 0 or self._is_closed:
                    return
                self._changed.wait(every_s or LONGEST_CALL_S)
            if every_s:
                connection.sendall(b"x")


def read_call(connection: socket.socket) -> str:
    """Read one whole HTTP request; return its ``webhook-id``, or "" if there is none."""
    data = b""
    while b"\r\n\r\n" not in data:
        chunk = connection.recv(READ_BYTES)
        if not chunk:
            return ""
        data += chunk
    head, _, body = data.partition(b"\r\n\r\n")
    headers = {
        name.strip().lower(): value.strip()
        for name, _, value in (line.partition(":") for line in head.decode().split("\r\n")[1:])
    }
    missing = int(headers.get("content-length", "0")) - len(body)
    while missing > 0:
        chunk = connection.recv(READ_BYTES)
        if not chunk:
            return ""
        missing -= len(chunk)
    return headers.get("webhook-id", "")
