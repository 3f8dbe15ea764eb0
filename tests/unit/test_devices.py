"""Devices, dtypes and threads are chosen from the machine; device errors are classified."""

import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from functools import partial

import pytest
import torch

from labelyard.errors import BatcherFullError, DeviceFailedError
from labelyard_worker.settings import WorkerSettings
from labelyard_worker.vision.devices import (
    CPU_BATCH_SIZE,
    CUDA_BATCH_SIZE,
    ThreadPlan,
    ThreadShare,
    device_errors_as_ours,
    free_cached_memory,
    halve_when_out_of_memory,
    is_device_lost,
    is_out_of_memory,
    keep_float32_exact,
    plan_batch_size,
    plan_threads,
    run_in_temporary_thread,
)

CPU = torch.device("cpu")
CUDA = torch.device("cuda")


@pytest.mark.parametrize(
    ("device", "cores", "options", "expected"),
    [
        (CPU, 1, {}, ThreadPlan(1, 1, 1)),
        (CPU, 2, {}, ThreadPlan(2, 1, 2)),
        (CPU, 16, {}, ThreadPlan(2, 8, 16)),
        (CPU, 8, {"model_streams": 4}, ThreadPlan(4, 2, 8)),
        (CPU, 8, {"model_threads": 3}, ThreadPlan(2, 3, 3)),
        (CPU, 16, {"compile": True}, ThreadPlan(2, 8, 8)),
        (CUDA, 16, {}, ThreadPlan(2, 1, 1)),
    ],
)
def test_threads_follow_the_cores_unless_they_are_set(
    device: torch.device, cores: int, options: dict[str, int], expected: ThreadPlan
) -> None:
    assert plan_threads(WorkerSettings(**options), device, cores) == expected  # type: ignore[arg-type]


def test_a_gpu_gets_larger_batches_unless_they_are_set() -> None:
    plan = partial(plan_batch_size, is_convolutional=False)

    assert plan(WorkerSettings(), CUDA) > plan(WorkerSettings(), CPU)
    assert plan(WorkerSettings(max_batch_size=3), CUDA) == 3


def test_convolutions_take_smaller_batches_on_a_cpu_alone() -> None:
    plan = partial(plan_batch_size, is_convolutional=True)

    assert plan(WorkerSettings(), CPU) < CPU_BATCH_SIZE
    assert plan(WorkerSettings(), CUDA) == CUDA_BATCH_SIZE


@pytest.mark.parametrize(
    ("error", "out_of_memory", "lost"),
    [
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB"), True, False),
        (RuntimeError("CUDA error: out of memory"), True, False),
        (RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory"), True, False),
        (RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling"), True, False),
        (MemoryError(), True, False),
        (RuntimeError("CUDA error: device-side assert triggered"), False, True),
        (torch.AcceleratorError("CUDA error: an illegal memory access"), False, True),
        (RuntimeError("The size of tensor a (3) must match"), False, False),
        (ValueError("out of memory"), False, False),
    ],
)
def test_errors_of_a_device_are_told_apart(
    error: Exception, out_of_memory: bool, lost: bool
) -> None:
    assert is_out_of_memory(error) is out_of_memory
    assert is_device_lost(error) is lost


def test_float32_on_a_gpu_is_not_rounded_to_ten_bits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", True)
    torch.backends.cuda.matmul.allow_tf32 = True

    keep_float32_exact()

    assert not torch.backends.cudnn.allow_tf32
    assert not torch.backends.cuda.matmul.allow_tf32


@pytest.mark.parametrize(
    ("raised", "is_heard"),
    [
        (torch.AcceleratorError("CUDA error: device-side assert triggered"), False),
        (RuntimeError("a bug"), True),
    ],
)
def test_a_lost_device_frees_no_memory_and_stops_nobody_who_closes(
    raised: Exception, is_heard: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    def empty() -> None:
        raise raised

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "empty_cache", empty)

    with pytest.raises(RuntimeError) if is_heard else nullcontext():
        free_cached_memory()


def test_prompts_that_do_not_fit_are_encoded_in_halves() -> None:
    sizes = []

    def encode(prompts: list[int]) -> list[int]:
        sizes.append(len(prompts))
        if len(prompts) > 3:
            raise MemoryError
        return list(prompts)

    encoded = halve_when_out_of_memory(encode, list(range(10)))  # type: ignore[arg-type]

    assert encoded == list(range(10))
    assert sizes == [10, 5, 2, 3, 5, 2, 3]


@pytest.mark.parametrize(
    ("raised", "heard"),
    [
        (MemoryError(), BatcherFullError),
        (RuntimeError("CUDA error: device-side assert triggered"), DeviceFailedError),
        (ValueError("a bug"), ValueError),
    ],
)
def test_errors_of_a_device_become_ours(raised: Exception, heard: type[Exception]) -> None:
    with pytest.raises(heard), device_errors_as_ours():
        raise raised


def test_a_pass_that_runs_alone_gets_all_the_cores() -> None:
    share = ThreadShare(ThreadPlan(streams=2, threads_per_stream=1, cores=2))
    seen: dict[str, int] = {}
    inside, done = threading.Event(), threading.Event()

    def first() -> None:
        with share.taken():
            seen["alone"] = torch.get_num_threads()
            inside.set()
            done.wait(5)

    def second() -> None:
        with share.taken():
            seen["beside another"] = torch.get_num_threads()

    threads = [threading.Thread(target=first), threading.Thread(target=second)]
    threads[0].start()
    inside.wait(5)
    threads[1].start()
    threads[1].join(5)
    done.set()
    threads[0].join(5)

    assert seen == {"alone": 2, "beside another": 1}


def threads_given(
    share: ThreadShare, *, is_passing: bool = False, leaves_cores: bool = False
) -> int:
    """Return the number of torch's threads for this thread."""
    with share.taken(is_passing=is_passing, leaves_cores=leaves_cores):
        return torch.get_num_threads()


def test_a_pass_that_others_follow_leaves_cores_to_what_brings_them() -> None:
    share = ThreadShare(ThreadPlan(streams=2, threads_per_stream=1, cores=2))

    with ThreadPoolExecutor(1) as model:
        given = [
            model.submit(threads_given, share, leaves_cores=leaves_cores).result()
            for leaves_cores in (True, False)
        ]

    assert given == [1, 2]


def test_a_second_model_thread_gets_its_share_even_while_it_runs_alone() -> None:
    """Two large teams would slow each other down, whichever of them works."""
    share = ThreadShare(ThreadPlan(streams=2, threads_per_stream=1, cores=2))

    with ThreadPoolExecutor(1) as first, ThreadPoolExecutor(1) as second:
        given = [pool.submit(threads_given, share).result() for pool in (first, second, first)]

    assert given == [2, 1, 2]


def test_a_thread_that_passes_gets_all_cores_and_takes_nobodys_place() -> None:
    share = ThreadShare(ThreadPlan(streams=2, threads_per_stream=1, cores=2))

    with ThreadPoolExecutor(1) as model:
        given = [
            run_in_temporary_thread(lambda: threads_given(share)),  # a warm-up
            model.submit(threads_given, share).result(),
            run_in_temporary_thread(lambda: threads_given(share, is_passing=True)),  # prompts
        ]

    assert given == [2, 2, 2]


def test_what_fails_in_a_passing_thread_fails_for_its_caller() -> None:
    with pytest.raises(ZeroDivisionError):
        run_in_temporary_thread(lambda: 1 / 0)
