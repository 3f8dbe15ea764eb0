"""Comparison of an alias' version with its canary, as workers counted it."""

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Final

MILLIONTHS: Final = 1_000_000
FLIP, FAILURE = "flip:", "failure:"
#: Parts both answers in the name of a count; no label holds one.
PARTER: Final = "\t"


@dataclass(frozen=True, slots=True)
class CanaryAnswer:
    """Answer of one version to one picture.

    Attributes:
        label: Its best label; empty if the version abstained.
        score: Score of the best label.
        matched: Names of the matched labels.
    """

    label: str
    score: float
    matched: frozenset[str]


@dataclass(frozen=True, slots=True)
class CanaryReport:
    """How a canary differs from the version that answers.

    Attributes:
        alias: The alias.
        reference: Version that answers.
        canary: Version that was tried.
        share: Share of the jobs that it scores; 0 if it was ended.
        jobs: Jobs that both have scored.
        images: Pictures in these jobs with scores of both.
        same: Pictures with the same best label, or of which both abstained.
        same_matched: Pictures with the same matched labels.
        score_change: Mean change of the best score; ``None`` without pictures.
        flips: Number of pictures by both answers; an empty answer is an abstention, and a pair of
            two empty ones stands for all pairs beyond the bound.
        failures: Jobs that the canary could not score, by the error's code.
    """

    alias: str
    reference: str
    canary: str
    share: float = 0.0
    jobs: int = 0
    images: int = 0
    same: int = 0
    same_matched: int = 0
    score_change: float | None = None
    flips: Mapping[tuple[str, str], int] = field(default_factory=dict)
    failures: Mapping[str, int] = field(default_factory=dict)

    @property
    def agreement(self) -> float | None:
        """Share of the pictures with the same answer; ``None`` without pictures."""
        return self.same / self.images if self.images else None

    def per_label(self) -> dict[str, tuple[int, int]]:
        """Return for each label how many pictures the canary takes from it and gives to it."""
        lost: dict[str, int] = {}
        won: dict[str, int] = {}
        for (before, after), count in self.flips.items():
            lost[before] = lost.get(before, 0) + count
            won[after] = won.get(after, 0) + count
        names = dict.fromkeys([*lost, *won])
        return {name: (lost.get(name, 0), won.get(name, 0)) for name in names if name}

    def fields(self) -> dict[str, Any]:
        """Describe the comparison for programs."""
        ranked = sorted(self.flips.items(), key=lambda item: (-item[1], item[0]))
        return {
            **{name: value for name, value in asdict(self).items() if name != "flips"},
            "agreement": self.agreement,
            "flips": [
                {"from": before or None, "to": after or None, "n": count}
                for (before, after), count in ranked
            ],
            "per_label": {
                name: {"lost": lost, "won": won} for name, (lost, won) in self.per_label().items()
            },
        }


def compare_answers(pairs: Iterable[tuple[CanaryAnswer, CanaryAnswer]]) -> dict[str, int]:
    """Count how the answers of two versions to the pictures of a job differ.

    Args:
        pairs: Of each picture the answer that is given, and that of the canary.

    Returns:
        Counts by the names of their fields in the ledger.
    """
    counts = {"jobs": 1}

    def add(name: str, count: int) -> None:
        counts[name] = counts.get(name, 0) + count

    for ours, theirs in pairs:
        add("images", 1)
        add("same", int(ours.label == theirs.label))
        add("same_matched", int(ours.matched == theirs.matched))
        add("score_change", round((theirs.score - ours.score) * MILLIONTHS))
        if ours.label != theirs.label:
            add(f"{FLIP}{ours.label}{PARTER}{theirs.label}", 1)
    return counts


def failed_comparison(code: str) -> dict[str, int]:
    """Count a job that the canary could not score."""
    return {"failed": 1, f"{FAILURE}{code}": 1}


def read_comparison(
    fields: Mapping[str, Any], *, alias: str, reference: str, canary: str, share: float
) -> CanaryReport:
    """Read the counts of a canary from fields of the ledger.

    Raises:
        ValueError: A count is not a number.
    """
    counts = {name: int(fields.get(name, 0)) for name in ("jobs", "images", "same", "same_matched")}
    flips: dict[tuple[str, str], int] = {}
    for name, count in fields.items():
        if name.startswith(FLIP):
            before, _, after = name.removeprefix(FLIP).partition(PARTER)
            flips[before, after] = int(count)
    change = int(fields.get("score_change", 0)) / MILLIONTHS
    return CanaryReport(
        alias=alias,
        reference=reference,
        canary=canary,
        share=share,
        score_change=change / counts["images"] if counts["images"] else None,
        flips=flips,
        failures={
            name.removeprefix(FAILURE): int(count)
            for name, count in fields.items()
            if name.startswith(FAILURE)
        },
        **counts,
    )
