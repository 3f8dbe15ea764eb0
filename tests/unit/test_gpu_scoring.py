"""Scoring on the GPU gives the results of scoring on the host, to the last label."""

from typing import Literal

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from labelyard.errors import DeviceFailedError
from labelyard.messages import Label, LabelSet
from labelyard_worker.vision import scorer as scorer_module
from labelyard_worker.vision.gpu_scoring import GpuSelector
from labelyard_worker.vision.ranking import ImageScores
from labelyard_worker.vision.scorer import Scorer
from labelyard_worker.vision.scoring import Floats, LabelMatrix, Scaling

CPU = torch.device("cpu")
DIM = 8
SCALING = Scaling(20.0, -1.0)


@pytest.fixture(autouse=True)
def every_label_set_is_large(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scorer_module, "MANY_LABELS", 1)


def unit_rows(numbers: np.random.Generator, count: int) -> Floats:
    """Make random unit vectors, shape (count, DIM)."""
    rows = numbers.normal(size=(count, DIM)).astype(np.float32)
    scaled: Floats = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    return scaled


def random_matrix(
    numbers: np.random.Generator,
    *,
    n_labels: int,
    n_abstain: int = 0,
    scoring: Literal["softmax", "sigmoid"] = "softmax",
    threshold_share: float = 0.5,
) -> LabelMatrix:
    """Make a label set with thresholds here and there, and some labels that are equal."""
    thresholds = [
        float(numbers.uniform(0, 0.6)) if numbers.random() < threshold_share else None
        for _ in range(n_labels)
    ]
    label_set = LabelSet(
        labels=tuple(Label(name=f"l{n}", threshold=one) for n, one in enumerate(thresholds)),
        abstain=tuple(f"nothing {number}" for number in range(n_abstain)),
        scoring=scoring,
        temperature=1.5,
    )
    text_embeds = unit_rows(numbers, n_labels + n_abstain)
    text_embeds[n_labels // 2] = text_embeds[0]
    digest = f"sha256:{numbers.integers(2**60)}"
    return LabelMatrix.of(label_set, text_embeds, digest=digest, trained_scoring="softmax")


def both(images: Floats, matrix: LabelMatrix, *, top_k: int) -> tuple[list[ImageScores], ...]:
    """Score on the host, and with the device's code."""
    gpu = GpuSelector(CPU, capacity_bytes=1 << 20)
    return tuple(
        scorer.score(list(images), matrix, top_k=top_k)
        for scorer in (Scorer(SCALING), Scorer(SCALING, gpu=gpu))
    )


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    n_labels=st.integers(1, 40),
    n_images=st.integers(1, 5),
    n_abstain=st.integers(0, 3),
    scoring=st.sampled_from(["softmax", "sigmoid"]),
    threshold_share=st.sampled_from([0.0, 0.5, 1.0]),
    top_k=st.integers(1, 50),
)
def test_the_device_says_what_the_host_says(
    seed: int,
    n_labels: int,
    n_images: int,
    n_abstain: int,
    scoring: Literal["softmax", "sigmoid"],
    threshold_share: float,
    top_k: int,
) -> None:
    numbers = np.random.default_rng(seed)
    matrix = random_matrix(
        numbers,
        n_labels=n_labels,
        n_abstain=n_abstain,
        scoring=scoring,
        threshold_share=threshold_share,
    )

    host, device = both(unit_rows(numbers, n_images), matrix, top_k=top_k)

    for ours, theirs in zip(device, host, strict=True):
        assert [label.name for label in ours.labels] == [label.name for label in theirs.labels]
        assert [label.score for label in ours.labels] == pytest.approx(
            [label.score for label in theirs.labels], abs=1e-6
        )
        assert (ours.matched, ours.abstained) == (theirs.matched, theirs.abstained)


def test_a_label_set_is_taken_to_the_device_once(monkeypatch: pytest.MonkeyPatch) -> None:
    moved: list[int] = []
    take_over = torch.from_numpy

    def counted(array: Floats) -> torch.Tensor:
        moved.append(array.size)
        return take_over(array)

    numbers = np.random.default_rng(0)
    matrix, image = random_matrix(numbers, n_labels=30), unit_rows(numbers, 1)
    scorer = Scorer(SCALING, gpu=GpuSelector(CPU, capacity_bytes=1 << 20))
    monkeypatch.setattr(torch, "from_numpy", counted)

    for _ in range(3):
        scorer.score(list(image), matrix, top_k=3)

    assert moved == [matrix.text_embeds.size, 30, *[image.size] * 3]


def test_a_lost_device_is_not_scored_on_again(monkeypatch: pytest.MonkeyPatch) -> None:
    def lose(*_: object) -> None:
        raise torch.AcceleratorError("CUDA error: an illegal memory access was encountered")

    numbers = np.random.default_rng(0)
    monkeypatch.setattr(GpuSelector, "_multiply", lose)

    with pytest.raises(DeviceFailedError):
        both(unit_rows(numbers, 1), random_matrix(numbers, n_labels=30), top_k=3)


def test_a_device_without_memory_leaves_it_to_the_host(monkeypatch: pytest.MonkeyPatch) -> None:
    def run_out(*_: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB")

    numbers = np.random.default_rng(0)
    matrix, images = random_matrix(numbers, n_labels=30), unit_rows(numbers, 2)
    monkeypatch.setattr(GpuSelector, "_multiply", run_out)

    host, device = both(images, matrix, top_k=3)

    assert device == host


def test_a_small_label_set_stays_on_the_host(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scorer_module, "MANY_LABELS", 31)
    monkeypatch.setattr(GpuSelector, "_multiply", None)
    numbers = np.random.default_rng(0)

    host, device = both(unit_rows(numbers, 1), random_matrix(numbers, n_labels=30), top_k=3)

    assert device == host
