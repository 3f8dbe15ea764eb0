"""Counts of a shard, which its summary has."""

import base64
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

from labelyard.runs.lines import ErrorLine, ResultLine
from labelyard.runs.summaries import SCORE_BINS, ImageCounts, ShardSummary, TitleCounts

#: Bytes of a file's SHA-256 that stand for it.
CONTENT_BYTES: Final = 8


class ShardCounts:
    """Counts images, labels, scores and errors, one line after the other."""

    def __init__(self) -> None:
        """Start at zero."""
        self._succeeded = self._failed = self._bad_lines = self._abstained = 0
        self._titles = self._disagreeing_titles = 0
        self._labels: Counter[str] = Counter()
        self._matched: Counter[str] = Counter()
        self._errors: Counter[str] = Counter()
        self._histograms: dict[str, list[int]] = {}
        self._contents = bytearray()

    def add(self, result: ResultLine) -> None:
        """Count the result of an image."""
        if result.error is not None:
            self._failed += 1
            self._errors[result.error.code] += 1
            return
        self._succeeded += 1
        self._abstained += result.abstained
        if result.top_label is not None:
            self._labels[result.top_label] += 1
        self._matched.update(result.matched)
        if result.title is not None:
            self._titles += 1
            self._disagreeing_titles += not result.title.agrees
        for label in result.labels:
            self._histogram(label.name)[bin_of(label.score)] += 1
        self.add_contents([result.sha256])

    def add_error(self, error: ErrorLine) -> None:
        """Count a manifest line that names no image."""
        self._bad_lines += 1
        self._errors[error.code] += 1

    def add_scored(
        self,
        *,
        images: int,
        abstained: int,
        labels: Mapping[str, int],
        matched: Mapping[str, int],
        histograms: Mapping[str, Sequence[int]],
    ) -> None:
        """Count images that succeeded, many at once."""
        self._succeeded += images
        self._abstained += abstained
        self._labels.update(labels)
        self._matched.update(matched)
        for name, counts in histograms.items():
            histogram = self._histogram(name)
            histogram[:] = [old + new for old, new in zip(histogram, counts, strict=True)]

    def add_contents(self, digests: Sequence[str | None]) -> None:
        """Note the files that were read, by their SHA-256."""
        starts = [sha256[: 2 * CONTENT_BYTES] for sha256 in digests if sha256 is not None]
        self._contents += bytes.fromhex("".join(starts))

    def summary(self, shard: str, *, seconds: float) -> ShardSummary:
        """Return the counts as the summary of a shard."""
        return ShardSummary(
            shard=shard,
            images=ImageCounts(
                total=self._succeeded + self._failed,
                succeeded=self._succeeded,
                failed=self._failed,
            ),
            bad_lines=self._bad_lines,
            labels=dict(self._labels.most_common()),
            matched=dict(self._matched.most_common()),
            abstained=self._abstained,
            errors=dict(self._errors.most_common()),
            score_histograms={
                name: tuple(self._histograms[name]) for name in sorted(self._histograms)
            },
            contents=base64.b64encode(self._contents).decode(),
            seconds=round(seconds, 3),
            titles=TitleCounts(n=self._titles, disagree=self._disagreeing_titles)
            if self._titles
            else None,
        )

    def _histogram(self, name: str) -> list[int]:
        if name not in self._histograms:
            self._histograms[name] = [0] * SCORE_BINS
        return self._histograms[name]


def bin_of(score: float) -> int:
    """Return the number of a score's bin; a score of 1 is in the last one."""
    return min(SCORE_BINS - 1, int(score * SCORE_BINS))


def bins_of(scores: NDArray[np.float64]) -> NDArray[np.int64]:
    """Return the numbers of the scores' bins, of the same shape."""
    return np.minimum(SCORE_BINS - 1, (scores * SCORE_BINS).astype(np.int64))
