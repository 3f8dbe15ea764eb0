"""Scores of labels by the text beside a picture, and whether both agree."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final, Self

import numpy as np
from numpy.typing import NDArray

from labelyard.evaluation.example_scores import log_sum_exp
from labelyard.messages import TitleFinding

Floats = NDArray[np.float32]
Floats64 = NDArray[np.float64]

#: What cosines of sentences are multiplied by: the scale that sentence encoders are trained with
#: (Reimers and Gurevych, sentence-transformers, MultipleNegativesRankingLoss).
SENTENCE_SCALE: Final = 20.0
#: Agreement below which a title and a picture contradict each other: 19 to 1 against one label for
#: both, which Kass and Raftery 1995, doi 10.1080/01621459.1995.10476572, call strong evidence.
LEAST_AGREEMENT: Final = 0.05


@dataclass(frozen=True, eq=False)
class TitleLabels:
    """Labels of a set as titles are compared with them.

    Attributes:
        embeds: Vectors of the labels, then of the *abstain* prompts, shape (labels + abstain, dim).
        n_labels: Number of labels.
        picture: Weight of a picture's logits if it has a title.
        title: Weight of the title's logits.
    """

    embeds: Floats
    n_labels: int
    picture: float
    title: float

    def logits(self, titles: Floats) -> Floats64:
        """Compute weighted logits of titles, on a level that favours no title.

        Args:
            titles: Unit-length vectors, shape (titles, dim).

        Returns:
            Shape (titles, labels + abstain); the mean over a title's labels is 0.
        """
        found = SENTENCE_SCALE * (titles @ self.embeds.T).astype(np.float64)
        found -= found[:, : self.n_labels].mean(axis=1, keepdims=True)
        return self.title * found


@dataclass(frozen=True, eq=False)
class TitledImages:
    """Titles of the images that have one.

    Attributes:
        rows: Indices of these images, shape (titled,).
        vectors: Of their titles, shape (titled, dim).
        labels: The labels that they are compared with.
    """

    rows: NDArray[np.intp]
    vectors: Floats
    labels: TitleLabels

    @classmethod
    def of(cls, titles: Sequence[Floats | None], labels: TitleLabels | None) -> Self | None:
        """Gather the titles of images; ``None`` if there are none, or the set does not use them."""
        rows = [row for row, title in enumerate(titles) if title is not None]
        if labels is None or not rows:
            return None
        vectors = np.stack([title for title in titles if title is not None])
        return cls(np.array(rows, dtype=np.intp), vectors, labels)

    def join(self, logits: Any) -> Floats64:
        """Add the titles to the logits of pictures; those of pictures without one stay.

        Args:
            logits: Before the temperature, shape (images, labels + abstain).
        """
        joined = np.array(logits, dtype=np.float64)
        joined[self.rows] *= self.labels.picture
        joined[self.rows] += self.labels.logits(self.vectors)
        return joined

    def findings(
        self, logits: Floats64, names: Sequence[str], *, temperature: float
    ) -> dict[int, TitleFinding]:
        """Compare each title with its picture.

        The agreement is the probability that both are of one label, if before either was seen
        that was as probable as two labels that have nothing to do with one another.

        Args:
            logits: Of the pictures with a title by the picture alone, after the temperature, shape
                (titled, labels + abstain).
            names: Of the labels.
            temperature: That of the set.

        Returns:
            By the index of the image.
        """
        n_labels = self.labels.n_labels
        of_titles = self.labels.logits(self.vectors) / temperature
        by_picture, by_title = (
            np.exp(each - log_sum_exp(each))
            for each in (self.labels.picture * logits[:, :n_labels], of_titles[:, :n_labels])
        )
        odds = n_labels * (by_picture * by_title).sum(axis=1)
        agreements = odds / (1.0 + odds)
        best = by_title.argmax(axis=1)
        return {
            row: TitleFinding(
                label=names[label],
                score=by_title[place, label],
                agreement=agreements[place],
                agrees=bool(agreements[place] >= LEAST_AGREEMENT),
            )
            for place, (row, label) in enumerate(
                zip(self.rows.tolist(), best.tolist(), strict=True)
            )
        }
