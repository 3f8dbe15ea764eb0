"""Images that wait for an intake child: now, first of all, or later."""

import heapq
import itertools
import threading
import time
from collections import deque
from collections.abc import Iterable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass

from labelyard.messages import ImageRef
from labelyard_worker.intake.spec import Pixels, Unchanged


@dataclass(slots=True, eq=False)
class Call:
    """One image, and the caller who waits for its pixels.

    Attributes:
        image: What to fetch.
        known_etag: ETag whose pixels are not needed again.
        answer: Gets the pixels or the error, once.
        attempt: Transient errors so far.
        deaths: Children that died over it.
    """

    image: ImageRef
    known_etag: str | None
    answer: Future[Pixels | Unchanged]
    attempt: int = 0
    deaths: int = 0

    def begin(self) -> bool:
        """Say that work begins; ``False`` if the caller has given up before."""
        return self.answer.running() or self.answer.set_running_or_notify_cancel()


class CallQueue:
    """First in, first out, with a way back to the front and a way to wait for a retry."""

    def __init__(self) -> None:
        self._ready: deque[Call] = deque()
        self._later: list[tuple[float, int, Call]] = []  # a heap by due time
        self._order = itertools.count()
        self._idle_takers = 0
        self._is_closed = False
        self._changed = threading.Condition()

    @property
    def is_closed(self) -> bool:
        """Whether nothing is given out any more."""
        return self._is_closed

    def put(self, calls: Iterable[Call]) -> None:
        """Add *calls* at the end."""
        with self._changed:
            self._ready.extend(calls)
            self._changed.notify_all()

    def put_back(self, calls: Sequence[Call]) -> None:
        """Add *calls*, which a child did not get to, at the front in their order."""
        with self._changed:
            self._ready.extendleft(reversed(calls))
            self._changed.notify_all()

    def put_later(self, call: Call, *, delay_s: float) -> None:
        """Add *call* once *delay_s* seconds have passed; nobody is kept busy meanwhile."""
        with self._changed:
            due = time.monotonic() + delay_s
            heapq.heappush(self._later, (due, next(self._order), call))
            self._changed.notify_all()

    def take(self, *, is_blocking: bool) -> Call | None:
        """Take the next call.

        Args:
            is_blocking: Wait for one. Otherwise only what idle takers leave is given, so
                that a busy child does not hoard what an idle one could begin at once.

        Returns:
            A call; ``None`` when the queue is closed, or has none to give right now.
        """
        with self._changed:
            if not is_blocking:
                self._move_due()
                spare = len(self._ready) > self._idle_takers and not self._is_closed
                return self._ready.popleft() if spare else None
            self._idle_takers += 1
            try:
                while not self._is_closed:
                    self._move_due()
                    if self._ready:
                        return self._ready.popleft()
                    self._changed.wait(self._until_next_due())
                return None
            finally:
                self._idle_takers -= 1

    def close(self) -> list[Call]:
        """Give nothing out any more; return what was waiting, or came since the last close."""
        with self._changed:
            self._is_closed = True
            left = [*self._ready, *(call for _, _, call in self._later)]
            self._ready.clear()
            self._later.clear()
            self._changed.notify_all()
        return left

    def _move_due(self) -> None:
        while self._later and self._later[0][0] <= time.monotonic():
            self._ready.append(heapq.heappop(self._later)[2])

    def _until_next_due(self) -> float | None:
        return max(0.0, self._later[0][0] - time.monotonic()) if self._later else None
