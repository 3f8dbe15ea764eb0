"""Choice of the pictures that a report shows: a bounded number, and every label has its part."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from labelyard.runs.report.examples import PictureExample
from labelyard.runs.report.label_tally import LabelTally
from labelyard.runs.report.samples import LowestItems
from labelyard.runs.report.tally import Limits, RunTally
from labelyard.runs.report.titles import TitledExample

#: Most pictures of a page, whatever is wished.
MAX_PICTURES: Final = 600
MAX_LABEL_SECTIONS: Final = 24
MAX_PAIR_ROWS: Final = 6
MAX_GROUPS: Final = 8
#: Pictures of a strip: fewer labels are shown before a strip has less than the first number.
STRIP: Final = (3, 8)

ALL: Final = "All pictures"
TYPICAL: Final = "Typical"
CERTAIN: Final = "Most certain"
UNCERTAIN: Final = "Least certain"
NEAR: Final = "Near the threshold"
MEANINGS: Final = {
    ALL: "Every picture that this label is best for, equal ones once.",
    TYPICAL: "A random sample of the pictures that this label is best for.",
    CERTAIN: "The highest scores.",
    UNCERTAIN: "The lowest scores with which this label is still the best.",
    NEAR: "Scores on both sides of the threshold.",
}


@dataclass(frozen=True, slots=True)
class Strip:
    """Pictures of one label, shown for one reason."""

    reason: str
    pictures: Sequence[PictureExample]


@dataclass(frozen=True, slots=True)
class LabelSection:
    """One label with its strips."""

    tally: LabelTally
    strips: Sequence[Strip]


@dataclass(frozen=True, slots=True)
class PairRow:
    """Two labels with close scores on the same pictures.

    Attributes:
        count: Pictures on which their scores are close.
    """

    names: tuple[str, str]
    count: int
    pictures: Sequence[PictureExample]


@dataclass(frozen=True, slots=True)
class Gallery:
    """Every picture that a page shows, by its place."""

    labels: Sequence[LabelSection]
    pairs: Sequence[PairRow]
    abstained: Sequence[PictureExample]
    groups: Sequence[tuple[PictureExample, int]]
    doubtful: Sequence[TitledExample] = ()

    def pictures(self) -> Iterator[PictureExample]:
        """Yield the pictures in the order of the page; one may come twice."""
        for section in self.labels:
            for strip in section.strips:
                yield from strip.pictures
        for pair in self.pairs:
            yield from pair.pictures
        yield from self.abstained
        for picture, _ in self.groups:
            yield picture
        for titled in self.doubtful:
            yield titled.picture


def limits_for(sample: int) -> Limits:
    """Return how many examples a tally must keep for a page of *sample* pictures."""
    part = sample // 10
    few = min(24, part)
    pair = min(4, max(0, part // 5))
    return Limits(strip=STRIP[1] + 4, abstained=few, pair=pair, titles=few)


def choose_pictures(tally: RunTally, *, sample: int) -> Gallery:
    """Choose at most *sample* pictures."""
    limits = limits_for(sample)
    abstained = tally.none_of_these.items()[: limits.abstained]
    pairs = [
        PairRow(names, count, tally.pair_examples[names].items()[: limits.pair])
        for names, count in tally.pairs.most_common(MAX_PAIR_ROWS)
        if count > 1 and names in tally.pair_examples
    ]
    groups = tally.groups(min(MAX_GROUPS, sample // 20))
    doubtful = tally.titles.worst.items()[: limits.titles]
    left = sample - len(abstained) - len(groups) - len(doubtful)
    left -= sum(len(pair.pictures) for pair in pairs)
    return Gallery(_label_sections(tally, left), pairs, abstained, groups, doubtful)


def _label_sections(tally: RunTally, left: int) -> list[LabelSection]:
    wanted = [one for one in tally.ranked_labels() if one.first or one.matched]
    has_threshold = any(one.threshold is not None for one in wanted)
    strips = 4 if has_threshold else 3
    shown = wanted[:MAX_LABEL_SECTIONS]
    number = min(len(shown), left // (strips * STRIP[0]))  # of those with pictures
    length = min(STRIP[1], left // (strips * number)) if number else 0
    return [
        LabelSection(one, _strips(one, length) if place < number else ())
        for place, one in enumerate(shown)
    ]


def _strips(label: LabelTally, length: int) -> list[Strip]:
    """Choose a label's pictures; a picture is shown for one reason alone."""
    shown: set[str] = set()
    chosen: dict[str, Sequence[PictureExample]] = {}
    kept = label.strips
    ranked = (
        (ALL, kept.certain if label.first <= length else LowestItems[PictureExample](0)),
        (NEAR, kept.near),
        (UNCERTAIN, kept.uncertain),
        (CERTAIN, kept.certain),
        (TYPICAL, kept.typical),
    )
    for reason, sample in ranked:
        new = [one for one in sample.items() if one.identity not in shown][:length]
        shown.update(one.identity for one in new)
        chosen[reason] = new
    chosen[NEAR] = sorted(chosen[NEAR], key=lambda one: -(one.score or 0.0))
    return [Strip(name, chosen[name]) for name in MEANINGS if chosen[name]]
