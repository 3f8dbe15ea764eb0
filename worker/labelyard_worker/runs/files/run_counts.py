"""Merge the summaries of a run's shards in bounded memory."""

import base64
from collections import Counter
from collections.abc import Mapping
from typing import Final

import numpy as np
from numpy.typing import NDArray

from labelyard.runs.summaries import (
    MAX_SUMMARY_LABELS,
    DuplicateCounts,
    ImageCounts,
    RunSummary,
    ShardSummary,
    TitleCounts,
)
from labelyard_worker.runs.sources.duplicate_ids import DuplicateIds

# Labels that are counted at once; beyond them the rarest are dropped. Lines with labels of their
# own may bring any number.
COUNTED_LABELS: Final = 4 * MAX_SUMMARY_LABELS
# Fingerprints of files that are held, 8 bytes each, and in the buffer before them.
MAX_CONTENTS: Final = 4_000_000
BUFFERED_CONTENTS: Final = 500_000


class RunCounts:
    """Sums of the counts of shards, added in any order."""

    def __init__(self) -> None:
        """Start at zero."""
        self._images: Counter[str] = Counter()
        self._titles: Counter[str] = Counter()
        self._bad_lines = self._abstained = self._shards = 0
        self._labels: Counter[str] = Counter()
        self._matched: Counter[str] = Counter()
        self._errors: Counter[str] = Counter()
        self._histograms: dict[str, NDArray[np.int64]] = {}
        self._names = DuplicateIds()
        self._contents = DistinctContents()

    def add(self, shard: ShardSummary) -> None:
        """Add the counts of one shard."""
        self._shards += 1
        self._images.update(shard.images.model_dump())
        if shard.titles is not None:
            self._titles.update(shard.titles.model_dump())
        self._bad_lines += shard.bad_lines
        self._abstained += shard.abstained
        self._labels.update(shard.labels)
        self._matched.update(shard.matched)
        self._errors.update(shard.errors)
        for name, counts in shard.score_histograms.items():
            sums = np.asarray(counts, dtype=np.int64)
            if name in self._histograms:
                sums = sums + self._histograms[name]
            self._histograms[name] = sums
        names = shard.labels.keys() | shard.matched.keys() | shard.score_histograms.keys()
        self._names.add(sorted(names))
        self._contents.add(base64.b64decode(shard.contents))
        if len(self._histograms) > COUNTED_LABELS:
            self._drop_rare_labels(COUNTED_LABELS // 2)

    def summary(
        self, *, run_id: str, state: str, seconds: float, computed_again: int = 0
    ) -> RunSummary:
        """Return the counts as the summary of a run.

        Args:
            state: State in which the run ends.
            seconds: From the start of the run to its end.
            computed_again: Images that were scored more than once.
        """
        self._drop_rare_labels(MAX_SUMMARY_LABELS)
        images = ImageCounts(**self._images)
        return RunSummary(
            run_id=run_id,
            state=state,
            images=images,
            bad_lines=self._bad_lines,
            labels=ranked(self._labels),
            labels_left_out=len(self._names) - len(self._histograms),
            matched=ranked(self._matched),
            abstained=self._abstained,
            errors=ranked(self._errors),
            score_histograms={
                name: tuple(self._histograms[name].tolist()) for name in sorted(self._histograms)
            },
            duplicates=self._contents.counts(),
            shards=self._shards,
            seconds=round(seconds, 3),
            images_per_s=round(images.total / seconds, 2) if seconds > 0 else 0.0,
            computed_again=computed_again,
            titles=TitleCounts(**self._titles) if self._titles else None,
        )

    def _drop_rare_labels(self, limit: int) -> None:
        """Keep the labels that are best, and named, most often."""
        if len(self._histograms) <= limit:
            return
        rank = sorted(
            self._histograms,
            key=lambda name: (-self._labels[name], -int(self._histograms[name].sum()), name),
        )
        for name in rank[limit:]:
            del self._histograms[name]
            self._labels.pop(name, None)
            self._matched.pop(name, None)


class DistinctContents:
    """Distinct files by the first 8 bytes of their SHA-256.

    Up to MAX_CONTENTS they are counted. Beyond, half of all possible fingerprints are left out,
    then half of the rest and so on, and the number is estimated from the part that is left.

    Source:
        Gibbons 2001, "Distinct sampling for highly-accurate answers to distinct values queries".
    """

    def __init__(self) -> None:
        """Start without files."""
        self._distinct: NDArray[np.uint64] = np.zeros(0, dtype=np.uint64)
        self._buffer: list[NDArray[np.uint64]] = []
        self._buffered = self._files = self._level = 0

    def add(self, contents: bytes) -> None:
        """Add files, 8 bytes each."""
        values = np.frombuffer(contents, dtype="<u8").astype(np.uint64)
        self._files += len(values)
        self._buffer.append(self._sampled(values))
        self._buffered += len(self._buffer[-1])
        if self._buffered >= BUFFERED_CONTENTS:
            self._merge()

    def counts(self) -> DuplicateCounts:
        """Return the numbers of distinct and of repeated files."""
        self._merge()
        distinct = min(self._files, len(self._distinct) << self._level)
        return DuplicateCounts(
            distinct=distinct, repeated=self._files - distinct, is_exact=self._level == 0
        )

    def _merge(self) -> None:
        self._distinct = np.unique(np.concatenate([self._distinct, *self._buffer]))
        self._buffer, self._buffered = [], 0
        while len(self._distinct) > MAX_CONTENTS:
            self._level += 1
            self._distinct = self._sampled(self._distinct)

    def _sampled(self, values: NDArray[np.uint64]) -> NDArray[np.uint64]:
        mask = np.uint64((1 << self._level) - 1)
        sampled: NDArray[np.uint64] = values[(values & mask) == 0]
        return sampled


def ranked(counts: Mapping[str, int]) -> dict[str, int]:
    """Return the counts that are not zero, the largest first, equal ones by name."""
    found = [(name, count) for name, count in counts.items() if count]
    return dict(sorted(found, key=lambda each: (-each[1], each[0])))
