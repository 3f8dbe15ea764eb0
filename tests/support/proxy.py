"""A TCP proxy that breaks connections the way networks do."""

import socket
import threading
from contextlib import suppress
from types import TracebackType
from typing import Self

HOST = "127.0.0.1"
CHUNK_BYTES = 65_536
DRIP_EVERY_S = 0.1


class ProxiedConnection:
    """One client's connection and its other half, joined by two threads.

    Attributes:
        flows: Cleared while nothing passes.
        reply_bytes_per_s: Rate limit of what the server sends, 0 for none.
        loses_reply: Close the connection in place of the server's next bytes.
    """

    def __init__(
        self, client: socket.socket, server: socket.socket, *, reply_bytes_per_s: float = 0.0
    ) -> None:
        self.flows = threading.Event()
        self.flows.set()
        self.reply_bytes_per_s = reply_bytes_per_s
        self.loses_reply = False
        self._is_closed = threading.Event()
        self._sockets = (client, server)
        self._pumps = [
            threading.Thread(target=self._pump, args=ends, name="proxy-pump", daemon=True)
            for ends in ((client, server), (server, client))
        ]
        for pump in self._pumps:
            pump.start()

    def close(self) -> None:
        """End both halves and wait for the threads."""
        self._is_closed.set()
        for end in self._sockets:
            with suppress(OSError):  # it may be closed already
                end.shutdown(socket.SHUT_RDWR)
        self.flows.set()
        for pump in self._pumps:
            pump.join()
        for end in self._sockets:
            end.close()

    def _pump(self, source: socket.socket, sink: socket.socket) -> None:
        with suppress(OSError):  # either half may end at any time
            while chunk := source.recv(CHUNK_BYTES):
                self.flows.wait()
                is_reply = source is self._sockets[1]
                if is_reply and self.loses_reply:
                    source.shutdown(socket.SHUT_RDWR)
                    break
                if is_reply and self.reply_bytes_per_s:
                    self._drip(chunk, sink)
                else:
                    sink.sendall(chunk)
        self.flows.wait()  # while frozen, an end must not be seen on the other side either
        with suppress(OSError):
            sink.shutdown(socket.SHUT_WR)

    def _drip(self, chunk: bytes, sink: socket.socket) -> None:
        """Forward *chunk* a few bytes at a time, all the rest at once when the limit is lifted."""
        at = 0
        while (rate := self.reply_bytes_per_s) and at < len(chunk):
            size = max(1, int(rate * DRIP_EVERY_S))
            sink.sendall(chunk[at : at + size])
            at += size
            if self._is_closed.wait(max(DRIP_EVERY_S, 1 / rate)):
                return
        sink.sendall(chunk[at:])


class TcpProxy:
    """Forward 127.0.0.1 connections to a server, or misbehave.

    Args:
        target_port: Port of the server on 127.0.0.1.
    """

    def __init__(self, target_port: int) -> None:
        self.target_port = target_port
        self.port = 0
        self._listener: socket.socket | None = None
        self._acceptor: threading.Thread | None = None
        self._reply_bytes_per_s = 0.0
        self._connections: list[ProxiedConnection] = []
        self._lock = threading.Lock()

    def start(self) -> Self:
        """Listen; on a free port first, on the same one after ``refuse``."""
        listener = socket.create_server((HOST, self.port))
        self.port = listener.getsockname()[1]
        self._listener = listener
        self._acceptor = threading.Thread(
            target=self._accept, args=(listener,), name="proxy-accept", daemon=True
        )
        self._acceptor.start()
        return self

    def freeze(self) -> None:
        """Make every open connection half-open: nothing passes, no side notices; new ones work."""
        for connection in self._snapshot():
            connection.flows.clear()

    def thaw(self) -> None:
        """Let frozen connections go on, with all that was sent meanwhile."""
        for connection in self._snapshot():
            connection.flows.set()

    def drip(self, bytes_per_s: float) -> None:
        """Limit the rate of the server's replies on open and new connections; 0 ends that."""
        self._reply_bytes_per_s = bytes_per_s
        for connection in self._snapshot():
            connection.reply_bytes_per_s = bytes_per_s

    def lose_next_reply(self) -> None:
        """Close every open connection in place of its next reply; the request has arrived."""
        for connection in self._snapshot():
            connection.loses_reply = True

    def cut(self) -> None:
        """Close every open connection; new ones work."""
        for connection in self._snapshot():
            connection.close()
        with self._lock:
            self._connections.clear()

    def refuse(self) -> None:
        """Refuse new connections, until ``start``; open ones go on."""
        if self._listener is None or self._acceptor is None:
            return
        self._listener.shutdown(socket.SHUT_RDWR)  # wakes accept()
        self._acceptor.join()
        self._listener.close()
        self._listener = self._acceptor = None

    def stop(self) -> None:
        """Refuse new connections and close the open ones."""
        self.refuse()
        self.cut()

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.stop()

    def _snapshot(self) -> list[ProxiedConnection]:
        with self._lock:
            return list(self._connections)

    def _accept(self, listener: socket.socket) -> None:
        while True:
            try:
                client, _ = listener.accept()
            except OSError:  # refuse() shut the listener down
                return
            try:
                server = socket.create_connection((HOST, self.target_port))
            except OSError:
                client.close()
                continue
            with self._lock:
                self._connections.append(
                    ProxiedConnection(client, server, reply_bytes_per_s=self._reply_bytes_per_s)
                )
