"""Ranking of selected labels: the best ones, the matched ones, and whether the image is abstained.

The host and the GPU only select the labels that may be named; the rules are written here, once.
"""

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from labelyard.messages import AbstainedBecause, ScoredLabel, ScoredNode, TitleFinding
from labelyard_worker.vision.scoring import Indices, LabelMatrix
from labelyard_worker.vision.selection import Selection
from labelyard_worker.vision.tree_scores import LabelTree, find_deepest

#: Values of ``Ranking.reasons``.
REASONS: Final[tuple[AbstainedBecause | None, ...]] = (
    None,
    "none_of_these",
    "abstain_prompt",
    "below_threshold",
)
NONE_OF_THESE, ABSTAIN_PROMPT, BELOW_THRESHOLD = 1, 2, 3


@dataclass(frozen=True)
class ImageScores:
    """Scores of one image.

    Attributes:
        labels: The best labels, best first.
        matched: Names of all labels that reached their threshold, best first.
        abstained: Whether an *abstain* prompt fitted better than every label, or the fit is below
            the set's limit.
        because: Why nothing is matched, or ``None``.
        fit: See ``Selection.fits``.
        parents: The best parents of the hierarchy, best first.
        node: The deepest node that passes its threshold.
        title: Comparison with the text beside the image.
    """

    labels: tuple[ScoredLabel, ...]
    matched: tuple[str, ...]
    abstained: bool
    because: AbstainedBecause | None
    fit: float
    parents: tuple[ScoredNode, ...] = ()
    node: ScoredNode | None = None
    title: TitleFinding | None = None


@dataclass(frozen=True, eq=False, slots=True)
class RankedNodes:
    """Ranked parents of many images, and the deepest node that each passes.

    Attributes:
        tree: The hierarchy.
        parents: The best parents, best first, shape (images, named).
        parent_scores: Their scores, of the same shape.
        deepest: The deepest node, -1 if none passes, shape (images,).
        deepest_scores: Their scores, of the same shape.
    """

    tree: LabelTree
    parents: Indices
    parent_scores: NDArray[np.float64]
    deepest: Indices
    deepest_scores: NDArray[np.float64]

    def parents_of(self, image: int) -> tuple[ScoredNode, ...]:
        """Return the best parents of an image."""
        paths = self.tree.hierarchy.parents
        return tuple(
            ScoredNode(path=paths[parent], score=score)
            for parent, score in zip(
                self.parents[image].tolist(), self.parent_scores[image].tolist(), strict=True
            )
        )

    def node_of(self, image: int) -> ScoredNode | None:
        """Return the deepest node of an image."""
        if self.deepest[image] < 0:
            return None
        path = self.tree.hierarchy.nodes[self.deepest[image]]
        return ScoredNode(path=path, score=float(self.deepest_scores[image]))


@dataclass(frozen=True, eq=False, slots=True)
class Ranking:
    """Ranked labels of many images, as arrays.

    Attributes:
        labels: Indices of the best labels of each image, best first, image after image.
        scores: Their scores, of the same shape.
        ends: Index behind each image's last entry in ``labels``, shape (images,).
        matched: Indices of the labels that reached their threshold, best first.
        matched_ends: Index behind each image's last entry in ``matched``, shape (images,).
        is_abstained: Whether the set said "none of these", shape (images,).
        reasons: Why nothing is matched, an index of ``REASONS``, shape (images,).
        fits: See ``Selection.fits``; shape (images,).
        nodes: Of the hierarchy, or ``None``.
    """

    labels: Indices
    scores: NDArray[np.float64]
    ends: Indices
    matched: Indices
    matched_ends: Indices
    is_abstained: NDArray[np.bool_]
    reasons: Indices
    fits: NDArray[np.float64]
    nodes: RankedNodes | None = None

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
        columns = (self.ends, self.matched_ends, self.is_abstained, self.reasons, self.fits)
        each = zip(*(column.tolist() for column in columns), strict=True)
        for image, (end, matched_end, is_abstained, reason, fit) in enumerate(each):
            found.append(
                ImageScores(
                    tuple(labels[start:end]),
                    tuple(matched[matched_start:matched_end]),
                    is_abstained,
                    REASONS[reason],
                    fit,
                    () if self.nodes is None else self.nodes.parents_of(image),
                    None if self.nodes is None else self.nodes.node_of(image),
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
    fits = selection.fits[best]
    is_unknown = fits < matrix.least_fit
    is_abstained = is_unknown | (selection.abstain[best] > selection.logits[best])
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
    reasons = np.where(matched_counts == 0, BELOW_THRESHOLD, 0)
    reasons[is_abstained] = ABSTAIN_PROMPT
    reasons[is_unknown] = NONE_OF_THESE
    return Ranking(
        labels=labels[is_named],
        scores=scores[is_named],
        ends=np.minimum(counts, top_k).cumsum(),
        matched=labels[is_matched],
        matched_ends=matched_counts.cumsum(),
        is_abstained=is_abstained,
        reasons=reasons,
        fits=fits,
        nodes=rank_nodes(selection, matrix, is_abstained, top_k=top_k),
    )


def rank_nodes(
    selection: Selection, matrix: LabelMatrix, is_abstained: NDArray[np.bool_], *, top_k: int
) -> RankedNodes | None:
    """Rank the parents of each image, and find its deepest node; an abstained image has none."""
    found, tree = selection.nodes, matrix.tree
    if found is None or tree is None:
        return None
    named = tree.n_parents if top_k >= matrix.n_labels else min(top_k, tree.n_parents)
    order = np.argsort(-found.parents, axis=1, kind="stable")[:, :named]
    deepest, scores = find_deepest(found, tree)
    return RankedNodes(
        tree=tree,
        parents=order,
        parent_scores=np.take_along_axis(found.parents, order, axis=1),
        deepest=np.where(is_abstained, -1, deepest),
        deepest_scores=scores,
    )
