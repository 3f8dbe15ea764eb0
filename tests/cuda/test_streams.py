"""Passes beside each other: the same vectors, no buffer used twice, no stream too many."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch

from labelyard_worker.intake.decode import Pixels
from labelyard_worker.settings import WorkerSettings
from labelyard_worker.vision.batcher import Batcher
from labelyard_worker.vision.checkpoint import Checkpoint
from labelyard_worker.vision.devices import plan_threads
from labelyard_worker.vision.scoring import Floats
from labelyard_worker.vision.streams import StreamPool
from tests.cuda.conftest import Load

pytestmark = pytest.mark.cuda

IMAGES = 96
ABOUT_HALF_A_SECOND = 1_000_000_000  # cycles of the GPU's clock

BatchFor = Callable[[Checkpoint, int], list[Pixels]]


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_two_streams_give_what_one_gives(
    dtype: str, load: Load, device: torch.device, batch_for: BatchFor
) -> None:
    checkpoint = load("clip", device.type, dtype)
    images = batch_for(checkpoint, IMAGES)

    alone, beside = (embeds_from(checkpoint, images, streams=streams) for streams in (1, 2))

    # Kernels differ with the size of a batch; mixed up rows would be far apart.
    assert alone == pytest.approx(beside, abs=1e-5 if dtype == "float32" else 0.05)


def embeds_from(checkpoint: Checkpoint, images: list[Pixels], *, streams: int) -> Floats:
    """Embed pictures one by one through a batcher, in their order."""
    batcher: Batcher[Pixels, Floats] = Batcher(
        lambda batch: list(checkpoint.image_embeds(batch)),
        max_batch_size=8,
        queue_capacity=len(images),
        streams=streams,
    )
    batcher.start()
    try:
        with ThreadPoolExecutor(4) as callers:
            answers = list(
                callers.map(lambda one: batcher.submit(one, priority="interactive"), images)
            )
        return np.stack([answer.result(60).result for answer in answers])
    finally:
        batcher.close(timeout_s=30)


def test_a_pinned_buffer_waits_for_the_copy_that_reads_it(
    load: Load, device: torch.device, batch_for: BatchFor
) -> None:
    """The copies of all batches are queued behind a long kernel when the buffers are filled."""
    checkpoint = load("clip", device.type)
    batches = [batch_for(checkpoint, 12)[first : first + 4] for first in (0, 4, 8)] * 3
    expected = [checkpoint._normalizer(batch)["pixel_values"].cpu() for batch in batches]
    if device.type == "cuda":
        torch.cuda.synchronize()
    pool = StreamPool(device, count=1)

    with torch.inference_mode(), pool.lent():
        if device.type == "cuda":
            torch.cuda._sleep(ABOUT_HALF_A_SECOND)
        queued = [checkpoint._normalizer(batch)["pixel_values"] for batch in batches]
        found = [values.cpu() for values in queued]

    assert all(torch.equal(*pair) for pair in zip(found, expected, strict=True))


def test_passes_of_many_threads_use_no_more_streams_than_run_at_once(
    load: Load, device: torch.device, batch_for: BatchFor, monkeypatch: pytest.MonkeyPatch
) -> None:
    if device.type == "cpu":
        pytest.skip("a CPU has no streams")
    checkpoint = load("clip", device.type)
    normalise, image = checkpoint._normalizer, batch_for(checkpoint, 1)
    seen: set[int] = set()

    def noted(pixels: list[Pixels]) -> dict[str, torch.Tensor]:
        seen.add(torch.cuda.current_stream(device).cuda_stream)
        return normalise(pixels)

    monkeypatch.setattr(checkpoint, "_normalizer", noted)

    for _ in range(10):
        with ThreadPoolExecutor(4) as threads:  # new threads each time
            list(threads.map(lambda _: checkpoint.image_embeds(image), range(8)))

    default = torch.cuda.default_stream(device).cuda_stream
    assert default not in seen
    assert len(seen) == plan_threads(WorkerSettings(), device, cores=16).streams
