"""A place for a worker: its own network links, and a supervisor that starts it again."""

import os
import signal
import socket
import threading
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from labelyard_worker.local.embedded import (
    HOST,
    EmbeddedServer,
    ServerStartError,
    choose_ports,
)
from labelyard_worker.local.worker_process import WorkerProcess
from tests.support.proxy import TcpProxy

LOOK_EVERY_S: Final = 0.02
READY_WITHIN_S: Final = 120.0
PAUSE_AFTER_FAILED_START_S: Final = 0.5


class Link(TcpProxy):
    """A proxy on a port that no outgoing connection is ever given by the system.

    The port is held from the beginning until ``stop``, also while connections are refused.
    """

    def __init__(self, server: EmbeddedServer) -> None:
        super().__init__(server.port)
        self._claim = claim_port()
        self.port = self._claim.getsockname()[1]

    def stop(self) -> None:
        """Refuse new connections, close the open ones, and give the port back."""
        super().stop()
        self._claim.close()

    def sever(self) -> None:
        """Close every connection, and let in no new one until ``start``."""
        self.refuse()
        self.cut()

    def forget_ended(self) -> None:
        """Free the sockets of connections that both sides have left."""
        with self._lock:
            ended = [
                connection
                for connection in self._connections
                if not any(pump.is_alive() for pump in connection._pumps)
            ]
            self._connections = [one for one in self._connections if one not in ended]
        for connection in ended:
            connection.close()


def claim_port() -> socket.socket:
    """Bind a free port without listening on it.

    Whoever connects is refused. ``choose_ports`` passes it over; a listener of our own that
    reuses addresses may be bound beside it.
    """
    while True:
        (port,) = choose_ports(1)
        claim = socket.socket()
        try:
            claim.bind((HOST, port))
        except OSError:  # somebody took it since it was chosen
            claim.close()
            continue
        # Not before: two claims that both reuse addresses could be bound to one port.
        claim.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        return claim


@dataclass(frozen=True)
class Links:
    """A worker's links to its servers."""

    broker: Link
    ledger: Link
    storage: Link

    def all(self) -> tuple[Link, Link, Link]:
        """Return all three links."""
        return (self.broker, self.ledger, self.storage)


@dataclass(frozen=True, slots=True)
class Exit:
    """Exit of a worker's process, with its cause.

    Attributes:
        code: Exit code, 128 and the number for a signal; None if it never got ready.
        cause: The fault that ended it, or ``""`` if none was meant to.
    """

    slot: str
    pid: int
    code: int | None
    cause: str


class Slot:
    """Keeps one worker running, as the restart policy of a supervisor does.

    Attributes:
        pid: Process id while it takes jobs, else 0.
        exits: How its processes ended.
        clock_path: File with the seconds by which the worker's clock is wrong.
        turn: Held by the fault that works on this slot.
        worker: What is started again and again; only the slot's own thread does.
    """

    def __init__(
        self,
        name: str,
        folder: Path,
        links: Links,
        *,
        command: tuple[str, ...],
        variables: Mapping[str, str],
        clock_path: Path,
    ) -> None:
        self.name = name
        self.clock_path = clock_path
        self.links = links
        self.pid = 0
        self.exits: list[Exit] = []
        self.turn = threading.Lock()
        self._causes: dict[int, str] = {}
        self.worker = WorkerProcess(folder, variables=variables, command=command)
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._keep_running, name=f"chaos-slot-{name}")

    @property
    def log_path(self) -> Path:
        """Path of the worker's log."""
        return self.worker.log_path

    def start(self) -> None:
        """Begin to keep a worker running; it may take a while until it is ready."""
        for link in self.links.all():
            link.start()
        self._thread.start()

    def signal(self, number: signal.Signals, *, cause: str = "") -> int:
        """Send a signal to the worker that takes jobs now.

        Args:
            cause: The fault that this is, if it is to end the process.

        Returns:
            The process id, 0 if there is no such worker.
        """
        pid = self.pid
        if not pid:
            return 0
        if cause:
            self._causes[pid] = cause
        try:
            os.kill(pid, number)
        except ProcessLookupError:
            return 0
        return pid

    def has_ended(self, pid: int) -> bool:
        """Return whether a process of this slot has ended."""
        return any(one.pid == pid for one in self.exits)

    def close(self) -> None:
        """End the worker gently, and the links after it."""
        self.signal(signal.SIGCONT)
        self._closed.set()
        if self._thread.ident is not None:
            self._thread.join()
        for link in self.links.all():
            link.stop()

    def _keep_running(self) -> None:
        while not self._closed.is_set():
            try:
                self.worker.start(within_s=READY_WITHIN_S)
            except ServerStartError:
                self.exits.append(Exit(self.name, 0, None, ""))
                self._closed.wait(PAUSE_AFTER_FAILED_START_S)
                continue
            self._stay_with(self.worker.pid)

    def _stay_with(self, pid: int) -> None:
        self.pid = pid
        guardian = self.worker._guardian
        assert guardian is not None  # it is ready
        while guardian.poll() is None:
            if self._closed.wait(LOOK_EVERY_S):
                self._causes.setdefault(pid, "end_of_run")
                self.worker.stop()
        self.pid = 0
        cause = self._causes.pop(pid, "")
        self.exits.append(Exit(self.name, pid, guardian.returncode, cause))
        for link in self.links.all():
            link.forget_ended()


def wait_for_end(slot: Slot, pid: int, *, within_s: float) -> bool:
    """Wait until a process of *slot* is gone; ``False`` if it is not."""
    until = time.monotonic() + within_s
    while not slot.has_ended(pid):
        if time.monotonic() >= until:
            return False
        time.sleep(LOOK_EVERY_S)
    return True


def resume(pid: int) -> None:
    """Continue a stopped process, if it is still there."""
    with suppress(ProcessLookupError):
        os.kill(pid, signal.SIGCONT)
