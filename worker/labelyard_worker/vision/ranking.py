"""Ranking of selected labels: the best ones, the matched ones, and whether the image is abstained.

The host and the GPU only select the labels that may be named; the rules are written here, once.
"""

from dataclasses import dataclass

import numpy as np

from labelyard.messages import ScoredLabel
from labelyard_worker.vision.scoring import LabelMatrix, Selection


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


def rank_labels(selection: Selection, matrix: LabelMatrix, *, top_k: int) -> list[ImageScores]:
    """Rank the selected labels of each image; equal labels keep the order of the set.

    Args:
        selection: At least one label of every image.
        matrix: Label set that the selection was made from.
        top_k: Number of labels to name.

    Returns:
        One entry for each image, in their order.

    Raises:
        FloatingPointError: An embedding is not finite.
    """
    if not np.isfinite(selection.scores).all() or np.isnan(selection.abstain).any():
        raise FloatingPointError("a score is not finite: an embedding holds NaN or infinity")
    order = np.lexsort((-selection.logits, selection.images))  # stable: ties stay as selected
    labels, scores = selection.labels[order], selection.scores[order]
    ends = np.bincount(selection.images).cumsum()  # each image has a label at least
    starts = np.concatenate(([0], ends[:-1]))
    best = order[starts]
    is_abstained = selection.abstain[best] > selection.logits[best]
    thresholds = matrix.thresholds[labels]
    is_matched = scores >= thresholds  # never true against NaN
    is_matched[starts] |= np.isnan(thresholds[starts])
    ranked, shares, hits = labels.tolist(), scores.tolist(), is_matched.tolist()
    found = []
    for start, end, abstained in zip(
        starts.tolist(), ends.tolist(), is_abstained.tolist(), strict=True
    ):
        last = min(end, start + top_k)
        best_labels = zip(ranked[start:last], shares[start:last], strict=True)
        all_labels = zip(ranked[start:end], hits[start:end], strict=True)
        found.append(
            ImageScores(
                tuple(ScoredLabel(name=matrix.names[n], score=score) for n, score in best_labels),
                () if abstained else tuple(matrix.names[n] for n, is_hit in all_labels if is_hit),
                abstained,
            )
        )
    return found
