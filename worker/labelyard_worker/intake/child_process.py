"""Start and end the processes of intake children, which ignore SIGTERM and SIGINT."""

import os
import select
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterable
from contextlib import suppress
from multiprocessing import get_context, popen_forkserver, resource_tracker
from multiprocessing.context import ForkServerProcess
from multiprocessing.process import BaseProcess
from types import ModuleType
from typing import Any, Protocol

from labelyard_worker.intake.decoder_child import DecoderSettings, serve

CONTEXT = get_context("forkserver")
SIGNAL_NAMES = {number.value: number.name for number in signal.Signals}
PRELOAD = ["labelyard_worker.intake.preload"]
FETCHER = "labelyard_worker.intake.fetcher_child"
MAX_STDERR_CHARS = 2000

# What libraries of any source read: certificates, proxies, allocators. A name that ends in _
# stands for all that begin with it.
FETCHER_VARIABLES = (
    *("GLIBC_", "HOME", "LANG", "LC_ALL", "LC_CTYPE", "MALLOC_", "PATH", "TMPDIR", "TZ", "USER"),
    *("REQUESTS_CA_BUNDLE", "SSL_CERT_DIR", "SSL_CERT_FILE", "LD_LIBRARY_PATH", "LD_PRELOAD"),
    *("HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "http_proxy", "https_proxy", "no_proxy"),
)

# multiprocessing keeps its children in a set, and reads their exit codes, unguarded.
_bookkeeping = threading.Lock()


class Process(Protocol):
    """A running child."""

    @property
    def pid(self) -> int:
        """Process id."""

    def end(self) -> str:
        """Kill the child if it still runs, and return its exit code or signal in words."""


class _Popen(popen_forkserver.Popen):
    def terminate(self) -> None:
        """Kill: children ignore SIGTERM, which Python sends to remaining ones at exit."""
        self.kill()


class _ForkedProcess(ForkServerProcess):
    """A forked process that does not import the worker's main module."""

    @staticmethod
    def _Popen(process_obj: BaseProcess) -> Any:  # noqa: N802 - multiprocessing's name for it
        # A child would first run the main module again, under another name: seconds and
        # megabytes for nothing, and torch with them if that module imports it.
        main = sys.modules["__main__"]
        sys.modules["__main__"] = ModuleType("__main__")
        try:
            return _Popen(process_obj)
        finally:
            sys.modules["__main__"] = main


class DecoderProcess:
    """The process of a decoder, forked from the fork server in milliseconds.

    Args:
        theirs: The child's end of its socket; closed here.
        settings: Settings of the child.
    """

    def __init__(self, theirs: socket.socket, settings: DecoderSettings) -> None:
        self._process = _ForkedProcess(
            target=serve, args=(theirs, settings), name="labelyard-decoder", daemon=True
        )
        with theirs, _bookkeeping:
            block_termination()
            CONTEXT.set_forkserver_preload(PRELOAD)
            self._process.start()

    @property
    def pid(self) -> int:
        """Process id."""
        return self._process.pid or 0

    def end(self) -> str:
        """Kill the child if it still runs, and return its exit code or signal in words."""
        with _bookkeeping:
            if self._process.is_alive():
                self._process.kill()
            self._process.join()
            code = self._process.exitcode
            self._process.close()
        return describe_exit(code)


class FetcherProcess:
    """The process of a fetcher: a program of its own, with the variables that its libraries read.

    Args:
        theirs: The child's end of its socket; closed here.
        variables: Environment variables that the sources' libraries read.
    """

    def __init__(self, theirs: socket.socket, *, variables: Iterable[str]) -> None:
        block_termination()
        with theirs:
            self._process = subprocess.Popen(  # noqa: S603 - our own module
                [sys.executable, "-P", "-m", FETCHER, str(theirs.fileno()), str(os.getpid())],
                env=fetcher_environment(variables),
                pass_fds=(theirs.fileno(),),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
            )
        assert self._process.stderr is not None  # noqa: S101 - it is a pipe
        self.stderr = self._process.stderr
        os.set_blocking(self.stderr.fileno(), False)

    @property
    def pid(self) -> int:
        """Process id."""
        return self._process.pid

    def end(self) -> str:
        """Kill the child if it still runs, and return its exit code or signal in words."""
        self._process.kill()
        self._process.wait()
        last_line = self.read_stderr().strip().rpartition("\n")[2]
        self.stderr.close()
        how = describe_exit(self._process.returncode)
        return f"{how}: {last_line[-300:]}" if last_line else how

    def read_stderr(self) -> str:
        """Drain the fetcher's standard error, and return its beginning."""
        if (
            self.stderr.closed
        ):  # an event of the socket, in the same round of the loop, replaced this process
            return ""
        kept = b""
        with suppress(OSError):
            while chunk := os.read(self.stderr.fileno(), 65536):
                kept = kept if len(kept) >= MAX_STDERR_CHARS else kept + chunk
        return kept[:MAX_STDERR_CHARS].decode("utf-8", "replace")


def fetcher_environment(variables: Iterable[str]) -> dict[str, str]:
    """Choose the variables that a fetcher gets: no passwords of brokers, no webhook key."""
    names = {*FETCHER_VARIABLES, *variables}
    prefixes = tuple(name for name in names if name.endswith("_"))
    chosen = {
        name: value
        for name, value in os.environ.items()
        if name in names or name.startswith(prefixes)
    }
    return {**chosen, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}


def describe_exit(code: int | None) -> str:
    """Name the signal that ended a process, or its exit code."""
    return SIGNAL_NAMES.get(-(code or 0), f"exit code {code}")


def is_peer_gone(connection: socket.socket) -> bool:
    """Return whether the other end of a socket is closed."""
    poll = select.poll()
    poll.register(connection, 0)
    return any(mask & (select.POLLHUP | select.POLLERR) for _, mask in poll.poll(0))


def block_termination() -> None:
    """Block SIGTERM and SIGINT in this thread and in every thread and process it starts.

    Children inherit the mask with their first instruction; a handler would come too late.
    Ctrl-C and some supervisors signal the whole group, and the drain still needs the
    children.
    """
    resource_tracker.ensure_running()  # first: starting it unblocks both signals
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM, signal.SIGINT})
