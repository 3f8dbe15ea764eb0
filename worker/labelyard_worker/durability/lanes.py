"""Lets a suspect job run while nothing else does.

A crash kills every job of the process, so the ledger counts a death for each. What
died twice is a suspect; alone in the process, the innocent pass and the culprit is
found.
"""

import threading
from collections.abc import Iterator
from contextlib import contextmanager


class Lanes:
    """Many jobs at once, or one alone: a reader-writer lock that favours the lone one."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._running = 0
        self._alone_waiting = 0
        self._is_alone = False

    @contextmanager
    def enter(self, *, is_alone: bool) -> Iterator[None]:
        """Run the block beside others, or with none beside it."""
        with self._changed:
            if is_alone:
                self._wait_to_be_alone()
            else:
                self._changed.wait_for(lambda: not (self._is_alone or self._alone_waiting))
                self._running += 1
        try:
            yield
        finally:
            with self._changed:
                if is_alone:
                    self._is_alone = False
                else:
                    self._running -= 1
                self._changed.notify_all()

    def _wait_to_be_alone(self) -> None:
        self._alone_waiting += 1
        try:
            self._changed.wait_for(lambda: not (self._is_alone or self._running))
            self._is_alone = True
        finally:
            self._alone_waiting -= 1
