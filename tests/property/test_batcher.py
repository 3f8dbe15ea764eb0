"""Any mix of callers, failures and priorities: every caller is answered, once, in fair order."""

import threading
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from itertools import count
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from labelyard.errors import DeviceFailedError
from labelyard.queues import Priority
from labelyard_worker.vision.batch_queue import (
    GOOD_BATCHES_BEFORE_GROWTH,
    INTERACTIVE_IN_A_ROW,
    LEAST_WORTH_SHARING,
    BatchLimit,
    BatchQueue,
    BatchRequest,
    batch_delay_s,
    batch_size,
)
from labelyard_worker.vision.batcher import Batcher

PRIORITIES = st.sampled_from([Priority.INTERACTIVE, Priority.BULK])


def line_of(priorities: Sequence[Priority]) -> BatchQueue[int, int]:
    """Queue numbered calls with these priorities."""
    line: BatchQueue[int, int] = BatchQueue()
    for number, priority in enumerate(priorities):
        line.join(BatchRequest(number, priority))
    return line


def drained(line: BatchQueue[int, int], sizes: Sequence[int]) -> list[list[BatchRequest[int, int]]]:
    """Take batches of these sizes, over and over, until nobody waits."""
    batches: list[list[BatchRequest[int, int]]] = []
    while len(line):
        batches.append(line.take(sizes[len(batches) % len(sizes)]))
    return batches


SIZES = st.lists(st.integers(1, 8), min_size=1, max_size=4)


@given(priorities=st.lists(PRIORITIES, max_size=60), sizes=SIZES)
def test_batches_lose_nobody_and_stay_in_bounds(
    priorities: list[Priority], sizes: list[int]
) -> None:
    """Any line, cut at any sizes, comes out whole."""
    batches = drained(line_of(priorities), sizes)

    assert sorted(call.item for batch in batches for call in batch) == list(range(len(priorities)))
    assert all(len(batch) <= max(sizes) for batch in batches)


@given(priorities=st.lists(PRIORITIES, max_size=60), sizes=SIZES)
def test_within_a_priority_the_first_to_come_goes_first(
    priorities: list[Priority], sizes: list[int]
) -> None:
    order = [call for batch in drained(line_of(priorities), sizes) for call in batch]

    for priority in (Priority.INTERACTIVE, Priority.BULK):
        items = [call.item for call in order if call.priority == priority]
        assert items == sorted(items)


@given(
    tenants=st.lists(st.sampled_from("abcd"), max_size=80),
    arriving=st.lists(st.sampled_from("abcd"), max_size=40),
)
def test_tenants_take_turns_and_keep_their_own_order(
    tenants: list[str], arriving: list[str]
) -> None:
    """Of two tenants with images queued, neither is served twice before the other."""
    numbers = count()
    queue: BatchQueue[int, int] = BatchQueue()
    queued: list[BatchRequest[int, int]] = []
    served: list[BatchRequest[int, int]] = []

    def join(tenant: str) -> None:
        queued.append(BatchRequest(next(numbers), Priority.BULK, tenant=tenant))
        queue.join(queued[-1])

    for tenant in tenants:
        join(tenant)
    ahead: Counter[tuple[str, str]] = Counter()  # of the first tenant, since the second's turn
    while len(queue):
        assert queue.oldest_queued_at() == min(call.queued_at for call in queued)
        [call] = queue.take(1)
        queued.remove(call)
        served.append(call)
        for other in "abcd":
            is_waiting = any(one.tenant == other for one in queued)
            ahead[call.tenant, other] += is_waiting
            ahead[other, call.tenant] = 0
            assert other == call.tenant or ahead[call.tenant, other] <= 1
        if arriving:
            join(arriving.pop())

    assert len(served) == next(numbers)
    for tenant in "abcd":
        items = [call.item for call in served if call.tenant == tenant]
        assert items == sorted(items)


@given(interactive=st.integers(0, 40), bulk=st.integers(0, 40), sizes=SIZES)
def test_interactive_goes_before_bulk_but_not_for_ever(
    interactive: int, bulk: int, sizes: list[int]
) -> None:
    """While both wait, every eighth is a bulk one."""
    first: list[Priority] = [Priority.BULK] * bulk
    then: list[Priority] = [Priority.INTERACTIVE] * interactive
    line = line_of([*first, *then])

    order = [call.priority for batch in drained(line, sizes) for call in batch]

    expected = []
    while interactive or bulk:
        in_a_row = min(interactive, INTERACTIVE_IN_A_ROW)
        expected += [Priority.INTERACTIVE] * in_a_row + [Priority.BULK] * min(bulk, 1)
        interactive, bulk = interactive - in_a_row, max(0, bulk - 1)
    assert order == expected


@given(given_up=st.sets(st.integers(0, 29)), size=st.integers(1, 8))
def test_callers_that_gave_up_take_no_place_in_a_batch(given_up: set[int], size: int) -> None:
    line: BatchQueue[int, int] = BatchQueue()
    calls: list[BatchRequest[int, int]] = [
        BatchRequest(number, Priority.BULK) for number in range(30)
    ]
    for call in calls:
        line.join(call)
    for number in given_up:
        calls[number].answer.cancel()

    batches = drained(line, [size])

    taken = [call.item for batch in batches for call in batch]
    assert taken == [number for number in range(30) if number not in given_up]
    assert all(len(batch) == size for batch in batches[:-1] if sum(map(len, batches)) > size)


@given(
    waiting=st.integers(1, 200),
    coming=st.integers(0, 50),
    streams=st.integers(1, 4),
    most=st.integers(1, 64),
)
def test_the_last_images_are_shared_among_the_streams(
    waiting: int, coming: int, streams: int, most: int
) -> None:
    """A batch is as large as may be while more come, then one stream's share of what is left."""
    size = batch_size(waiting=waiting, coming=coming, streams=streams, most=most)

    assert 1 <= size <= most
    if coming or waiting >= streams * most:
        assert size == most
    else:
        assert size >= min(most, waiting, LEAST_WORTH_SHARING)
        assert (
            size * streams < waiting + streams
            or size == min(most, LEAST_WORTH_SHARING)
            or (waiting <= LEAST_WORTH_SHARING)
        )


@given(
    waiting=st.integers(1, 64),
    coming=st.integers(0, 64),
    running=st.integers(0, 4),
    enough=st.integers(1, 64),
    waited_s=st.floats(0, 10),
)
def test_company_is_waited_for_only_while_the_device_is_busy_and_never_past_the_limit(
    waiting: int, coming: int, running: int, enough: int, waited_s: float
) -> None:
    wait_s = batch_delay_s(
        waiting=waiting,
        coming=coming,
        running=running,
        enough=enough,
        waited_s=waited_s,
        longest_s=0.04,
    )

    assert 0 <= wait_s <= max(0.0, 0.04 - waited_s)
    if running == 0 or coming == 0 or waiting >= enough:
        assert wait_s == 0


@given(configured=st.integers(1, 256), sizes=st.lists(st.integers(1, 256), max_size=20))
def test_a_size_that_ran_out_of_memory_is_never_tried_again_at_once(
    configured: int, sizes: list[int]
) -> None:
    limit = BatchLimit(configured)

    for size in sizes:
        limit.ran_out(size)

        assert 1 <= limit.current <= max(1, size // 2)
        assert limit.current <= configured


@given(configured=st.integers(1, 64), ran_out=st.integers(1, 64))
def test_a_size_that_ran_out_of_memory_is_tried_again_after_many_good_batches(
    configured: int, ran_out: int
) -> None:
    limit = BatchLimit(configured)
    limit.ran_out(ran_out)
    before = limit.current

    for _ in range(GOOD_BATCHES_BEFORE_GROWTH):
        limit.went_well(before)

    assert limit.current == min(configured, before * 2 if before < configured else before)


class FragileModel:
    """Squares numbers; fails on some, and on batches that do not fit."""

    def __init__(self, *, bad: frozenset[int], fits: int) -> None:
        self.bad = bad
        self.fits = fits
        self.seen: list[int] = []
        self._lock = threading.Lock()

    def __call__(self, items: Sequence[int]) -> list[int]:
        """Run one pass."""
        if len(items) > self.fits:
            raise RuntimeError("CUDA out of memory. Tried to allocate 2.00 GiB.")
        if self.bad & set(items):
            raise ValueError("a bad one")
        with self._lock:
            self.seen += items
        return [item * item for item in items]


@contextmanager
def running(batcher: Batcher[int, int]) -> Any:
    """Start, and close at the end."""
    batcher.start()
    try:
        yield batcher
    finally:
        batcher.close(timeout_s=5)


def outcome(answer: "Future[Any]") -> Any:
    """Wait for the answer: the result, or the error's class."""
    error = answer.exception(timeout=5)
    return type(error) if error else answer.result().result


@settings(deadline=None)
@given(
    jobs=st.lists(PRIORITIES, min_size=1, max_size=40),
    bad=st.frozensets(st.integers(0, 39), max_size=5),
    fits=st.integers(1, 40),
    streams=st.integers(1, 3),
    max_batch_size=st.integers(1, 16),
    shares_cores=st.booleans(),
)
def test_each_caller_gets_its_own_answer_whatever_fails_beside_it(
    jobs: list[Priority],
    bad: frozenset[int],
    fits: int,
    streams: int,
    max_batch_size: int,
    shares_cores: bool,
) -> None:
    """Only the bad ones fail; what fits no more is halved; nothing is computed twice."""
    model = FragileModel(bad=bad, fits=fits)
    batcher: Batcher[int, int] = Batcher(
        model,
        max_batch_size=max_batch_size,
        queue_capacity=100,
        streams=streams,
        longest_delay_s=0.002,
        shares_cores=shares_cores,
    )
    for job in jobs:
        batcher.announce(1, priority=job)

    with running(batcher):
        answers = [batcher.submit(number, priority=job) for number, job in enumerate(jobs)]
        outcomes = [outcome(answer) for answer in answers]

    assert outcomes == [
        ValueError if number in bad else number * number for number in range(len(jobs))
    ]
    assert sorted(model.seen) == [number for number in range(len(jobs)) if number not in bad]
    assert batcher.images == len(model.seen)


@settings(deadline=None)
@given(
    count=st.integers(0, 20),
    cancelled=st.sets(st.integers(0, 19)),
    error=st.sampled_from([SystemExit, KeyboardInterrupt, GeneratorExit]),
)
def test_nobody_waits_on_a_thread_that_died(
    count: int, cancelled: set[int], error: type[BaseException]
) -> None:
    """Any exception that escapes the model ends the batcher, and fails every call."""
    gate = threading.Event()

    def die(items: Sequence[int]) -> list[int]:
        gate.wait(5)
        raise error

    batcher: Batcher[int, int] = Batcher(die, max_batch_size=4, queue_capacity=100)
    with running(batcher):
        answers = [batcher.submit(number, priority=Priority.BULK) for number in range(count + 1)]
        for number in cancelled & set(range(count)):
            answers[number].cancel()
        gate.set()

        assert all(answer.cancelled() or outcome(answer) is DeviceFailedError for answer in answers)
        assert not batcher.is_alive


@pytest.mark.parametrize("streams", [1, 3])
def test_a_batcher_that_is_closed_twice_stays_closed(streams: int) -> None:
    batcher: Batcher[int, int] = Batcher(
        lambda items: list(items), max_batch_size=4, queue_capacity=9, streams=streams
    )
    batcher.start()

    batcher.close(timeout_s=5)
    batcher.close(timeout_s=5)

    assert not batcher.is_alive
