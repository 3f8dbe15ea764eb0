"""Selection of labels on the host: those of a job's images that may be named."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from labelyard.evaluation.example_scores import Array, TaughtLabels, logits_with_examples
from labelyard_worker.vision.scoring import (
    Floats,
    Indices,
    LabelMatrix,
    Scaling,
    to_logits,
    to_scores,
)
from labelyard_worker.vision.title_scores import TitledImages
from labelyard_worker.vision.tree_scores import NodeScores, score_on_host


@dataclass(frozen=True, eq=False, slots=True)
class Selection:
    """Labels of a job's images that may be named: a superset, not ranked yet.

    Holds the best *top_k* labels of each image, all labels that tie with the last of them, and
    all labels whose score reaches their threshold. Each array has shape (selected,), in the
    order of the images, and of the label set within an image.

    Attributes:
        images: Index of the image.
        labels: Index of the label.
        logits: Logit of the label for the image.
        scores: Score of the label for the image.
        abstain: Highest logit that an *abstain* prompt has for the image, -inf without one.
        fits: Cosine of the image to the best text, averaged with that to the nearest example.
        nodes: Scores of the hierarchy's nodes, of each image; ``None`` without a hierarchy.
    """

    images: Indices
    labels: Indices
    logits: NDArray[np.float64]
    scores: NDArray[np.float64]
    abstain: NDArray[np.float64]
    fits: NDArray[np.float64]
    nodes: NodeScores | None = None


def select_on_host(
    image_embeds: Floats,
    matrix: LabelMatrix,
    scaling: Scaling,
    *,
    top_k: int,
    titles: TitledImages | None = None,
) -> Selection:
    """Multiply images with a label set on the CPU, and select the labels that may be named.

    Args:
        image_embeds: Unit-length image vectors, shape (images, dim).
        matrix: Label set to score against.
        scaling: Scale and bias of the checkpoint.
        top_k: Number of labels to name.
        titles: Texts beside some of the images.

    Raises:
        ValueError: The dims differ.
    """
    logits, fits = logits_of_texts(image_embeds, matrix, scaling, titles=titles)
    return select_labels(logits, matrix, fits=fits, top_k=top_k)


def logits_of_texts(
    image_embeds: Floats,
    matrix: LabelMatrix,
    scaling: Scaling,
    *,
    titles: TitledImages | None = None,
) -> tuple[NDArray[np.float64], Array]:
    """Compute the logits of all labels from their texts, and the fits of the images.

    Returns:
        Arrays of shape (images, labels + abstain) and (images,).
    """
    cosines = image_embeds @ matrix.text_embeds.T  # (images, labels + abstain)
    fits = cosines[:, : matrix.n_labels].max(axis=1)
    if matrix.bias is not None or titles is not None:
        raw = to_logits(cosines.astype(np.float64), scaling, temperature=1.0)
        return temper(raw, matrix, titles), fits
    return to_logits(cosines.astype(np.float64), scaling, temperature=matrix.temperature), fits


def select_taught(
    image_embeds: Floats,
    features: Floats,
    matrix: LabelMatrix,
    taught: TaughtLabels,
    scaling: Scaling,
    *,
    top_k: int,
    titles: TitledImages | None = None,
) -> Selection:
    """Select the labels that may be named by texts and by examples; see ``logits_of_taught``."""
    tempered, fits = logits_of_taught(
        image_embeds, features, matrix, taught, scaling, titles=titles
    )
    return select_labels(tempered, matrix, fits=fits, top_k=top_k)


def logits_of_taught(
    image_embeds: Floats,
    features: Floats,
    matrix: LabelMatrix,
    taught: TaughtLabels,
    scaling: Scaling,
    *,
    titles: TitledImages | None = None,
) -> tuple[NDArray[np.float64], Array]:
    """Compute the logits of all labels from texts and examples, and the fits of the images.

    Args:
        image_embeds: Unit-length image vectors, shape (images, dim).
        features: Unit-length vectors that are compared with examples, shape (images, features).
        taught: Scorer of the labels with examples.
        titles: Texts beside some of the images.

    Returns:
        As :func:`logits_of_texts`.
    """
    cosines = (image_embeds @ matrix.text_embeds.T).astype(np.float64)
    by_text = to_logits(cosines, scaling, temperature=1.0)  # (images, labels + abstain)
    logits, to_examples = logits_with_examples(by_text, features, taught, labels=matrix.n_labels)
    fits = cosines[:, : matrix.n_labels].max(axis=1)
    if len(taught.labels) == matrix.n_labels:
        fits = (fits + to_examples.max(axis=1)) / 2
    return temper(logits, matrix, titles), fits


def temper(
    logits: Array, matrix: LabelMatrix, titles: TitledImages | None = None
) -> NDArray[np.float64]:
    """Add the label set's bias and titles to logits, and divide them by its temperature.

    Args:
        logits: Shape (images, labels + abstain).
    """
    shifted = logits if matrix.bias is None else logits + matrix.bias
    if titles is not None:
        shifted = titles.join(shifted)
    tempered: NDArray[np.float64] = to_logits(shifted, Scaling(1.0), temperature=matrix.temperature)
    return tempered


def select_labels(
    logits: NDArray[np.float64],
    matrix: LabelMatrix,
    *,
    fits: NDArray[np.floating[Any]],
    top_k: int,
) -> Selection:
    """Select the labels that may be named, without sorting the rest.

    Args:
        logits: Shape (images, labels + abstain).
        matrix: Label set that they belong to.
        fits: Of each image, shape (images,).
        top_k: Number of labels to name; all of them if there are fewer.
    """
    scores = to_scores(logits, matrix.scoring)
    labels, abstain = logits[:, : matrix.n_labels], logits[:, matrix.n_labels :]
    place = matrix.n_labels - min(top_k, matrix.n_labels)
    cut = np.partition(labels, place, axis=1)[:, place, None]
    # Not below, so that NaN is selected and refused.
    is_selected = ~(labels < cut) | (scores[:, : matrix.n_labels] >= matrix.thresholds)
    rows, columns = is_selected.nonzero()
    best_abstain = abstain.max(axis=1, initial=-np.inf)
    return Selection(
        rows,
        columns,
        labels[rows, columns],
        scores[rows, columns],
        best_abstain[rows],
        fits[rows].astype(np.float64),
        None if matrix.tree is None else score_on_host(scores[:, : matrix.n_labels], matrix.tree),
    )
