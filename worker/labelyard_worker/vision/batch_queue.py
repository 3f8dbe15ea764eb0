"""Queue of requests for the model, and the rules for the next batch, without threads."""

import math
import time
from collections import OrderedDict, deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future, InvalidStateError
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from labelyard.queues import Priority
from labelyard_worker.spans import NO_SPAN, Span

Item = TypeVar("Item")
Result = TypeVar("Result")

# Of images that wait, at least every eighth is a bulk one: slow, but never for ever.
INTERACTIVE_IN_A_ROW = 7
# Smaller batches cost more for each image than what sharing them saves.
LEAST_WORTH_SHARING = 4
# Full batches without an error, after which a batch size that ran out of memory is
# tried again. What else used the memory may be gone; a wrong guess costs one halving.
GOOD_BATCHES_BEFORE_GROWTH = 256


@dataclass(frozen=True)
class BatchAnswer(Generic[Result]):
    """Result of one item, with the seconds that it took.

    Attributes:
        batch_size: Images in the forward pass that made it.
        wait_s: From submission to the start of that pass.
        model_s: Duration of that pass.
    """

    result: Result
    batch_size: int
    wait_s: float
    model_s: float


@dataclass(eq=False)
class BatchRequest(Generic[Item, Result]):
    """One caller's request for a result; answered exactly once."""

    item: Item
    priority: Priority
    span: Span = NO_SPAN
    tenant: str = ""
    queued_at: float = field(default_factory=time.monotonic)
    answer: "Future[BatchAnswer[Result]]" = field(default_factory=Future)

    def resolve(self, answer: BatchAnswer[Result]) -> None:
        """Answer with a result, unless ``close`` gave up on the request before."""
        with suppress(InvalidStateError):
            self.answer.set_result(answer)

    def reject(self, error: BaseException) -> None:
        """Answer with *error*, unless there was an answer."""
        with suppress(InvalidStateError):
            self.answer.set_exception(error)


class TenantTurns(Generic[Item, Result]):
    """Queued requests of one priority: tenants in turn, in order within a tenant.

    Each operation takes the same time however many tenants and requests there are.
    """

    def __init__(self) -> None:
        self._lines: OrderedDict[str, deque[BatchRequest[Item, Result]]] = OrderedDict()
        self._arrivals: OrderedDict[BatchRequest[Item, Result], None] = OrderedDict()

    def __len__(self) -> int:
        """Count the queued requests."""
        return len(self._arrivals)

    def append(self, call: BatchRequest[Item, Result]) -> None:
        """Queue a request behind the others of its tenant; a new tenant's turn is the last."""
        self._lines.setdefault(call.tenant, deque()).append(call)
        self._arrivals[call] = None

    def popleft(self) -> BatchRequest[Item, Result]:
        """Take the next request of the tenant whose turn it is."""
        tenant, line = next(iter(self._lines.items()))
        call = line.popleft()
        del self._arrivals[call]
        if line:
            self._lines.move_to_end(tenant)
        else:
            del self._lines[tenant]
        return call

    def oldest_queued_at(self) -> float:
        """Return the time at which the oldest request was queued; at least one is queued."""
        return next(iter(self._arrivals)).queued_at


class BatchQueue(Generic[Item, Result]):
    """Queue of requests: interactive before bulk, tenants in turn within each; bulk never starves.

    Args:
        is_mixed: Whether calls of both priorities go together. If not, an interactive batch
            is as small as it can be, and at least every eighth is a bulk one.
    """

    def __init__(self, *, is_mixed: bool = True) -> None:
        self._is_mixed = is_mixed
        self._lines: dict[Priority, TenantTurns[Item, Result]] = {
            priority: TenantTurns() for priority in Priority
        }
        self._in_a_row = 0

    def __len__(self) -> int:
        """Count the queued requests."""
        return sum(map(len, self._lines.values()))

    def count(self, priority: Priority | None) -> int:
        """Count the queued requests of a priority, or all."""
        return len(self) if priority is None else len(self._lines[priority])

    @property
    def turn(self) -> Priority:
        """Return the priority that the next batch begins with; at least one request is queued."""
        interactive, bulk = self._lines[Priority.INTERACTIVE], self._lines[Priority.BULK]
        is_bulks_turn = not interactive or self._in_a_row >= INTERACTIVE_IN_A_ROW
        return Priority.BULK if bulk and is_bulks_turn else Priority.INTERACTIVE

    def join(self, call: BatchRequest[Item, Result]) -> None:
        """Queue a request behind the others of its priority and tenant."""
        self._lines[call.priority].append(call)

    def take(self, most: int, priority: Priority | None = None) -> list[BatchRequest[Item, Result]]:
        """Take up to *most* requests, without those whose caller gave up.

        Args:
            priority: Whose requests to take; by default of whose turn it is.
        """
        taken: list[BatchRequest[Item, Result]] = []
        if priority is not None:
            if self.count(priority):
                self._note_turn(priority)
            self._fill(taken, most, self._lines[priority])
            return taken
        while len(taken) < most and len(self):
            self._note_turn(turn := self.turn)
            self._fill(taken, len(taken) + 1 if self._is_mixed else most, self._lines[turn])
            if taken and not self._is_mixed:
                break
        return taken

    def oldest_queued_at(self, priority: Priority | None = None) -> float:
        """Return the time at which the oldest request was queued."""
        lines = self._lines.values() if priority is None else [self._lines[priority]]
        return min(line.oldest_queued_at() for line in lines if line)

    def _fill(
        self, taken: list[BatchRequest[Item, Result]], most: int, line: TenantTurns[Item, Result]
    ) -> None:
        while len(taken) < most and line:
            call = line.popleft()
            if call.answer.set_running_or_notify_cancel():
                taken.append(call)

    def _note_turn(self, priority: Priority) -> None:
        if priority == Priority.BULK:
            self._in_a_row = 0
        elif self._lines[Priority.BULK]:
            self._in_a_row += 1


class BatchLimit:
    """The batch size that fits into memory, as far as is known."""

    def __init__(self, configured: int) -> None:
        self.configured = configured
        self.current = configured
        self._good = 0

    def ran_out(self, batch_size: int) -> None:
        """Remember that *batch_size* did not fit."""
        self.current = max(1, min(self.current, batch_size // 2))
        self._good = 0

    def went_well(self, batch_size: int) -> None:
        """Count a batch; after enough full ones, try twice the size again."""
        if self.current == self.configured or batch_size < self.current:
            return
        self._good += 1
        if self._good >= GOOD_BATCHES_BEFORE_GROWTH:
            self.current = min(self.configured, self.current * 2)
            self._good = 0


def batch_delay_s(
    *, waiting: int, coming: int, running: int, enough: int, waited_s: float, longest_s: float
) -> float:
    """Return the seconds that an idle model thread should wait for a fuller batch; 0 means start now.

    It only ever waits while another pass keeps the device busy, so that a lone
    image, or the first after a pause, starts at once.

    Args:
        waiting: Images that could be taken now, at least 1.
        coming: Images on their way through the intake.
        running: Forward passes under way.
        enough: Images that make a batch worth starting.
        waited_s: What the oldest has waited already.
        longest_s: Most that company is waited for, so that one slow download cannot
            hold the others up.
    """
    if running == 0 or coming == 0 or waiting >= enough:
        return 0.0
    return max(0.0, longest_s - waited_s)


def batch_size(*, waiting: int, coming: int, streams: int, most: int) -> int:
    """Return the size of the next batch.

    As many as may, while more are coming. The last ones are shared among all streams, so
    that none is at work alone for a whole batch while the others have nothing left.

    Args:
        waiting: Images that could be taken now.
        coming: Images on their way through the intake.
        streams: Forward passes that can run at once.
        most: Largest batch that is known to fit.
    """
    if coming > 0 or waiting <= LEAST_WORTH_SHARING:
        return most
    return min(most, max(LEAST_WORTH_SHARING, math.ceil(waiting / streams)))


def run_batch(
    run_model: Callable[[Sequence[Item]], Sequence[Result]],
    batch: Sequence[BatchRequest[Item, Result]],
) -> Sequence[Result]:
    """Run the model over a batch, and check that there is a result for each item.

    Raises:
        RuntimeError: The model gave another number of results.
    """
    results = run_model([request.item for request in batch])
    if len(results) != len(batch):
        raise RuntimeError(f"the model gave {len(results)} results for {len(batch)} items")
    return results


def reject_all(requests: Sequence[BatchRequest[Item, Result]], error: BaseException) -> None:
    """Answer all requests with *error*."""
    for request in requests:
        request.reject(error)
