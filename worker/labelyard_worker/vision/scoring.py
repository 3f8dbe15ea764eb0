"""Embeddings to scores, ranked and matched labels: pure arithmetic, no model."""

import math
import sys
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from labelyard.messages import LabelSet, ScoredLabel

Floats: TypeAlias = NDArray[np.float32]
Indices: TypeAlias = NDArray[np.intp]

# Where a label has no threshold of its own and each is judged by itself.
SIGMOID_THRESHOLD = 0.5
# The difference of two logits is finite, too.
MAX_LOGIT = 1e300
# Above it no logit of float32 weights, at most 1e39, leaves that range.
TINY_TEMPERATURE = 1e-200
# Of a matrix's Python objects, besides its numbers and names.
OBJECT_BYTES = 2_048


@dataclass(frozen=True, eq=False)
class LabelMatrix:
    """A label set, ready to be scored against.

    Attributes:
        digest: Identity of the label set.
        names: Of the labels, in the order of the set.
        thresholds: Score from which a label is matched, NaN where it has none,
            shape (labels,).
        text_embeds: Unit-length vectors of the labels, then of the *abstain* prompts,
            shape (labels + abstain, dim).
        scoring: What ``auto`` came to.
        temperature: Divides the logits.
    """

    digest: str
    names: tuple[str, ...]
    thresholds: NDArray[np.float64]
    text_embeds: Floats
    scoring: Literal["softmax", "sigmoid"]
    temperature: float

    @classmethod
    def of(
        cls,
        label_set: LabelSet,
        text_embeds: Floats,
        *,
        digest: str,
        trained_scoring: Literal["softmax", "sigmoid"],
    ) -> "LabelMatrix":
        """Put a label set and its vectors together."""
        wanted = label_set.scoring
        thresholds = [
            np.nan if label.threshold is None else label.threshold for label in label_set.labels
        ]
        return cls(
            digest=digest,
            names=tuple(label.name for label in label_set.labels),
            thresholds=np.asarray(thresholds, dtype=np.float64),
            text_embeds=np.ascontiguousarray(text_embeds, dtype=np.float32),
            scoring=trained_scoring if wanted == "auto" else wanted,
            temperature=label_set.temperature,
        )

    @property
    def n_labels(self) -> int:
        """Count the labels, without *abstain* prompts."""
        return len(self.names)

    @cached_property
    def held_bytes(self) -> int:
        """Bytes of memory that the matrix takes, names included."""
        names = sum(map(sys.getsizeof, self.names)) + sys.getsizeof(self.names)
        return OBJECT_BYTES + self.text_embeds.nbytes + self.thresholds.nbytes + names


@dataclass(frozen=True)
class ImageScores:
    """Scores of one image.

    Attributes:
        labels: The best labels, best first.
        matched: Names of all labels that reached their threshold, best first.
        abstained: Whether an *abstain* prompt fitted better than every label.
    """

    labels: tuple[ScoredLabel, ...]
    matched: tuple[str, ...]
    abstained: bool


def score_image(
    image_embeds: Floats,
    matrix: LabelMatrix,
    *,
    logit_scale: float,
    logit_bias: float,
    top_k: int,
) -> ImageScores:
    """Score one image; ``score_images`` of a job's images costs less for each.

    Args:
        image_embeds: Unit-length image vector, shape (dim,).
        matrix: What to score against.
        logit_scale: Inverse temperature of the checkpoint, no unit.
        logit_bias: Of the checkpoint; 0 where it has none.
        top_k: How many labels to name.
    """
    return score_images(
        image_embeds[None], matrix, logit_scale=logit_scale, logit_bias=logit_bias, top_k=top_k
    )[0]


def score_images(
    image_embeds: Floats,
    matrix: LabelMatrix,
    *,
    logit_scale: float,
    logit_bias: float,
    top_k: int,
) -> list[ImageScores]:
    """Score each image against the same label set.

    Args:
        image_embeds: Unit-length image vectors, shape (images, dim).
        matrix: What to score against.
        logit_scale: Inverse temperature of the checkpoint, no unit.
        logit_bias: Of the checkpoint; 0 where it has none.
        top_k: How many labels to name.

    Returns:
        One for each image, in their order. Labels with equal logits keep the order
        of the set.

    Raises:
        ValueError: The dims differ.
        FloatingPointError: An embedding is not finite.
    """
    cosines = image_embeds @ matrix.text_embeds.T  # (images, labels + abstain)
    logits = tempered(cosines.astype(np.float64) * logit_scale + logit_bias, matrix.temperature)
    scores = sigmoid(logits) if matrix.scoring == "sigmoid" else softmax(logits)
    if not np.isfinite(scores).all():
        raise FloatingPointError("a score is not finite: an embedding holds NaN or infinity")
    return [
        _image_scores(logits[row], scores[row], matrix, top_k=top_k)
        for row in range(len(image_embeds))
    ]


def tempered(logits: NDArray[np.float64], temperature: float) -> NDArray[np.float64]:
    """Divide *logits* by *temperature*, as far as numbers go.

    A tiny temperature would give infinite logits, all of them equal, and no scores. The
    smallest one that fits keeps their order, and gives what smaller ones come to: 1 for
    the best label.
    """
    if temperature < TINY_TEMPERATURE:
        largest = float(np.abs(logits).max(initial=0.0))
        if math.isfinite(largest) and largest > MAX_LOGIT * temperature:
            temperature = largest / MAX_LOGIT
    return logits / temperature


def softmax(logits: NDArray[np.float64]) -> NDArray[np.float64]:
    """Share 1 among the labels of each row.

    Args:
        logits: Scaled cosines, shape (images, labels).

    Returns:
        Shape (images, labels); each row sums to 1.

    Source:
        Radford et al. 2021, arXiv:2103.00020, section 3.1.2: the image and text
        encoders as a softmax classifier over cosine similarities.
    """
    shifted = logits - logits.max(axis=1, keepdims=True)  # keeps exp() from overflowing
    weights = np.exp(shifted)
    shares: NDArray[np.float64] = weights / weights.sum(axis=1, keepdims=True)
    return shares


def sigmoid(logits: NDArray[np.float64]) -> NDArray[np.float64]:
    """Judge each label by itself.

    Args:
        logits: Scaled and biased cosines, shape (images, labels).

    Returns:
        Shape (images, labels), each between 0 and 1.

    Source:
        Zhai et al. 2023, arXiv:2303.15343, algorithm 1. As a tanh it cannot overflow.
    """
    probabilities: NDArray[np.float64] = 0.5 * (1.0 + np.tanh(0.5 * logits))
    return probabilities


def best_first(logits: NDArray[Any], top_k: int) -> Indices:
    """Find the *top_k* highest, best first, without sorting the rest.

    Args:
        logits: Shape (labels,).
        top_k: How many; all of them if there are fewer.

    Returns:
        Their indices; equal ones in the order of the labels, also at the cut.
    """
    count = min(top_k, len(logits))
    cut = np.partition(logits, len(logits) - count)[len(logits) - count]
    above = np.flatnonzero(logits > cut)
    level = np.flatnonzero(logits == cut)[: count - len(above)]
    return ordered(np.concatenate([above, level]), logits)


def ordered(indices: Indices, logits: NDArray[Any]) -> Indices:
    """Order *indices* by their logits, best first; equal ones by index."""
    return indices[np.lexsort((indices, -logits[indices]))]


def _image_scores(
    logits: NDArray[np.float64], scores: NDArray[np.float64], matrix: LabelMatrix, *, top_k: int
) -> ImageScores:
    labels, abstain = logits[: matrix.n_labels], logits[matrix.n_labels :]
    best = best_first(labels, top_k)
    abstained = bool(len(abstain)) and bool(abstain.max() > labels.max())
    return ImageScores(
        labels=tuple(
            ScoredLabel(name=matrix.names[index], score=float(scores[index])) for index in best
        ),
        matched=() if abstained else _matched(labels, scores, matrix, best=int(best[0])),
        abstained=abstained,
    )


def _matched(
    logits: NDArray[np.float64], scores: NDArray[np.float64], matrix: LabelMatrix, *, best: int
) -> tuple[str, ...]:
    """Name the labels that reached their threshold, or have none and are good enough."""
    scores = scores[: matrix.n_labels]
    has_none = np.isnan(matrix.thresholds)
    if matrix.scoring == "sigmoid":
        hits = scores >= np.where(has_none, SIGMOID_THRESHOLD, matrix.thresholds)
    else:
        hits = scores >= matrix.thresholds  # never true against NaN
        hits[best] |= has_none[best]
    return tuple(matrix.names[index] for index in ordered(np.flatnonzero(hits), logits))
