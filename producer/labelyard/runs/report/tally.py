"""Totals, histograms and examples of a whole run, gathered line by line in bounded memory."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from labelyard.runs.lines import ResultLine
from labelyard.runs.report.error_tally import ErrorTally
from labelyard.runs.report.examples import PictureExample
from labelyard.runs.report.label_tally import BINS, LabelTally, bin_of, keep
from labelyard.runs.report.result_lines import best_of
from labelyard.runs.report.samples import DistinctSample, HeavyHitters, LowestItems, priority
from labelyard.runs.report.titles import TitleTally

#: Labels that are counted by themselves; beyond it the rarer half is counted together.
MAX_LABELS: Final = 1_000
MAX_PAIRS: Final = 1_024
MAX_REPEATED: Final = 16_384
#: Two labels whose scores on a picture differ by less than this compete for it.
CLOSE: Final = 0.1


@dataclass(frozen=True, slots=True)
class Limits:
    """Numbers of examples that a tally keeps.

    Attributes:
        strip: For each label and reason.
        abstained: Abstained pictures.
        errors: Error lines of each code.
        pair: Pictures that two labels compete for.
        titles: Pictures that their texts speak against.
    """

    strip: int = 8
    abstained: int = 24
    errors: int = 5
    pair: int = 4
    titles: int = 24


class RunTally:
    """Counts and examples of a run.

    Attributes:
        total: Result lines.
        failed: Those of them without scores.
        bad_lines: Manifest lines that name no picture: errors that no result line has.
        errors: Lines of the files of errors, which have those of failed pictures, too.
        failures: Errors of the failed pictures, as their result lines have them.
        unreadable: Lines of the output that could not be read.
        top_bins: Scores of the best labels, in ``BINS`` bins.
        labels: The labels, by name.
        pooled_labels: Labels beyond ``MAX_LABELS``, which are not among *labels*.
        repeated: Digests by how often they came.
        label_sets: Digests of the label sets that pictures were scored against.
        titles: Pictures that were compared with a text.
    """

    def __init__(
        self, *, seed: int, limits: Limits, thresholds: Mapping[str, float | None]
    ) -> None:
        """Start without lines.

        Args:
            seed: Decides which pictures are sampled.
            thresholds: Labels of the run's label set with their thresholds.
        """
        self.seed: int = seed
        self.limits: Limits = limits
        self.total: int = 0
        self.failed: int = 0
        self.abstained: int = 0
        self.matched: int = 0
        self.close: int = 0
        self.unreadable: int = 0
        self.pooled_labels: int = 0
        self.top_bins: list[int] = [0] * BINS
        self._thresholds = dict(thresholds)
        self.labels: dict[str, LabelTally] = {}
        for name in list(thresholds)[:MAX_LABELS]:
            self._label(name)
        self.none_of_these: LowestItems[PictureExample] = LowestItems(limits.abstained)
        self.errors: ErrorTally = ErrorTally(seed=seed, examples=limits.errors)
        self.failures: ErrorTally = ErrorTally(seed=seed, examples=limits.errors)
        self.pairs: HeavyHitters[tuple[str, str]] = HeavyHitters(MAX_PAIRS)
        self.pair_examples: dict[tuple[str, str], LowestItems[PictureExample]] = {}
        self.pictures: DistinctSample = DistinctSample()
        self.repeated: HeavyHitters[str] = HeavyHitters(MAX_REPEATED)
        self.repeated_examples: dict[str, PictureExample] = {}
        self.label_sets: dict[str, int] = {}
        self.titles: TitleTally = TitleTally(examples=limits.titles)

    @property
    def succeeded(self) -> int:
        """Pictures with scores."""
        return self.total - self.failed

    @property
    def bad_lines(self) -> int:
        """Manifest lines that name no picture."""
        return max(0, self.errors.total - self.failed)

    @property
    def known_errors(self) -> ErrorTally:
        """Errors of all lines; those of the results if the files of errors are missing."""
        return self.errors if self.errors.total >= self.failures.total else self.failures

    def add(self, line: ResultLine) -> None:
        """Count a result line."""
        self.total += 1
        if line.status == "failed":
            self.failed += 1
            if error := line.to_error_line():
                self.failures.add(error)
            return
        drawn = priority(self.seed, f"{line.custom_id}\0{line.line}")
        for rank, label in enumerate(line.labels):
            self._label(label.name).add(line, label.score, rank=rank, priority=drawn)
        self.matched += bool(line.matched)
        if best_of(line) is None:
            self.abstained += 1
            keep(self.none_of_these, (drawn, 0.0), line)
        if line.labels:
            self.top_bins[bin_of(line.labels[0].score)] += 1
        if line.title is not None:
            self.titles.add(line, line.title, priority=drawn)
        self._add_pair(line, drawn)
        self._add_content(line)
        if line.label_set and (line.label_set in self.label_sets or len(self.label_sets) < 50):
            self.label_sets[line.label_set] = self.label_sets.get(line.label_set, 0) + 1
        if len(self.labels) > 2 * MAX_LABELS:
            self._pool_rare_labels()

    def ranked_labels(self) -> list[LabelTally]:
        """Return the labels, those that are best for the most pictures first."""
        return sorted(self.labels.values(), key=lambda one: (-one.first, -one.matched, one.name))

    def groups(self, number: int) -> list[tuple[PictureExample, int]]:
        """Return the pictures that came most often, each with its count."""
        return [
            (self.repeated_examples[digest], count)
            for digest, count in self.repeated.most_common(number)
            if count > 1 and digest in self.repeated_examples
        ]

    def _label(self, name: str) -> LabelTally:
        tally = self.labels.get(name)
        if tally is None:
            threshold = self._thresholds.get(name)
            tally = LabelTally(name, examples=self.limits.strip, threshold=threshold)
            self.labels[name] = tally
        return tally

    def _pool_rare_labels(self) -> None:
        """Forget the labels that are best for the fewest pictures."""
        for tally in self.ranked_labels()[MAX_LABELS:]:
            del self.labels[tally.name]
            self.pooled_labels += 1

    def _add_pair(self, line: ResultLine, drawn: float) -> None:
        if len(line.labels) < 2 or line.abstained:
            return
        first, second = line.labels[:2]
        if first.score - second.score >= CLOSE:
            return
        self.close += 1
        pair = (min(first.name, second.name), max(first.name, second.name))
        if self.pairs.add(pair):
            examples = self.pair_examples.setdefault(pair, LowestItems(self.limits.pair))
            keep(examples, (drawn, 0.0), line)
        else:
            known = self.pair_examples.items()
            self.pair_examples = {one: kept for one, kept in known if self.pairs.count(one)}

    def _add_content(self, line: ResultLine) -> None:
        if line.sha256 is None:
            return
        self.pictures.add(line.sha256)
        if self.repeated.add(line.sha256):
            if self.repeated.count(line.sha256) > 1:
                self.repeated_examples.setdefault(line.sha256, PictureExample.of(line))
        else:
            known = self.repeated_examples.items()
            self.repeated_examples = {one: kept for one, kept in known if self.repeated.count(one)}
