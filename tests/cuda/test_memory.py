"""Device memory: a batch that does not fit is halved, and nothing grows from batch to batch."""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import psutil  # type: ignore[import-untyped]
import pytest
import torch

from labelyard_worker.intake.decode import Pixels
from labelyard_worker.vision import devices
from labelyard_worker.vision.batcher import Batcher
from labelyard_worker.vision.checkpoint import Checkpoint
from labelyard_worker.vision.scoring import Floats
from tests.cuda.conftest import Load

pytestmark = pytest.mark.cuda

IMAGES = 64
FITTING = 20  # images whose scratch memory is as large as the device
BATCHES = 200
MIB = 1024 * 1024

BatchFor = Callable[[Checkpoint, int], list[Pixels]]


def test_memory_of_a_gpu_is_read_and_a_cpu_has_none(device: torch.device) -> None:
    before = devices.read_memory(device)
    held = torch.zeros(8 * MIB, dtype=torch.uint8, device=device)
    after = devices.read_memory(device)

    assert (before is None, after is None) == (device.type == "cpu",) * 2
    if before is not None and after is not None:
        assert after.allocated_bytes >= before.allocated_bytes + len(held)
        assert after.allocated_bytes <= after.reserved_bytes <= after.total_bytes


def test_a_batch_that_cannot_fit_is_halved_and_nothing_fails(
    load: Load, device: torch.device, batch_for: BatchFor
) -> None:
    checkpoint = load("clip", device.type)
    images = batch_for(checkpoint, IMAGES)
    sizes: list[int] = []

    def run(batch: Sequence[Pixels]) -> list[Floats]:
        sizes.append(len(batch))
        scratch = take_memory(device, images=len(batch))
        embeds = list(checkpoint.image_embeds(batch))
        del scratch
        return embeds

    batcher: Batcher[Pixels, Floats] = Batcher(run, max_batch_size=IMAGES, queue_capacity=IMAGES)
    answers = [batcher.submit(image, priority="interactive") for image in images]
    batcher.start()
    embeds = np.stack([answer.result(60).result for answer in answers])
    batcher.close(timeout_s=30)

    assert sizes[0] == IMAGES
    assert batcher.failed is None
    assert 1 <= batcher.limit.current < FITTING
    assert embeds == pytest.approx(checkpoint.image_embeds(images), abs=1e-5)


def take_memory(device: torch.device, *, images: int) -> torch.Tensor:
    """Allocate a part of the device for each image; a CPU raises the error of a full device."""
    if device.type == "cuda":
        _, total = torch.cuda.mem_get_info(device)
        return torch.empty(images * (total // FITTING), dtype=torch.uint8, device=device)
    if images >= FITTING:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
    return torch.empty(0)


def test_memory_stands_still_over_many_batches(
    load: Load,
    device: torch.device,
    batch_for: BatchFor,
    record_property: Callable[[str, object], None],
) -> None:
    checkpoint = load("clip", device.type)
    images = batch_for(checkpoint, IMAGES)
    numbers = np.random.default_rng(0)
    devices.free_cached_memory()  # of other tests: growth would hide in it
    checkpoint.warm_up()

    def run_batches(count: int) -> None:
        sizes = numbers.integers(1, checkpoint.max_batch_size + 1, count)
        with ThreadPoolExecutor(checkpoint.threads.streams) as threads:
            list(threads.map(lambda size: checkpoint.image_embeds(images[:size]), sizes))

    run_batches(BATCHES // 4)
    before = held_bytes(device)
    run_batches(BATCHES)
    grown = held_bytes(device) - before

    record_property("memory after the first batches, MiB", before // MIB)
    record_property(f"growth over {BATCHES} batches, MiB", f"{grown / MIB:.1f}")
    # torch reserves 2 MiB at a time; a process has other memory, too.
    assert grown <= (8 if device.type == "cuda" else 32) * MIB


def held_bytes(device: torch.device) -> int:
    """Return the bytes of memory that torch holds on a GPU, or the process on a CPU."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
        return torch.cuda.memory_reserved(device)
    return int(psutil.Process().memory_info().rss)
