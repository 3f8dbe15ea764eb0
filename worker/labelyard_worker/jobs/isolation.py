"""Quarantine of suspects in one process: one at a time, and alone only when the process is idle.

A crash kills every job of its process, so the ledger counts a death for each; a job that died
twice is a suspect. While at most one suspect runs in a process, the process's crashes are the
suspect's and not its neighbours'. Only the last run before a job is buried needs to be alone,
and ordinary jobs are never held back to make the process idle.
"""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

from labelyard_worker.waiting_jobs import WAITING_JOBS

# Longest wait of a suspect for a moment in which nothing else runs.
IDLE_WITHIN_S: Final = 30.0
# Longest time that ordinary jobs wait for a suspect that started alone.
ALONE_S: Final = 5.0
POLL_EVERY_S: Final = 0.2


class Quarantine:
    """Lock that decides which jobs run beside each other in this process; for many threads."""

    def __init__(self, *, idle_within_s: float = IDLE_WITHIN_S, alone_s: float = ALONE_S) -> None:
        self._idle_within_s = idle_within_s
        self._alone_s = alone_s
        self._changed = threading.Condition()
        self._ordinary = 0
        self._has_suspect = False
        self._is_closed = False

    @contextmanager
    def ordinary(self) -> Iterator[None]:
        """Run the block beside all other jobs, a suspect that is not alone included."""
        with self._changed:
            if self._is_closed:
                with WAITING_JOBS.waiting():
                    self._changed.wait_for(lambda: not self._is_closed)
            self._ordinary += 1
        try:
            yield
        finally:
            with self._changed:
                self._ordinary -= 1
                self._changed.notify_all()

    @contextmanager
    def suspect(self) -> Iterator[None]:
        """Run the block beside ordinary jobs, but beside no other suspect."""
        with self._changed:
            if self._has_suspect:
                with WAITING_JOBS.waiting():
                    self._changed.wait_for(lambda: not self._has_suspect)
            self._has_suspect = True
        try:
            yield
        finally:
            with self._changed:
                self._has_suspect = False
                self._changed.notify_all()

    @contextmanager
    def alone(
        self, *, should_stop: Callable[[], bool], on_company: Callable[[], None]
    ) -> Iterator[bool]:
        """Start a suspect alone, if the process is idle soon.

        Args:
            should_stop: Whether to wait no longer; polled.
            on_company: Called before ordinary jobs start again while the block runs.

        Yields:
            Whether no other job runs. Ordinary jobs that arrive wait for ``alone_s`` at
            most.
        """
        if not self._close_when_idle(should_stop):
            yield False
            return
        timer = threading.Timer(self._alone_s, self._admit_company, [on_company])
        timer.name, timer.daemon = "labelyard-isolation", True
        timer.start()
        try:
            yield True
        finally:
            timer.cancel()
            self._open()
            timer.join()

    def _close_when_idle(self, should_stop: Callable[[], bool]) -> bool:
        until = time.monotonic() + self._idle_within_s
        with self._changed:
            while self._ordinary:
                if should_stop() or time.monotonic() >= until:
                    return False
                with WAITING_JOBS.waiting():
                    self._changed.wait(POLL_EVERY_S)
            self._is_closed = True
            return True

    def _admit_company(self, on_company: Callable[[], None]) -> None:
        try:
            on_company()
        finally:
            self._open()

    def _open(self) -> None:
        with self._changed:
            self._is_closed = False
            self._changed.notify_all()
