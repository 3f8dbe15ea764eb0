"""Counts of answers: a histogram of best scores, the share of each label, and abstentions."""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, TypeAlias

from labelyard.messages import ImageResult

#: Bins are equal steps of the score's logit, the scale that models work on: scores near 0 and near
#: 1 are told apart as well as those near 0.5.
STEP: Final = 0.5
LAST_BIN: Final = 31
SCORE, ANSWER = "score:", "answer:"
#: Of a picture the best label, its score, whether a label was matched, and whether the set abstained.
Answer: TypeAlias = tuple[str, float, bool, bool]
#: Labels that a baseline names; the rarer ones are counted together.
MAX_NAMED: Final = 200


def score_bin(score: float) -> int:
    """Return the bin of a score, 0 to 31: that of its logit, from -7.5 to 7.5."""
    if score <= 0:
        return 0
    if score >= 1:
        return LAST_BIN
    logit = math.log(score / (1 - score))
    return min(LAST_BIN, max(0, math.floor(logit / STEP) + (LAST_BIN + 1) // 2))


@dataclass(frozen=True, slots=True)
class AnswerCounts:
    """Counts of the answers to some pictures.

    Attributes:
        n: Number of pictures.
        scores: Pictures by the bin of their best score, see :func:`score_bin`.
        answers: Pictures by their best label; under ``""`` those of labels that are not named.
        abstained: Pictures of which the set abstained; they are in no other answer.
        unmatched: Pictures of which no label was matched, abstained ones included.
    """

    n: int = 0
    scores: tuple[int, ...] = (0,) * (LAST_BIN + 1)
    answers: Mapping[str, int] = field(default_factory=dict)
    abstained: int = 0
    unmatched: int = 0

    def __add__(self, other: "AnswerCounts") -> "AnswerCounts":
        """Return the counts of both."""
        names = dict.fromkeys([*self.answers, *other.answers])
        return AnswerCounts(
            n=self.n + other.n,
            scores=tuple(map(sum, zip(self.scores, other.scores, strict=True))),
            answers={n: self.answers.get(n, 0) + other.answers.get(n, 0) for n in names},
            abstained=self.abstained + other.abstained,
            unmatched=self.unmatched + other.unmatched,
        )

    def fields(self) -> dict[str, int]:
        """Return the counts that are not 0 by the names of their fields in the ledger."""
        named = {f"{SCORE}{at}": count for at, count in enumerate(self.scores)}
        named |= {f"{ANSWER}{label}": count for label, count in self.answers.items()}
        named |= {"n": self.n, "abstained": self.abstained, "unmatched": self.unmatched}
        return {name: count for name, count in named.items() if count}

    @classmethod
    def of_fields(cls, fields: Mapping[str, Any]) -> "AnswerCounts":
        """Read the counts from fields of the ledger; others are left out.

        Raises:
            ValueError: A count is not a number.
        """
        scores = [int(fields.get(f"{SCORE}{at}", 0)) for at in range(LAST_BIN + 1)]
        answers = {
            name.removeprefix(ANSWER): int(count)
            for name, count in fields.items()
            if name.startswith(ANSWER)
        }
        rest = {name: int(fields.get(name, 0)) for name in ("n", "abstained", "unmatched")}
        return cls(scores=tuple(scores), answers=answers, **rest)

    def bounded(self) -> "AnswerCounts":
        """Return the counts with the 200 most frequent labels, and the others together."""
        ranked = sorted(self.answers, key=lambda name: (not name, -self.answers[name], name))
        named = ranked[:MAX_NAMED]
        answers = {name: self.answers[name] for name in named}
        if rest := sum(self.answers[name] for name in ranked[MAX_NAMED:]):
            answers[""] = answers.get("", 0) + rest
        return AnswerCounts(self.n, self.scores, answers, self.abstained, self.unmatched)


def answer_counts(images: Iterable[Answer]) -> AnswerCounts:
    """Count answers."""
    scores, answers = [0] * (LAST_BIN + 1), dict[str, int]()
    n = abstained = unmatched = 0
    for label, score, is_matched, is_abstained in images:
        n += 1
        scores[score_bin(score)] += 1
        unmatched += not is_matched
        if is_abstained:
            abstained += 1
        else:
            answers[label] = answers.get(label, 0) + 1
    return AnswerCounts(n, tuple(scores), answers, abstained, unmatched)


def answers_of(images: Iterable[ImageResult]) -> list[Answer]:
    """Return the answers in a result; pictures that failed have none."""
    return [
        (image.labels[0].name, image.labels[0].score, bool(image.matched), image.abstained)
        for image in images
        if image.error is None and image.labels
    ]


def answer_fields(answers: Iterable[Answer]) -> dict[str, int]:
    """Count answers by the names of their fields in the ledger."""
    counts: dict[str, int] = {}

    def add(name: str, count: int = 1) -> None:
        counts[name] = counts.get(name, 0) + count

    for label, score, is_matched, is_abstained in answers:
        add("n")
        add(f"{SCORE}{score_bin(score)}")
        add("abstained" if is_abstained else f"{ANSWER}{label}")
        if not is_matched:
            add("unmatched")
    return counts
