"""Batcher: items of many callers become forward passes of few model threads."""

import logging
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from typing import Final, Generic

from labelyard.errors import (
    BatcherFullError,
    DeviceFailedError,
    LabelyardError,
    TransientError,
    WorkerError,
)
from labelyard.queues import Priority
from labelyard_worker.cpu_budget import let_others_go_first
from labelyard_worker.metrics import OUT_OF_MEMORY
from labelyard_worker.spans import NO_SPAN, Span
from labelyard_worker.vision import devices
from labelyard_worker.vision.batch_queue import (
    BatchAnswer,
    BatchLimit,
    BatchQueue,
    BatchRequest,
    Item,
    Result,
    batch_delay_s,
    batch_size,
    reject_all,
    run_batch,
)
from labelyard_worker.vision.forward_passes import ForwardPass, PassItem

log = logging.getLogger(__name__)

#: Most items of a pass that starts beside as many as may run: it is over soon, and adds little to
#: their memory.
EXPRESS_BATCH_SIZE: Final = 4


class Batcher(Generic[Item, Result]):
    """Collects items of many callers, and runs the model over what waits.

    Work-conserving: an idle device starts the queued items at once, a busy one lets the
    next batch fill. The first model thread goes first, because it alone gets all cores; the
    others take the items that come while it is busy. Where passes share cores, bulk items have
    threads of their own, which let others go first, and an interactive pass starts beside as many
    of theirs as may run: a pass of bulk items lasts longer than anybody should wait. A batch that fails is halved, so that
    one bad item costs only its own caller. Out of memory, it is halved too, and the size is
    remembered.

    Attributes:
        failed: Error after which no batch can run, or ``None``; the worker must end.
        batches: Forward passes that gave results.
        images: Results given.
        limit: Batch size that is known to fit.
    """

    def __init__(
        self,
        run_model: Callable[[Sequence[Item]], Sequence[Result]],
        *,
        max_batch_size: int,
        queue_capacity: int,
        streams: int = 1,
        longest_delay_s: float = 0.040,
        on_pass: Callable[[ForwardPass], None] = lambda _: None,
        is_mixed: bool = True,
        shares_cores: bool = False,
        name: str = "model",
    ) -> None:
        """Prepare; nothing runs before ``start``.

        Args:
            run_model: One result for each item, in their order. Called from
                *streams* threads.
            max_batch_size: Most items in one call of it.
            queue_capacity: Items that may wait; past it ``submit`` refuses.
            streams: Calls of *run_model* at once.
            longest_delay_s: Most seconds that a thread waits for images that were
                announced, while another thread keeps the device busy.
            on_pass: Called with each forward pass, failed ones too, for metrics and traces.
            is_mixed: Whether interactive and bulk items share batches.
            shares_cores: Whether passes use the cores that the process has: then interactive
                items have threads and batches of their own.
            name: Of the threads, with a number behind it.
        """
        self.failed: BaseException | None = None
        self.batches = 0
        self.images = 0
        self.limit = BatchLimit(max_batch_size)
        self._run_model = run_model
        self._queue_capacity = queue_capacity
        self._longest_delay_s = longest_delay_s
        self._on_pass = on_pass
        self._line: BatchQueue[Item, Result] = BatchQueue(is_mixed=is_mixed)
        self._coming = dict.fromkeys(Priority, 0)
        self._changed = threading.Condition()
        self._is_closing = False
        self._taken: dict[int, list[BatchRequest[Item, Result]]] = {}  # by model thread
        self._pass_started_at: dict[int, float] = {}  # by model thread
        self._streams = streams
        lanes = [Priority.INTERACTIVE, Priority.BULK] if shares_cores else [None]
        self._lanes = [_Lane(priority, name, streams, serve=self._serve) for priority in lanes]

    @property
    def is_alive(self) -> bool:
        """Return whether submitted items will be answered by the model."""
        return self.failed is None and all(thread.is_alive() for thread in self._threads())

    @property
    def waiting(self) -> int:
        """Items that no batch has taken yet."""
        return len(self._line)

    @property
    def is_expecting(self) -> bool:
        """Return whether items wait, or are on their way."""
        return any(self._coming.values()) or len(self._line) > 0

    @property
    def leaves_cores(self) -> bool:
        """Return whether the calling thread's pass should leave cores to others, even if alone.

        It should if more items will follow, whose intake needs them. A pass of bulk items always
        does where they have threads of their own: only one thread may keep a team as large as
        the machine.
        """
        return self.is_expecting or threading.current_thread() not in self._lanes[0].threads

    @property
    def busy_for_s(self) -> float:
        """Seconds that the longest present forward pass has been running; 0 when idle."""
        starts = list(self._pass_started_at.values())
        return time.monotonic() - min(starts) if starts else 0.0

    def start(self) -> None:
        """Start the model threads."""
        for thread in self._threads():
            thread.start()

    def announce(self, count: int, *, priority: Priority) -> None:
        """Announce *count* items that are on their way; each ``submit`` takes one off."""
        with self._changed:
            self._coming[priority] += count

    def retract(self, count: int, *, priority: Priority) -> None:
        """Retract *count* announced items, which will not come."""
        with self._changed:
            self._coming[priority] = max(0, self._coming[priority] - count)
            self._changed.notify_all()

    def submit(
        self, item: Item, *, priority: Priority, span: Span = NO_SPAN, tenant: str = ""
    ) -> "Future[BatchAnswer[Result]]":
        """Queue *item*; cancel the future to take it back.

        Args:
            span: Span that the item's forward pass is linked with.
            tenant: Tenant whose turn it takes.

        Raises:
            BatcherFullError: *queue_capacity* items wait already.
            DeviceFailedError: The model cannot run any more.
            TransientError: The batcher is closed.
        """
        with self._changed:
            self._coming[priority] = max(0, self._coming[priority] - 1)
        return self.submit_all([item], priority=priority, span=span, tenant=tenant)[0]

    def submit_all(
        self,
        items: Sequence[Item],
        *,
        priority: Priority,
        span: Span = NO_SPAN,
        tenant: str = "",
    ) -> "list[Future[BatchAnswer[Result]]]":
        """Queue *items*, none or all, so that an idle thread takes them together.

        Raises:
            LabelyardError: As ``submit``.
        """
        with self._changed:
            if self.failed is not None:
                raise DeviceFailedError(str(self.failed))
            if self._is_closing:
                raise TransientError("the worker is stopping")
            if len(self._line) + len(items) > self._queue_capacity:
                raise BatcherFullError(f"{self._queue_capacity} images wait for the model")
            calls: list[BatchRequest[Item, Result]] = [
                BatchRequest(item, priority, span, tenant) for item in items
            ]
            for call in calls:
                self._line.join(call)
            self._changed.notify_all()
            return [call.answer for call in calls]

    def close(self, *, timeout_s: float) -> None:
        """Stop after the present batches, and answer all queued items with an error.

        Args:
            timeout_s: Seconds to wait for the present batches. One that takes longer
                hangs in native code: its callers get an error, and only the end of
                the process will end it.
        """
        with self._changed:
            self._is_closing = True
        self._reject_waiting(TransientError("the worker is stopping"))
        deadline = time.monotonic() + timeout_s
        for thread in self._threads():
            if thread.ident is not None:
                thread.join(max(0.0, deadline - time.monotonic()))
        with self._changed:
            stuck = [call for batch in self._taken.values() for call in batch]
        reject_all(stuck, TransientError("the worker stopped before the model answered"))

    def _threads(self) -> Iterator[threading.Thread]:
        for lane in self._lanes:
            yield from lane.threads

    def _serve(self, lane: "_Lane") -> None:
        """Run batches until closed; if the thread dies, all its callers get the error."""
        if lane.priority == Priority.BULK:
            let_others_go_first()
        me = threading.get_ident()
        batch: list[BatchRequest[Item, Result]] = []
        try:
            while batch := self._next_batch(lane, me):
                self._run(batch)
                with self._changed:
                    del self._taken[me]
                    self._changed.notify_all()  # a thread that waits for a fuller batch may start alone
        except BaseException as error:  # noqa: BLE001 - any error must reach the callers
            self._fail(error, batch)

    def _next_batch(self, lane: "_Lane", me: int) -> list[BatchRequest[Item, Result]]:
        """Wait for work; an empty list means that it is time to end."""
        with self._changed:
            while not self._is_closing and self.failed is None:
                if not self._is_turn_of(lane, me):
                    self._changed.wait()
                    continue
                wait_s = self._wait_s(lane)
                if wait_s == 0 and (batch := self._line.take(self._size(lane), lane.priority)):
                    self._taken[me] = batch
                    self._changed.notify_all()  # the other threads may start
                    return batch
                self._changed.wait(wait_s or None)
        return []

    def _size(self, lane: "_Lane") -> int:
        """Return the size of the next batch."""
        size = batch_size(
            waiting=self._line.count(lane.priority),
            coming=self._count_coming(lane),
            streams=self._streams,
            most=self.limit.current,
        )
        return min(size, EXPRESS_BATCH_SIZE) if self._are_streams_taken() else size

    def _is_turn_of(self, lane: "_Lane", me: int) -> bool:
        """Return whether the thread may start a batch.

        The first thread of a lane may, or any beside another one of the lane. Where lanes are
        divided, no more passes run at once than there are streams, but for an interactive one
        beside bulk ones alone.
        """
        is_beside_another = self._count_running(lane) > 0
        if me != lane.threads[0].ident and not is_beside_another:
            return False
        if lane.priority is None:
            return True
        if lane.priority == Priority.INTERACTIVE and not is_beside_another:
            return True
        is_bulks_turn = len(self._line) > 0 and self._line.turn == Priority.BULK
        is_turn = is_bulks_turn == (lane.priority == Priority.BULK)
        return is_turn and not self._are_streams_taken()

    def _are_streams_taken(self) -> bool:
        return len(self._taken) >= self._streams

    def _count_running(self, lane: "_Lane") -> int:
        return sum(thread.ident in self._taken for thread in lane.threads)

    def _count_coming(self, lane: "_Lane") -> int:
        coming = self._coming
        return sum(coming.values()) if lane.priority is None else coming[lane.priority]

    def _wait_s(self, lane: "_Lane") -> float:
        if not (waiting := self._line.count(lane.priority)):
            return 0.0
        return batch_delay_s(
            waiting=waiting,
            coming=self._count_coming(lane),
            running=self._count_running(lane),
            enough=self.limit.current,
            waited_s=time.monotonic() - self._line.oldest_queued_at(lane.priority),
            longest_s=self._longest_delay_s,
        )

    def _run(self, batch: list[BatchRequest[Item, Result]]) -> None:
        """Answer *batch*, in halves where the whole fails."""
        started_at = time.monotonic()
        error: Exception | None = None
        self._pass_started_at[threading.get_ident()] = started_at
        try:
            results = run_batch(self._run_model, batch)
        except Exception as raised:  # noqa: BLE001 - any error must reach the callers
            error = raised.with_traceback(None)  # a traceback holds on to device memory
        finally:
            del self._pass_started_at[threading.get_ident()]
        items = tuple(PassItem(request.span, request.queued_at) for request in batch)
        done = ForwardPass(items, self.limit.configured, started_at, time.monotonic(), error)
        self._on_pass(done)
        if error is None:
            self._resolve(batch, results, done)
        else:
            self._recover(batch, error)

    def _resolve(
        self, batch: list[BatchRequest[Item, Result]], results: Sequence[Result], done: ForwardPass
    ) -> None:
        with self._changed:
            self.batches += 1
            self.images += len(batch)
            self.limit.went_well(len(batch))
        for call, result in zip(batch, results, strict=True):
            wait_s = done.started_at - call.queued_at
            call.resolve(BatchAnswer(result, len(batch), wait_s, done.model_s))

    def _recover(self, batch: list[BatchRequest[Item, Result]], error: Exception) -> None:
        """Fail the device or the one item at fault, or retry the batch in two halves.

        Raises:
            DeviceFailedError: The device is lost.
        """
        if isinstance(error, WorkerError) or devices.is_device_lost(error):
            raise DeviceFailedError(devices.first_line(error)) from error
        if devices.is_out_of_memory(error):
            error = BatcherFullError("the device has no memory left for a single image")
            with self._changed:
                self.limit.ran_out(len(batch))
            devices.free_cached_memory()
            OUT_OF_MEMORY.inc()
            log.warning("out_of_memory", extra={"fields": {"batch_size": len(batch)}})
        if len(batch) == 1:
            batch[0].reject(error)
            return
        middle = len(batch) // 2
        self._run(batch[:middle])
        self._run(batch[middle:])

    def _fail(self, error: BaseException, batch: list[BatchRequest[Item, Result]]) -> None:
        """Answer all callers with the error, and refuse new items."""
        with self._changed:
            self.failed = error
            self._changed.notify_all()
        log.error("model_thread_died", extra={"fields": {"error": devices.first_line(error)}})
        reject_all(batch, DeviceFailedError(devices.first_line(error)))
        self._reject_waiting(DeviceFailedError(devices.first_line(error)))

    def _reject_waiting(self, error: LabelyardError) -> None:
        with self._changed:
            waiting = self._line.take(len(self._line))
            self._changed.notify_all()
        reject_all(waiting, error)


class _Lane:
    """Model threads that take the items of one priority, or of both."""

    def __init__(
        self,
        priority: Priority | None,
        name: str,
        count: int,
        *,
        serve: "Callable[[_Lane], None]",
    ) -> None:
        self.priority = priority
        if priority == Priority.BULK:
            name = f"{name}-bulk"
        self.threads = [
            threading.Thread(target=serve, args=(self,), name=f"{name}-{number}", daemon=True)
            for number in range(count)
        ]
