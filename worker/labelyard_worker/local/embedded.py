"""A server that lives no longer than the process that started it."""

import fcntl
import os
import random
import signal
import socket
import subprocess
import sys
import time
from abc import ABC, abstractmethod
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import ClassVar, Self

HOST = "127.0.0.1"
GUARDIAN = Path(__file__).with_name("guardian.py")
START_WITHIN_S = 30.0
STOP_GRACE_S = 5.0
READY_CHECK_S = 0.02
LOG_TAIL_LINES = 20
PORT_ATTEMPTS = 5

# With their companions below Linux's ephemeral ports: a client that reconnects while its server
# is down can be given the server's own port as its source, connect to itself, and keep the port.
PORTS = range(11_000, 22_768)
DRAW = random.SystemRandom()  # a program that seeds random would draw the same ports again
COMPANION_OFFSET = 10_000  # SeaweedFS's gRPC port; a part of it takes no other
HIGHEST_PORT = 65_535 - COMPANION_OFFSET
PORT_TAKEN_WORDS = ("address already in use", "port allocation failed")

# SeaweedFS makes an administrator out of AWS_* and reads settings from S3_* and WEED_*.
PRIVATE_VARIABLES = ("AWS_", "S3_", "WEED_")


class ServerStartError(RuntimeError):
    """An embedded server did not start."""

    def __init__(self, name: str, reason: str, log_tail: str = "") -> None:
        super().__init__(name, reason, log_tail)
        self.name = name
        self.reason = reason
        self.log_tail = log_tail

    def __str__(self) -> str:
        log = f" The end of its log:\n{self.log_tail}" if self.log_tail else ""
        return f"{self.name} did not start: {self.reason}.{log}"


class EmbeddedServer(ABC):
    """One server process that lives no longer than this one.

    Its ports are chosen at the first start and kept, so that a restart is found at the same
    address. It can be started again after ``stop`` and ``kill``. Not thread-safe.

    Args:
        data_dir: Folder for data, settings and log; made when missing.
        port: Port that clients use; a free one when None.
    """

    name: ClassVar[str]
    port_count: ClassVar[int] = 1
    stop_grace_s: ClassVar[float] = STOP_GRACE_S
    # A server's files, sockets included, are readable by its user alone.
    umask: ClassVar[int] = 0o077

    def __init__(self, data_dir: Path, *, port: int | None = None) -> None:
        if port is not None and not 0 < port <= HIGHEST_PORT:
            raise ValueError(f"{self.name} cannot use port {port}: choose 1 to {HIGHEST_PORT}")
        self.data_dir = data_dir.absolute()
        self._wanted_port = port
        self._ports: tuple[int, ...] = ()
        self._guardian: subprocess.Popen[bytes] | None = None
        self._pid: int | None = None
        self._log_start_bytes = 0

    @abstractmethod
    def is_ready(self) -> bool:
        """Return whether the server that was started here, and no other, answers clients."""

    @abstractmethod
    def _command(self) -> list[str]:
        """Return the server's command line."""

    def _environment(self) -> dict[str, str]:
        """Return the server's environment."""
        return server_environment(self.data_dir)

    def _leftover_files(self) -> list[str]:
        """Return the files outside the data folder that the server may leave behind."""
        return []

    @property
    def log_path(self) -> Path:
        """File that takes all output of the server."""
        return self.data_dir / f"{self.name}.log"

    @property
    def port(self) -> int:
        """Port that clients use, known from the first start on."""
        return self.ports[0]

    @property
    def ports(self) -> tuple[int, ...]:
        """All ports of the server but the companions, the clients' first."""
        if not self._ports:
            raise RuntimeError(f"{self.name} has no port yet: call start() first")
        return self._ports

    @property
    def pid(self) -> int:
        """Process id of the server itself, for signals."""
        if self._pid is None:
            raise RuntimeError(f"{self.name} is not running: call start() first")
        return self._pid

    @property
    def guardian_pid(self) -> int:
        """Process id of the guardian, which ends the server when this process ends."""
        if self._guardian is None:
            raise RuntimeError(f"{self.name} is not running: call start() first")
        return self._guardian.pid

    def is_running(self) -> bool:
        """Return whether the process exists, ready or not."""
        return self._guardian is not None and self._guardian.poll() is None

    def start(self, *, within_s: float = START_WITHIN_S) -> Self:
        """Start the server and return when clients can use it.

        Raises:
            ServerStartError: The server ended, was not ready in time, or its folder is in use.
        """
        if self.is_running():
            raise RuntimeError(f"{self.name} is running already, as process {self._pid}")
        due = time.monotonic() + within_s
        attempts = 1 if self._ports or self._wanted_port else PORT_ATTEMPTS
        while attempts:
            attempts -= 1
            self._launch()
            if self._becomes_ready(due=due):
                return self
            if not (attempts and self._lost_a_port()):
                break
            self._ports = ()
        raise self._start_error(within_s)

    def stop(self) -> None:
        """End the server gently, by force after a grace time; nothing when it is not running."""
        if self._guardian is not None:
            self._guardian.terminate()
            self._forget()

    def kill(self) -> None:
        """End the server with SIGKILL, as a crash would; nothing when it is not running."""
        if self.is_running():
            os.kill(self.pid, signal.SIGKILL)
        if self._guardian is not None:
            self._forget()

    def restart(self, *, within_s: float = START_WITHIN_S) -> Self:
        """Stop the server and start it again, on the same ports and data."""
        self.stop()
        return self.start(within_s=within_s)

    def __enter__(self) -> Self:
        return self if self.is_running() else self.start()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.stop()

    def _launch(self) -> None:
        """Start the guardian, which starts the server, and read the server's process id."""
        self.data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.data_dir.chmod(0o700)  # an existing folder may be open to others
        self._ports = self._ports or choose_ports(self.port_count, first=self._wanted_port)
        guardian = [sys.executable, "-I", "-S", str(GUARDIAN)]
        arguments = [
            str(os.getpid()),
            str(self.stop_grace_s),
            os.pathsep.join(self._leftover_files()),
        ]
        with ExitStack() as files:
            lock = files.enter_context((self.data_dir / f"{self.name}.lock").open("w"))
            self._lock_data(lock.fileno())
            log = files.enter_context(self.log_path.open("ab"))
            self._log_start_bytes = log.tell()
            self._guardian = subprocess.Popen(  # noqa: S603 - the command is our own
                [*guardian, *arguments, *self._command()],
                cwd=self.data_dir,
                env=self._environment(),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=log,
                pass_fds=[lock.fileno()],  # the guardian's copy keeps the lock
                umask=self.umask,
                start_new_session=True,  # Ctrl-C in the terminal must not reach the servers
            )
        assert self._guardian.stdout is not None  # noqa: S101 - stdout is a pipe
        with self._guardian.stdout as pids:
            line = pids.readline()
        self._pid = int(line) if line else None

    def _lock_data(self, descriptor: int) -> None:
        """Lock the data folder: two servers on one folder would destroy each other's data."""
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            reason = f"another server runs on {self.data_dir}; stop it, or choose another folder"
            raise ServerStartError(self.name, reason) from None

    def _becomes_ready(self, *, due: float) -> bool:
        while self.is_running() and time.monotonic() < due:
            if self.is_ready():
                return True
            time.sleep(READY_CHECK_S)
        return False

    def _lost_a_port(self) -> bool:
        """Return whether another process took one of our ports between choice and use."""
        tail = self._log_tail().lower()
        return not self.is_running() and any(words in tail for words in PORT_TAKEN_WORDS)

    def _start_error(self, within_s: float) -> ServerStartError:
        if self.is_running():
            reason = f"not ready within {within_s:g} s"
        elif self._lost_a_port():
            reason = (
                f"port {self.port} is taken; end the process that uses it, or choose another port"
            )
        else:
            reason = "its process ended at once"
        self.kill()
        return ServerStartError(self.name, reason, self._log_tail())

    def _log_tail(self) -> str:
        """Return the last lines of the server's log, since its latest start."""
        with self.log_path.open("rb") as log:
            log.seek(self._log_start_bytes)
            lines = log.read().decode(errors="replace").splitlines()
        return "\n".join(lines[-LOG_TAIL_LINES:])

    def _forget(self) -> None:
        """Wait for the guardian, which ends after the server."""
        if self._guardian is not None:
            self._guardian.wait()
        self._guardian = None
        self._pid = None


def choose_ports(count: int, *, first: int | None = None) -> tuple[int, ...]:
    """Find ports that are free, as are their companions, with *first* in front when given.

    All are held until the last is found, so they differ; until the server binds them another
    process can take one, so the start may have to be repeated with others.
    """
    chosen = [] if first is None else [first]
    with ExitStack() as held:
        while len(chosen) < count:
            port = DRAW.choice(PORTS)
            if port not in chosen and can_bind(port, held=held):
                chosen.append(port)
    return tuple(chosen)


def can_bind(port: int, *, held: ExitStack) -> bool:
    """Return whether *port* and its companion are free, and if so hold both."""
    with ExitStack() as probes:
        for one in (port, port + COMPANION_OFFSET):
            try:
                probes.enter_context(socket.socket()).bind((HOST, one))
            except OSError:
                return False
        held.push(probes.pop_all())
    return True


def server_environment(home: Path) -> dict[str, str]:
    """Return our environment without the variables that would change a server's behaviour.

    Args:
        home: Folder in place of the user's, whose ``.seaweedfs`` settings are not meant for us.
    """
    kept = {
        name: value for name, value in os.environ.items() if not name.startswith(PRIVATE_VARIABLES)
    }
    return kept | {"HOME": str(home)}
