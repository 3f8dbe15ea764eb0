"""Normalisation and scoring on the device give what the host gives."""

from collections.abc import Callable
from typing import Any, Literal

import numpy as np
import pytest
import torch
from transformers import CLIPImageProcessorPil, Siglip2ImageProcessorPil, SiglipImageProcessorPil
from transformers.models.efficientnet.image_processing_pil_efficientnet import (
    EfficientNetImageProcessorPil,
)

from labelyard.messages import Label, LabelSet
from labelyard_worker.intake.decode import Pixels, decode
from labelyard_worker.vision import scorer as scorer_module
from labelyard_worker.vision.checkpoint import Checkpoint
from labelyard_worker.vision.gpu_scoring import GpuSelector
from labelyard_worker.vision.normalizer import Normalizer, pixel_spec
from labelyard_worker.vision.scorer import Scorer
from labelyard_worker.vision.scoring import Floats, LabelMatrix, Scaling
from tests.cuda.conftest import EXACT, Load
from tests.support import pictures

pytestmark = pytest.mark.cuda

DIM = 512
PROCESSORS = {
    "clip": CLIPImageProcessorPil(),
    "siglip at 384": SiglipImageProcessorPil(size={"height": 384, "width": 384}),
    "siglip2": Siglip2ImageProcessorPil(),
    "align": EfficientNetImageProcessorPil(
        size={"height": 289, "width": 289}, do_center_crop=True, rescale_offset=True
    ),
    "odd factor": CLIPImageProcessorPil(rescale_factor=0.0123),
}


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("name", PROCESSORS)
def test_pixels_are_normalised_as_on_the_host(
    name: str, dtype: torch.dtype, device: torch.device
) -> None:
    processor: Any = PROCESSORS[name]
    spec = pixel_spec(processor)
    pixels = [
        decode(pictures.jpeg((90 + seed, 80), seed=seed), uri="x", spec=spec, limits=EXACT)
        for seed in range(5)
    ]

    on_device = Normalizer(processor, device=device, dtype=dtype)(pixels)

    on_host = Normalizer(processor, device=torch.device("cpu"), dtype=dtype)(pixels)
    assert on_device["pixel_values"].device.type == device.type
    assert all(torch.equal(on_device[key].cpu(), value) for key, value in on_host.items())


def test_a_naflex_model_reads_the_shapes_without_asking_the_device(
    load: Load, device: torch.device, batch_for: Callable[[Checkpoint, int], list[Pixels]]
) -> None:
    checkpoint = load("siglip2", device.type)

    inputs = checkpoint._normalizer(batch_for(checkpoint, 3))

    assert inputs["spatial_shapes"].device.type == "cpu"
    assert inputs["pixel_attention_mask"].device.type == device.type


def unit_rows(numbers: np.random.Generator, count: int) -> Floats:
    """Make random unit vectors, shape (count, DIM)."""
    rows = numbers.normal(size=(count, DIM)).astype(np.float32)
    scaled: Floats = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    return scaled


@pytest.mark.parametrize("is_tree", [False, True])
@pytest.mark.parametrize("scoring", ["softmax", "sigmoid"])
@pytest.mark.parametrize("n_labels", [10, 100, 1_000, 10_000])
def test_scores_on_the_device_are_those_of_the_host(
    n_labels: int,
    scoring: Literal["softmax", "sigmoid"],
    is_tree: bool,
    device: torch.device,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(scorer_module, "MANY_LABELS", 1)
    numbers = np.random.default_rng(n_labels)
    labels = tuple(
        Label(
            name=f"l{number}",
            threshold=0.3 if number % 3 else None,
            path=(f"p{number % 7}", f"p{number % 91}")[: number % 3] if is_tree else (),
        )
        for number in range(n_labels)
    )
    label_set = LabelSet(labels=labels, abstain=("nothing",), scoring=scoring)
    texts = unit_rows(numbers, n_labels + 1)
    matrix = LabelMatrix.of(label_set, texts, digest=f"{n_labels}", trained_scoring="softmax")
    images = texts[numbers.integers(0, n_labels, 16)] + 0.5 * unit_rows(numbers, 16)
    scaling, gpu = Scaling(10.0, -5.0), GpuSelector(device, capacity_bytes=1 << 30)

    on_device = Scorer(scaling, gpu=gpu).score(list(images), matrix, top_k=5)

    on_host = Scorer(scaling).score(list(images), matrix, top_k=5)
    for ours, theirs in zip(on_device, on_host, strict=True):
        assert [one.name for one in ours.labels] == [one.name for one in theirs.labels]
        assert [one.score for one in ours.labels] == pytest.approx(
            [one.score for one in theirs.labels], abs=1e-5
        )
        assert (ours.matched, ours.abstained) == (theirs.matched, theirs.abstained)
        assert ours.fit == pytest.approx(theirs.fit, abs=1e-5)
        assert [one.path for one in ours.parents] == [one.path for one in theirs.parents]
        assert [one.score for one in ours.parents] == pytest.approx(
            [one.score for one in theirs.parents], abs=1e-5
        )
        assert (ours.node and ours.node.path) == (theirs.node and theirs.node.path)
