"""A child process that is forked from a small server, and that only SIGKILL ends."""

import signal
import sys
import threading
from multiprocessing import get_context, popen_forkserver, resource_tracker
from multiprocessing.context import ForkServerProcess
from multiprocessing.process import BaseProcess
from types import ModuleType
from typing import Any

from labelyard_worker.intake.child import READY, ChildSettings, serve

START_TIMEOUT_S = 60.0
CONTEXT = get_context("forkserver")
SIGNAL_NAMES = {number.value: number.name for number in signal.Signals}
PRELOAD = ["labelyard_worker.intake.preload"]

# multiprocessing keeps its children in a set, and reads their exit codes, unguarded.
_bookkeeping = threading.Lock()


class ChildStartError(OSError):
    """A child did not come up; the machine or the installation is at fault, no image."""


class _Popen(popen_forkserver.Popen):
    def terminate(self) -> None:
        """Kill: SIGTERM, which Python sends to what is left at exit, is ignored there."""
        self.kill()


class _Process(ForkServerProcess):
    """A process that knows nothing of the program it serves."""

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


class ChildProcess:
    """One running child, and the pipe to it.

    Raises:
        ChildStartError: It did not come up.
    """

    def __init__(self, settings: ChildSettings) -> None:
        self.connection, theirs = CONTEXT.Pipe()
        self._process = _Process(
            target=serve, args=(theirs, settings), name="labelyard-intake", daemon=True
        )
        with _bookkeeping:
            _ignore_termination()
            CONTEXT.set_forkserver_preload(PRELOAD)
            self._process.start()
        theirs.close()
        self._wait_until_ready()

    @property
    def pid(self) -> int:
        """The child's process id."""
        return self._process.pid or 0

    def is_alive(self) -> bool:
        """Tell whether the child runs."""
        with _bookkeeping:
            return self._process.is_alive()

    def end(self) -> str:
        """Kill the child if it still runs, and say how it ended."""
        with _bookkeeping:
            if self._process.is_alive():
                self._process.kill()
            self._process.join()
            code = self._process.exitcode
            self._process.close()
        self.connection.close()
        return SIGNAL_NAMES.get(-(code or 0), f"exit code {code}")

    def _wait_until_ready(self) -> None:
        try:
            is_ready = self.connection.poll(START_TIMEOUT_S) and self.connection.recv() == READY
        except (EOFError, OSError):
            is_ready = False
        if not is_ready:
            raise ChildStartError(f"an intake child did not start: {self.end()}")


def _ignore_termination() -> None:
    """Block SIGTERM and SIGINT in this thread, and so in all that is started from it.

    The fork server and its children inherit the mask with their first instruction; a
    handler would come too late. Ctrl-C and some supervisors signal the whole group, and
    the drain still needs the children.
    """
    resource_tracker.ensure_running()  # first: starting it unblocks both signals
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM, signal.SIGINT})
