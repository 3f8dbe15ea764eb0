"""Scores and examples of one label over a run."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

from labelyard.runs.lines import ResultLine
from labelyard.runs.report.examples import PictureExample
from labelyard.runs.report.result_lines import best_of
from labelyard.runs.report.samples import LowestItems

#: Bins of the counts below; a drawn histogram has fewer.
BINS: Final = 100


def bin_of(score: float) -> int:
    """Return the bin of a score of 0 to 1."""
    return min(BINS - 1, max(0, int(score * BINS)))


def median_of(counts: Sequence[int]) -> float | None:
    """Return the median of binned scores, to the middle of its bin; ``None`` without scores."""
    total, seen = sum(counts), 0
    for place, count in enumerate(counts):
        seen += count
        if count and 2 * seen >= total:
            return (place + 0.5) / len(counts)
    return None


def keep(
    sample: LowestItems[PictureExample],
    rank: tuple[float, float],
    line: ResultLine,
    score: float | None = None,
) -> None:
    """Offer a picture to a sample; its example is only made if the sample takes it."""
    if sample.accepts(rank):
        sample.offer(rank, line.sha256 or line.uri, PictureExample.of(line, score))


@dataclass(slots=True)
class Strips:
    """Pictures of one label that are kept as examples, by the reason for which they are.

    Attributes:
        typical: A uniform sample of the pictures that the label is best for.
        certain: Those with the highest scores among them.
        uncertain: Those with the lowest scores among them.
        near: Pictures whose score is nearest to the label's threshold, on both sides.
    """

    size: int
    typical: LowestItems[PictureExample] = field(init=False)
    certain: LowestItems[PictureExample] = field(init=False)
    uncertain: LowestItems[PictureExample] = field(init=False)
    near: LowestItems[PictureExample] = field(init=False)

    def __post_init__(self) -> None:
        """Make the four samples."""
        self.typical, self.certain, self.uncertain, self.near = (
            LowestItems(self.size) for _ in range(4)
        )


class LabelTally:
    """Counts, histograms and examples of one label.

    Attributes:
        first: Pictures that the label is best for.
        matched: Pictures that reached its threshold.
        best_bins: Scores of the pictures that it is best for, in ``BINS`` bins.
        other_bins: Scores of the other pictures.
        threshold: Threshold of the label, if the run's label set has one.
    """

    __slots__ = ("best_bins", "first", "matched", "name", "other_bins", "strips", "threshold")

    def __init__(self, name: str, *, examples: int, threshold: float | None = None) -> None:
        """Start without pictures; keep up to *examples* for each reason."""
        self.name: str = name
        self.first: int = 0
        self.matched: int = 0
        self.best_bins: list[int] = [0] * BINS
        self.other_bins: list[int] = [0] * BINS
        self.threshold: float | None = threshold
        self.strips: Strips = Strips(examples)

    def add(self, line: ResultLine, score: float, *, rank: int, priority: float) -> None:
        """Count the label's score on one picture.

        Args:
            rank: Place of the label among the picture's labels, from 0.
            priority: Number of 0 to 1 that decides what is sampled.
        """
        is_best = rank == 0 and best_of(line) is not None
        bins = self.best_bins if is_best else self.other_bins
        bins[bin_of(score)] += 1
        if self.name in line.matched:
            self.matched += 1
        if self.threshold is not None:
            keep(self.strips.near, (abs(score - self.threshold), priority), line, score)
        if is_best:
            self.first += 1
            keep(self.strips.typical, (priority, 0.0), line, score)
            # Of equal scores each sample keeps others, or all would show the same pictures.
            keep(self.strips.certain, (-score, 1 - priority), line, score)
            keep(self.strips.uncertain, (score, abs(0.5 - priority)), line, score)

    @property
    def median(self) -> float | None:
        """Median of the scores of the pictures that the label is best for."""
        return median_of(self.best_bins)
