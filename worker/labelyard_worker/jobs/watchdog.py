"""Watchdog: ends the process when a job or a forward pass hangs beyond twice its deadline.

A thread that hangs in native code cannot be stopped, and occupies its slot for ever.
The stacks are logged, the process ends at once, and its supervisor starts another; the
broker delivers the jobs again, and the ledger counts the death.
"""

import faulthandler
import logging
import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from labelyard_worker.jobs.cancellation import Token
from labelyard_worker.operations.output import dump_stacks

log = logging.getLogger(__name__)
EXIT_CODE = 70  # EX_SOFTWARE of sysexits.h
# Seconds that a hung process may take to write its stacks.
LOG_WITHIN_S = 5.0


def end_process(reason: str) -> None:
    """Log every thread's stack and end the process without any clean-up.

    It ends even if nothing can be logged: standard error may be closed, or a pipe without a
    reader, on which a write blocks for ever.
    """
    limit = threading.Timer(LOG_WITHIN_S, os._exit, [EXIT_CODE])
    limit.name = "labelyard-watchdog-limit"
    limit.daemon = True
    limit.start()
    try:
        log.critical("watchdog_ends_process", extra={"fields": {"reason": reason}})
        dump_stacks(lambda file: faulthandler.dump_traceback(file=file, all_threads=True))
    finally:
        os._exit(EXIT_CODE)


class Watchdog:
    """Thread that checks every running attempt and the model for a hang.

    Args:
        model_busy_s: Returns the seconds that the present forward pass has been running.
        model_timeout_s: Seconds that a forward pass may take; twice that is a hang.
        on_hang: Called with a description of the hang.
    """

    def __init__(
        self,
        *,
        model_busy_s: Callable[[], float],
        model_timeout_s: float,
        is_on: bool = True,
        poll_every_s: float = 1.0,
        on_hang: Callable[[str], None] = end_process,
    ) -> None:
        self._model_busy_s = model_busy_s
        self._model_timeout_s = model_timeout_s
        self._on_hang = on_hang
        self._poll_every_s = poll_every_s
        self._lock = threading.Lock()
        self._guarded: set[Token] = set()
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="labelyard-watchdog", daemon=True)
        if is_on:
            self._thread.start()

    @contextmanager
    def guarding(self, token: Token) -> Iterator[None]:
        """Watch the attempt of *token* while the block runs."""
        with self._lock:
            self._guarded.add(token)
        try:
            yield
        finally:
            with self._lock:
                self._guarded.discard(token)

    def hung(self) -> str | None:
        """Return a description of the forward pass or job that hangs; ``None`` if none does."""
        if self._model_busy_s() > 2 * self._model_timeout_s:
            return f"a forward pass runs for more than {2 * self._model_timeout_s:g} s"
        now = time.monotonic()
        with self._lock:
            for token in self._guarded:
                if now - token.started_at > 2 * token.timeout_s:
                    return f"job {token.job_id} runs for more than {2 * token.timeout_s:g} s"
        return None

    def _watch(self) -> None:
        while not self._closed.wait(self._poll_every_s):
            reason = self.hung()
            if reason is not None:
                self._on_hang(reason)
                return

    def close(self) -> None:
        """Stop the thread."""
        self._closed.set()
        if self._thread.is_alive():
            self._thread.join()
