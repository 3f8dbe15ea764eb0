"""Schedule of forward passes: which model thread may start one now, and with which requests."""

import time
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final, Generic

from labelyard.queues import Priority
from labelyard_worker.vision.batch_queue import (
    BatchLimit,
    BatchQueue,
    BatchRequest,
    Item,
    Result,
    batch_delay_s,
    batch_size,
)

#: Most items of a pass that starts beside as many as may run: it is over soon, and adds little to
#: their memory.
EXPRESS_BATCH_SIZE: Final = 4


@dataclass(frozen=True)
class Seat:
    """Place of a model thread.

    Attributes:
        priority: Priority whose items it takes; ``None`` takes both.
        number: From 0; the first of a priority goes before the others.
    """

    priority: Priority | None
    number: int


class BatchSchedule(Generic[Item, Result]):
    """Queued and running requests, and the rules for the next pass; not thread-safe.

    No more passes run at once than there are streams. Where passes share cores, each priority has
    seats of its own, and an interactive pass may start beside as many bulk ones as may run.

    Attributes:
        queue: Requests that no pass has taken.
        running: Requests of each pass under way.
        limit: Batch size that is known to fit.
    """

    def __init__(
        self,
        *,
        streams: int,
        max_batch_size: int,
        longest_delay_s: float,
        is_mixed: bool,
        shares_cores: bool,
    ) -> None:
        """Prepare an empty schedule; see ``Batcher`` for the arguments."""
        self.queue: BatchQueue[Item, Result] = BatchQueue(is_mixed=is_mixed)
        self.running: dict[Seat, list[BatchRequest[Item, Result]]] = {}
        self.limit = BatchLimit(max_batch_size)
        self._coming = dict.fromkeys(Priority, 0)
        self._streams = streams
        self._longest_delay_s = longest_delay_s
        self._priorities = (Priority.INTERACTIVE, Priority.BULK) if shares_cores else (None,)

    @property
    def seats(self) -> Iterable[Seat]:
        """Seats of all model threads."""
        for priority in self._priorities:
            for number in range(self._streams):
                yield Seat(priority, number)

    @property
    def is_expecting(self) -> bool:
        """Return whether requests wait, or are on their way."""
        return any(self._coming.values()) or len(self.queue) > 0

    def announce(self, count: int, priority: Priority) -> None:
        """Expect *count* more requests, or fewer if it is negative."""
        self._coming[priority] = max(0, self._coming[priority] + count)

    def delay_s(self, seat: Seat) -> float | None:
        """Return the seconds after which the thread should take a batch; ``None`` if not for now.

        Nothing may be queued when it is 0.
        """
        if not self._is_turn_of(seat):
            return None
        if not (waiting := self.queue.count(seat.priority)):
            return None
        return batch_delay_s(
            waiting=waiting,
            coming=self._count_coming(seat.priority),
            running=self._count_running(seat.priority),
            enough=self.limit.current,
            waited_s=time.monotonic() - self.queue.oldest_queued_at(seat.priority),
            longest_s=self._longest_delay_s,
        )

    def take(self, seat: Seat) -> list[BatchRequest[Item, Result]]:
        """Take the next batch, which runs from now on; empty if all its callers gave up."""
        most = batch_size(
            waiting=self.queue.count(seat.priority),
            coming=self._count_coming(seat.priority),
            streams=self._streams,
            most=self.limit.current,
        )
        if self._are_streams_taken():
            most = min(most, EXPRESS_BATCH_SIZE)
        if batch := self.queue.take(most, seat.priority):
            self.running[seat] = batch
        return batch

    def _is_turn_of(self, seat: Seat) -> bool:
        """Return whether the thread may start a pass: the first one, or any beside another."""
        is_beside_another = self._count_running(seat.priority) > 0
        if seat.number > 0 and not is_beside_another:
            return False
        if seat.priority is None:
            return True
        if seat.priority == Priority.INTERACTIVE and self.running and not is_beside_another:
            return True  # beside bulk passes alone
        return self.queue.turn == seat.priority and not self._are_streams_taken()

    def _are_streams_taken(self) -> bool:
        return len(self.running) >= self._streams

    def _count_running(self, priority: Priority | None) -> int:
        return sum(seat.priority == priority for seat in self.running)

    def _count_coming(self, priority: Priority | None) -> int:
        return sum(self._coming.values()) if priority is None else self._coming[priority]
