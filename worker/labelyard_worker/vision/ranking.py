"""Ranking of selected labels: the best ones, the matched ones, and whether the image is abstained.

The host and the GPU only select the labels that may be named; the rules are written here, once.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from labelyard.messages import ScoredLabel
from labelyard_worker.vision.scoring import Indices, LabelMatrix, Selection


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


@dataclass(frozen=True, eq=False, slots=True)
class Ranking:
    """Ranked labels of many images, as arrays.

    Attributes:
        labels: Indices of the best labels of each image, best first, image after image.
        scores: Their scores, of the same shape.
        ends: Index behind each image's last entry in ``labels``, shape (images,).
        matched: Indices of the labels that reached their threshold, best first.
        matched_ends: Index behind each image's last entry in ``matched``, shape (images,).
        is_abstained: Whether an *abstain* prompt fitted better, shape (images,).
    """

    labels: Indices
    scores: NDArray[np.float64]
    ends: Indices
    matched: Indices
    matched_ends: Indices
    is_abstained: NDArray[np.bool_]

    def to_image_scores(self, names: tuple[str, ...]) -> list[ImageScores]:
        """Return one object for each image.

        Args:
            names: Of the labels, in the order of the set.
        """
        labels = [
            ScoredLabel(name=names[label], score=score)
            for label, score in zip(self.labels.tolist(), self.scores.tolist(), strict=True)
        ]
        matched = [names[label] for label in self.matched.tolist()]
        found, start, matched_start = [], 0, 0
        for end, matched_end, is_abstained in zip(
            self.ends.tolist(), self.matched_ends.tolist(), self.is_abstained.tolist(), strict=True
        ):
            found.append(
                ImageScores(
                    tuple(labels[start:end]),
                    tuple(matched[matched_start:matched_end]),
                    is_abstained,
                )
            )
            start, matched_start = end, matched_end
        return found


def rank_arrays(selection: Selection, matrix: LabelMatrix, *, top_k: int) -> Ranking:
    """Rank the selected labels of each image; equal labels keep the order of the set.

    Args:
        selection: At least one label of every image.
        matrix: Label set that the selection was made from.
        top_k: Number of labels to name.

    Raises:
        FloatingPointError: An embedding is not finite.
    """
    if not np.isfinite(selection.scores).all() or np.isnan(selection.abstain).any():
        raise FloatingPointError("a score is not finite: an embedding holds NaN or infinity")
    order = np.lexsort((-selection.logits, selection.images))  # stable: ties stay as selected
    labels, scores = selection.labels[order], selection.scores[order]
    counts = np.bincount(selection.images)  # each image has a label at least
    ends = counts.cumsum()
    starts = ends - counts
    best = order[starts]
    is_abstained = selection.abstain[best] > selection.logits[best]
    thresholds = matrix.thresholds[labels]
    is_matched = scores >= thresholds  # never true against NaN
    is_matched[starts] |= np.isnan(thresholds[starts])
    is_matched &= ~np.repeat(is_abstained, counts)
    places = np.arange(len(labels)) - np.repeat(starts, counts)
    if matrix.is_best_only:
        is_matched &= places == 0
    is_named = places < top_k
    matched_counts = np.bincount(
        np.repeat(np.arange(len(counts)), counts)[is_matched], minlength=len(counts)
    )
    return Ranking(
        labels=labels[is_named],
        scores=scores[is_named],
        ends=np.minimum(counts, top_k).cumsum(),
        matched=labels[is_matched],
        matched_ends=matched_counts.cumsum(),
        is_abstained=is_abstained,
    )
