"""Batcher: items of many callers become forward passes of few model threads."""

import logging
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from typing import Generic

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
    BatchRequest,
    Item,
    Result,
    reject_all,
    run_batch,
)
from labelyard_worker.vision.batch_schedule import BatchSchedule, Seat
from labelyard_worker.vision.forward_passes import ForwardPass, PassItem

log = logging.getLogger(__name__)


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
        self._run_model = run_model
        self._queue_capacity = queue_capacity
        self._on_pass = on_pass
        self._schedule: BatchSchedule[Item, Result] = BatchSchedule(
            streams=streams,
            max_batch_size=max_batch_size,
            longest_delay_s=longest_delay_s,
            is_mixed=is_mixed,
            shares_cores=shares_cores,
        )
        self.limit = self._schedule.limit
        self._changed = threading.Condition()
        self._is_closing = False
        self._pass_started_at: dict[int, float] = {}  # by model thread
        self._threads = {seat: self._thread_of(seat, name) for seat in self._schedule.seats}

    def _thread_of(self, seat: Seat, name: str) -> threading.Thread:
        name = f"{name}-bulk" if seat.priority == Priority.BULK else name
        name = f"{name}-{seat.number}"
        return threading.Thread(target=self._serve, args=(seat,), name=name, daemon=True)

    @property
    def is_alive(self) -> bool:
        """Return whether submitted items will be answered by the model."""
        return self.failed is None and all(thread.is_alive() for thread in self._threads.values())

    @property
    def waiting(self) -> int:
        """Items that no batch has taken yet."""
        return len(self._schedule.queue)

    @property
    def is_expecting(self) -> bool:
        """Return whether items wait, or are on their way."""
        return self._schedule.is_expecting

    @property
    def leaves_cores(self) -> bool:
        """Return whether the calling thread's pass should leave cores to others, even if alone.

        It should if more items will follow, whose intake needs them. A pass of bulk items always
        does where they have threads of their own: only one thread may keep a team as large as
        the machine.
        """
        if self.is_expecting:
            return True
        bulk = (thread for seat, thread in self._threads.items() if seat.priority == Priority.BULK)
        return threading.current_thread() in bulk

    @property
    def busy_for_s(self) -> float:
        """Seconds that the longest present forward pass has been running; 0 when idle."""
        starts = list(self._pass_started_at.values())
        return time.monotonic() - min(starts) if starts else 0.0

    def start(self) -> None:
        """Start the model threads."""
        for thread in self._threads.values():
            thread.start()

    def announce(self, count: int, *, priority: Priority) -> None:
        """Announce *count* items that are on their way; each ``submit`` takes one off."""
        with self._changed:
            self._schedule.announce(count, priority)

    def retract(self, count: int, *, priority: Priority) -> None:
        """Retract *count* announced items, which will not come."""
        with self._changed:
            self._schedule.announce(-count, priority)
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
            self._schedule.announce(-1, priority)
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
            if len(self._schedule.queue) + len(items) > self._queue_capacity:
                raise BatcherFullError(f"{self._queue_capacity} images wait for the model")
            calls: list[BatchRequest[Item, Result]] = [
                BatchRequest(item, priority, span, tenant) for item in items
            ]
            for call in calls:
                self._schedule.queue.join(call)
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
        for thread in self._threads.values():
            if thread.ident is not None:
                thread.join(max(0.0, deadline - time.monotonic()))
        with self._changed:
            stuck = [call for batch in self._schedule.running.values() for call in batch]
        reject_all(stuck, TransientError("the worker stopped before the model answered"))

    def _serve(self, seat: Seat) -> None:
        """Run batches until closed; if the thread dies, all its callers get the error."""
        if seat.priority == Priority.BULK:
            let_others_go_first()
        batch: list[BatchRequest[Item, Result]] = []
        try:
            while batch := self._next_batch(seat):
                self._run(batch)
                with self._changed:
                    del self._schedule.running[seat]
                    self._changed.notify_all()  # a thread that waits for a fuller batch may start alone
        except BaseException as error:  # noqa: BLE001 - any error must reach the callers
            self._fail(error, batch)

    def _next_batch(self, seat: Seat) -> list[BatchRequest[Item, Result]]:
        """Wait for work; an empty list means that it is time to end."""
        with self._changed:
            while not self._is_closing and self.failed is None:
                delay_s = self._schedule.delay_s(seat)
                if delay_s != 0:
                    self._changed.wait(delay_s)
                elif batch := self._schedule.take(seat):
                    self._changed.notify_all()  # the other threads may start
                    return batch
        return []

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
            waiting = self._schedule.queue.take(len(self._schedule.queue))
            self._changed.notify_all()
        reject_all(waiting, error)
