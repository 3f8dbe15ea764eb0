"""The batcher's calls: answers, refusals, and an orderly end."""

import os
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from typing import Any

import pytest
import torch

from labelyard.errors import BatcherFullError, DeviceFailedError, TransientError
from labelyard.queues import Priority
from labelyard_worker.vision.batch_queue import INTERACTIVE_IN_A_ROW
from labelyard_worker.vision.batch_schedule import EXPRESS_BATCH_SIZE
from labelyard_worker.vision.batcher import Batcher
from tests.support.waiting import wait_until

StartBatcher = Callable[..., Batcher[int, int]]


class GatedModel:
    """Doubles numbers, once the test lets it."""

    def __init__(self) -> None:
        self.batches: list[list[int]] = []
        self.gate = threading.Semaphore(0)

    def __call__(self, items: Sequence[int]) -> list[int]:
        """Run one pass, when the gate is passed."""
        self.batches.append(list(items))
        assert self.gate.acquire(timeout=5)
        return [2 * item for item in items]

    def let_pass(self, batches: int = 1) -> None:
        """Let *batches* forward passes end."""
        self.gate.release(batches)


@pytest.fixture
def model() -> GatedModel:
    return GatedModel()


@pytest.fixture
def start() -> Iterator[StartBatcher]:
    """Start batchers that are closed at the end of the test."""
    started: list[Batcher[int, int]] = []

    def start(run_model: Any, **options: Any) -> Batcher[int, int]:
        options = {"max_batch_size": 4, "queue_capacity": 8, **options}
        batcher: Batcher[int, int] = Batcher(run_model, **options)
        batcher.start()
        started.append(batcher)
        return batcher

    yield start

    for batcher in started:
        batcher.close(timeout_s=5)


def results(answers: Sequence["Future[Any]"]) -> list[int]:
    """Wait for the answers."""
    return [answer.result(timeout=5).result for answer in answers]


def test_a_lone_item_goes_at_once_and_the_next_batch_fills_meanwhile(
    model: GatedModel, start: StartBatcher
) -> None:
    batcher = start(model)
    first = batcher.submit(1, priority=Priority.INTERACTIVE)
    wait_until(lambda: model.batches == [[1]])

    others = [batcher.submit(number, priority=Priority.INTERACTIVE) for number in range(2, 8)]
    model.let_pass(3)

    assert results([first, *others]) == [2, 4, 6, 8, 10, 12, 14]
    assert model.batches == [[1], [2, 3, 4, 5], [6, 7]]
    assert (batcher.batches, batcher.images) == (3, 7)


def test_an_answer_says_how_it_was_batched(model: GatedModel, start: StartBatcher) -> None:
    sizes: list[int] = []
    batcher = start(model, on_pass=lambda done: sizes.append(done.size))
    batcher.submit(1, priority=Priority.BULK)
    wait_until(lambda: model.batches)
    answers = [batcher.submit(number, priority=Priority.BULK) for number in (2, 3)]

    model.let_pass(2)

    answer = answers[0].result(timeout=5)
    assert (answer.result, answer.batch_size) == (4, 2)
    assert answer.wait_s >= 0
    assert answer.model_s >= 0
    assert sizes == [1, 2]


def test_a_full_batcher_refuses_and_takes_again_when_there_is_room(
    model: GatedModel, start: StartBatcher
) -> None:
    batcher = start(model, queue_capacity=2)
    batcher.submit(1, priority=Priority.BULK)
    wait_until(lambda: model.batches)
    batcher.submit(2, priority=Priority.BULK)
    batcher.submit(3, priority=Priority.BULK)

    with pytest.raises(BatcherFullError, match="2 images wait"):
        batcher.submit(4, priority=Priority.BULK)

    assert batcher.waiting == 2
    model.let_pass(3)
    wait_until(lambda: batcher.waiting == 0)
    assert results([batcher.submit(5, priority=Priority.BULK)]) == [10]


def test_a_second_stream_waits_for_images_that_are_announced(
    model: GatedModel, start: StartBatcher
) -> None:
    batcher = start(model, streams=2, longest_delay_s=5)
    batcher.announce(4, priority=Priority.BULK)
    answers = [batcher.submit(1, priority=Priority.BULK)]
    wait_until(lambda: model.batches == [[1]])

    answers += [batcher.submit(number, priority=Priority.BULK) for number in (2, 3)]
    assert model.batches == [[1]]
    answers.append(batcher.submit(4, priority=Priority.BULK))  # the last that was announced

    wait_until(lambda: model.batches == [[1], [2, 3, 4]])
    model.let_pass(2)
    assert results(answers) == [2, 4, 6, 8]


def test_lone_items_go_to_the_first_stream_and_the_second_takes_what_comes_beside_them(
    model: GatedModel, start: StartBatcher
) -> None:
    threads: list[str] = []

    def run_model(items: Sequence[int]) -> list[int]:
        threads.append(threading.current_thread().name)
        return model(items)

    batcher = start(run_model, streams=2, longest_delay_s=0)
    model.let_pass(10)
    for number in range(10):
        results([batcher.submit(number, priority=Priority.BULK)])
    alone, threads[:] = threads[:], []
    answers = [batcher.submit(1, priority=Priority.BULK)]
    wait_until(lambda: len(threads) == 1)

    answers.append(batcher.submit(2, priority=Priority.BULK))
    wait_until(lambda: len(threads) == 2)

    assert alone == ["model-0"] * 10
    assert threads == ["model-0", "model-1"]
    model.let_pass(2)
    assert results(answers) == [2, 4]


def test_images_that_will_not_come_are_not_waited_for(
    model: GatedModel, start: StartBatcher
) -> None:
    batcher = start(model, streams=2, longest_delay_s=5)
    batcher.announce(3, priority=Priority.BULK)
    answers = [batcher.submit(1, priority=Priority.BULK)]
    wait_until(lambda: model.batches == [[1]])
    answers.append(batcher.submit(2, priority=Priority.BULK))

    batcher.retract(1, priority=Priority.BULK)

    wait_until(lambda: model.batches == [[1], [2]])
    model.let_pass(2)
    assert results(answers) == [2, 4]


def test_images_that_take_too_long_are_not_waited_for(
    model: GatedModel, start: StartBatcher
) -> None:
    batcher = start(model, streams=2, longest_delay_s=0.01)
    batcher.announce(10, priority=Priority.BULK)
    answers = [batcher.submit(number, priority=Priority.BULK) for number in (1, 2)]

    wait_until(lambda: sum(map(len, model.batches)) == 2)

    model.let_pass(2)
    assert results(answers) == [2, 4]


def test_out_of_memory_fails_nobody_and_is_remembered(start: StartBatcher) -> None:
    sizes: list[int] = []

    def small(items: Sequence[int]) -> list[int]:
        sizes.append(len(items))
        if len(items) > 2:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20 MiB")
        return list(items)

    batcher = start(small, max_batch_size=8, queue_capacity=100)

    answers = [batcher.submit(number, priority=Priority.BULK) for number in range(40)]

    assert results(answers) == list(range(40))
    assert batcher.limit.current == 2
    assert max(sizes[-10:]) <= 2


def test_one_image_that_does_not_fit_is_told_to_try_again(start: StartBatcher) -> None:
    def tiny(items: Sequence[int]) -> list[int]:
        if 13 in items:
            raise MemoryError
        return list(items)

    batcher = start(tiny)

    answers = [batcher.submit(number, priority=Priority.BULK) for number in (12, 13, 14)]

    assert results([answers[0], answers[2]]) == [12, 14]
    with pytest.raises(BatcherFullError, match="no memory left"):
        answers[1].result(timeout=5)
    assert batcher.is_alive


@pytest.mark.parametrize(
    "error",
    [
        RuntimeError("CUDA error: device-side assert triggered\nCUDA kernel errors might be…"),
        RuntimeError("CUDA error: an illegal memory access was encountered"),
        RuntimeError("CUDA error: uncorrectable ECC error encountered"),
        torch.AcceleratorError("CUDA error: unspecified launch failure"),
    ],
    ids=lambda error: str(error)[12:30],
)
def test_a_lost_device_is_said_to_all_and_ends_the_batcher(
    model: GatedModel, start: StartBatcher, error: Exception
) -> None:
    def lose_device(items: Sequence[int]) -> list[int]:
        model(items)
        raise error

    batcher = start(lose_device, max_batch_size=1)
    answers = [batcher.submit(number, priority=Priority.BULK) for number in range(3)]
    model.let_pass()

    for answer in answers:
        with pytest.raises(DeviceFailedError, match="CUDA error") as heard:
            answer.result(timeout=5)
        assert "\n" not in str(heard.value)
    assert not batcher.is_alive
    assert batcher.failed is not None
    with pytest.raises(DeviceFailedError):
        batcher.submit(4, priority=Priority.BULK)
    assert model.batches == [[0]]


def test_a_model_that_loses_a_result_is_an_error_not_a_hang(start: StartBatcher) -> None:
    batcher = start(lambda items: [])

    answer = batcher.submit(1, priority=Priority.BULK)

    with pytest.raises(RuntimeError, match="0 results for 1 items"):
        answer.result(timeout=5)


def test_close_ends_the_present_batch_and_refuses_the_rest(
    model: GatedModel, start: StartBatcher
) -> None:
    batcher = start(model)
    first = batcher.submit(1, priority=Priority.BULK)
    wait_until(lambda: model.batches)
    second = batcher.submit(2, priority=Priority.BULK)
    closing = threading.Thread(target=batcher.close, kwargs={"timeout_s": 5})

    closing.start()

    with pytest.raises(TransientError, match="stopping"):
        second.result(timeout=5)
    model.let_pass()
    assert results([first]) == [2]
    closing.join(5)
    with pytest.raises(TransientError, match="stopping"):
        batcher.submit(3, priority=Priority.BULK)


def test_close_does_not_wait_for_ever_on_a_hung_model(
    model: GatedModel, start: StartBatcher
) -> None:
    batcher = start(model)
    stuck = batcher.submit(1, priority=Priority.BULK)
    wait_until(lambda: batcher.busy_for_s > 0)

    batcher.close(timeout_s=0.01)

    with pytest.raises(TransientError, match="before the model answered"):
        stuck.result(timeout=5)
    model.let_pass()  # what comes too late is dropped


def test_health_sees_how_long_a_pass_takes(model: GatedModel, start: StartBatcher) -> None:
    batcher = start(model)
    assert batcher.busy_for_s == 0

    answer = batcher.submit(1, priority=Priority.BULK)

    wait_until(lambda: batcher.busy_for_s > 0.02)
    model.let_pass()
    results([answer])
    assert batcher.busy_for_s == 0
    assert batcher.is_alive


def test_it_expects_what_was_announced_and_what_waits(
    model: GatedModel, start: StartBatcher
) -> None:
    """A pass that more will follow takes less of the machine."""
    batcher = start(model, max_batch_size=1)
    assert not batcher.is_expecting

    batcher.announce(2, priority=Priority.BULK)
    assert batcher.is_expecting
    first = batcher.submit(1, priority=Priority.BULK)
    wait_until(lambda: model.batches)
    batcher.retract(1, priority=Priority.BULK)
    assert not batcher.is_expecting
    second = batcher.submit(2, priority=Priority.BULK)
    assert batcher.is_expecting

    model.let_pass(2)
    assert results([first, second]) == [2, 4]
    assert not batcher.is_expecting


def test_an_interactive_item_does_not_wait_for_bulk_passes_on_shared_cores(
    model: GatedModel, start: StartBatcher
) -> None:
    batcher = start(model, streams=2, queue_capacity=100, shares_cores=True)
    bulk = [batcher.submit(number, priority=Priority.BULK) for number in range(20)]
    wait_until(lambda: len(model.batches) == 2)

    lone = batcher.submit(100, priority=Priority.INTERACTIVE)
    wait_until(lambda: len(model.batches) == 3)
    more = [batcher.submit(number, priority=Priority.INTERACTIVE) for number in range(101, 107)]
    model.gate.release(100)

    assert model.batches[2] == [100]
    assert results([lone, *more]) == [2 * number for number in range(100, 107)]
    assert results(bulk) == [2 * number for number in range(20)]


def test_passes_on_shared_cores_are_of_one_priority_and_few_at_once(start: StartBatcher) -> None:
    running = most = 0
    mixed: list[Sequence[int]] = []
    express_sizes: list[int] = []
    lock, gate = threading.Lock(), threading.Event()

    def run_model(items: Sequence[int]) -> list[int]:
        nonlocal running, most
        with lock:
            running += 1
            most = max(most, running)
            if running > 2:
                express_sizes.append(len(items))
            if len({item % 2 for item in items}) == 2:
                mixed.append(items)
        gate.wait(5)
        with lock:
            running -= 1
        return [2 * item for item in items]

    batcher = start(run_model, streams=2, max_batch_size=16, queue_capacity=500, shares_cores=True)
    bulk = [batcher.submit(number, priority=Priority.BULK) for number in range(0, 200, 2)]
    wait_until(lambda: running == 2)
    lone = [batcher.submit(number, priority=Priority.INTERACTIVE) for number in range(1, 200, 2)]
    wait_until(lambda: most == 3)
    gate.set()

    assert results(bulk) == [2 * number for number in range(0, 200, 2)]
    assert results(lone) == [2 * number for number in range(1, 200, 2)]
    assert mixed == []
    assert most == 3
    assert max(express_sizes) <= EXPRESS_BATCH_SIZE


@pytest.mark.parametrize("streams", [1, 2])
def test_bulk_items_are_served_among_many_interactive_ones_on_shared_cores(
    model: GatedModel, start: StartBatcher, streams: int
) -> None:
    batcher = start(model, streams=streams, queue_capacity=500, shares_cores=True)
    first = batcher.submit(0, priority=Priority.INTERACTIVE)
    wait_until(lambda: model.batches == [[0]])

    interactive = [batcher.submit(number, priority=Priority.INTERACTIVE) for number in range(400)]
    bulk = batcher.submit(1000, priority=Priority.BULK)
    model.let_pass(1000)

    assert results([first, bulk]) == [0, 2000]
    assert results(interactive) == [2 * number for number in range(400)]
    assert [1000] in model.batches[: 2 * (INTERACTIVE_IN_A_ROW + 2)]


@pytest.mark.skipif(sys.platform != "linux", reason="threads have a niceness on Linux alone")
def test_bulk_passes_let_interactive_ones_go_first_on_shared_cores(start: StartBatcher) -> None:
    def own_niceness(items: Sequence[int]) -> list[int]:
        return [os.getpriority(os.PRIO_PROCESS, threading.get_native_id())] * len(items)

    batcher = start(own_niceness, shares_cores=True)
    apart = start(own_niceness)

    niceness = [
        results([one.submit(0, priority=priority)])[0]
        for one, priority in (
            (batcher, Priority.BULK),
            (batcher, Priority.INTERACTIVE),
            (apart, Priority.BULK),
        )
    ]

    base = os.getpriority(os.PRIO_PROCESS, 0)
    assert niceness == [min(base + 10, 19), base, base]


def test_only_a_lone_interactive_pass_may_use_all_cores_where_they_are_shared(
    start: StartBatcher,
) -> None:
    left: list[bool] = []

    def run_model(items: Sequence[int]) -> list[int]:
        left.append(batcher.leaves_cores)
        return list(items)

    batcher = start(run_model, shares_cores=True)
    for priority in (Priority.INTERACTIVE, Priority.BULK):
        results([batcher.submit(0, priority=priority)])
    batcher.announce(1, priority=Priority.BULK)
    results([batcher.submit(0, priority=Priority.INTERACTIVE)])

    assert left == [False, True, True]
