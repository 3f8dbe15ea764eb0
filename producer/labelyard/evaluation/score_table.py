"""Scores of pictures as arrays, as every measurement and every fit reads them."""

from collections.abc import Iterable
from typing import Final, TypeAlias

import numpy as np
from numpy.typing import NDArray

from labelyard.evaluation.figures import ScoringName
from labelyard.evaluation.metrics import Flags, Floats64
from labelyard.evaluation.scored_images import ScoredImage
from labelyard.messages import LabelSet

Places: TypeAlias = NDArray[np.intp]

#: Shares that add up to 1 are within this of it.
ROUNDING: Final = 1e-6


class ScoreTable:
    """Scores of pictures as arrays; pictures that failed are left out.

    Attributes:
        rows: The pictures.
        scores: Shape (images, labels).
        truth: Whether each label is true, shape (images, labels).
        matched: Whether each label reached its threshold, shape (images, labels).
        abstained: Shape (images,), as all that follow but for ``scoring``.
        fits: NaN for results without one.
        scoring: Rule by which the scores were made.
        has_label: Whether a picture shows one of the labels at all.
        best: Index of each picture's best label; the first of equal ones.
        confidences: Best score of each picture.
        is_best_true: Whether the best label is true.
        is_rejected: Whether a picture was given no label.
        is_correct: Whether the answer is right. With a true label: the best label is one, and the
            set did not abstain. Without one: no label was given.
    """

    def __init__(self, scored: Iterable[ScoredImage], label_set: LabelSet) -> None:
        self.rows: list[ScoredImage] = [one for one in scored if one.error is None]
        self.names: list[str] = [label.name for label in label_set.labels]
        places = {name: place for place, name in enumerate(self.names)}
        shape = (len(self.rows), len(self.names))
        self.scores: Floats64 = np.zeros(shape)
        self.truth: Flags = np.zeros(shape, dtype=bool)
        self.matched: Flags = np.zeros(shape, dtype=bool)
        for row, one in enumerate(self.rows):
            self.scores[row] = one.scores
            self.truth[row, [places[name] for name in one.image.labels]] = True
            self.matched[row, [places[name] for name in one.matched if name in places]] = True
        self.abstained: Flags = np.array([one.abstained for one in self.rows], dtype=bool)
        self.fits: Floats64 = np.array(
            [np.nan if one.fit is None else one.fit for one in self.rows], dtype=np.float64
        )
        self.scoring: ScoringName = _scoring_of(label_set, self.scores, self.abstained)
        self.has_label: Flags = np.any(self.truth, axis=1)
        self.best: Places = np.argmax(self.scores, axis=1)
        self.confidences: Floats64 = np.max(self.scores, axis=1)
        self.is_best_true: Flags = self.truth[np.arange(len(self.rows)), self.best]
        self.is_rejected: Flags = self.abstained | ~np.any(self.matched, axis=1)
        self.is_correct: Flags = np.where(
            self.has_label, self.is_best_true & ~self.abstained, self.is_rejected
        )

    def answers(self) -> list[str | None]:
        """Return each picture's best label; ``None`` if the set abstained.

        A picture that shows none of the labels, and was given none, has ``None`` as well.
        """
        is_none = self.abstained | (~self.has_label & self.is_rejected)
        return [
            None if nothing else self.names[place]
            for nothing, place in zip(is_none, self.best, strict=True)
        ]


def _scoring_of(label_set: LabelSet, scores: Floats64, abstained: Flags) -> ScoringName:
    """Return the rule of the scores; of ``auto``, by what they add up to.

    Softmax shares add up to 1. *Abstain* prompts take a part, but while the set does not abstain
    no more than the best label each.
    """
    if label_set.scoring != "auto":
        return label_set.scoring
    sums = scores.sum(axis=1)[~abstained]
    least = 1.0 / (1 + len(label_set.abstain))
    is_softmax = bool(((sums >= least - ROUNDING) & (sums <= 1.0 + ROUNDING)).all())
    return "softmax" if is_softmax else "sigmoid"
