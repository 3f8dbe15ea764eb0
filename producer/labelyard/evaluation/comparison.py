"""Comparison of two evaluations on the same pictures: flips, McNemar's test, change of each label."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal

from labelyard.errors import InvalidMessageError
from labelyard.evaluation.evaluation import Evaluation
from labelyard.evaluation.figures import LabelFigures
from labelyard.evaluation.files import answer_of, is_right, write_report
from labelyard.evaluation.metrics import mcnemar_p
from labelyard.evaluation.scored_images import ScoredImage

FlipKind = Literal["fixed", "broken", "changed"]
#: Flips that ``report.json`` has; ``flips.jsonl`` has all.
MAX_EXAMPLES: Final = 50


@dataclass(frozen=True, slots=True)
class Flip:
    """A picture that two label sets answer differently.

    Attributes:
        kind: ``fixed``: only the second answer is right; ``broken``: only the first one;
            ``changed``: both are right, or both wrong.
        answers: Of the first and of the second set; ``None`` is none of these.
        scores: Best score of each.
    """

    kind: FlipKind
    scored: ScoredImage
    answers: tuple[str | None, str | None]
    scores: tuple[float, float]

    def fields(self) -> dict[str, Any]:
        """Describe the flip: a line of ``flips.jsonl``."""
        return {
            "kind": self.kind,
            "line": self.scored.image.line,
            "image": self.scored.image.image,
            "labels": list(self.scored.image.labels),
            "predicted": list(self.answers),
            "scores": list(self.scores),
        }


@dataclass(frozen=True, slots=True)
class LabelChange:
    """Figures of one label under the first and the second set; ``None`` where it is not in one."""

    name: str
    figures: tuple[LabelFigures | None, LabelFigures | None]

    def fields(self) -> dict[str, Any]:
        """Describe the change for programs: of each figure the first and the second value."""
        both = [None if one is None else one.fields() for one in self.figures]
        names = ("precision", "recall", "average_precision")
        n = max(one["n"] for one in both if one is not None)
        return {"n": n, **{name: [one and one[name] for one in both] for name in names}}


@dataclass(frozen=True, slots=True)
class Comparison:
    """Two evaluations on the same pictures.

    Attributes:
        first: Evaluation of the first set.
        second: Evaluation of the second set.
        n: Pictures with scores in both.
        right: Pictures that both, only the first, only the second and neither have right.
        mcnemar_p: Probability of a difference at least as large if both are equally good.
        flips: Pictures with different answers: broken ones first, then fixed ones, each with the
            highest scores first.
        labels: Change of each label that a picture shows.
    """

    first: Evaluation
    second: Evaluation
    n: int
    right: tuple[int, int, int, int]
    mcnemar_p: float
    flips: Sequence[Flip]
    labels: Sequence[LabelChange]

    @property
    def difference(self) -> float | None:
        """Accuracy of the second set minus that of the first, on the pictures of both."""
        _, only_first, only_second, _ = self.right
        return (only_second - only_first) / self.n if self.n else None

    def flipped(self, kind: FlipKind) -> list[Flip]:
        """Return the flips of one kind."""
        return [flip for flip in self.flips if flip.kind == kind]

    def report(self) -> dict[str, Any]:
        """Describe the comparison for programs: the content of ``report.json``."""
        both, only_first, only_second, neither = self.right
        return {
            "n": self.n,
            "difference": self.difference,
            "mcnemar_p": self.mcnemar_p,
            "right": {
                "both": both,
                "only_a": only_first,
                "only_b": only_second,
                "neither": neither,
            },
            "flips": {
                "fixed": only_second,
                "broken": only_first,
                "changed": len(self.flipped("changed")),
            },
            "a": _summary(self.first),
            "b": _summary(self.second),
            "per_label": {one.name: one.fields() for one in self.labels},
            "examples": [flip.fields() for flip in self.flips[:MAX_EXAMPLES]],
        }

    def write(self, folder: str | Path, *, has_thumbnails: bool = True) -> Path:
        """Write ``flips.jsonl``, ``report.json`` and ``report.html`` into a folder.

        Args:
            folder: Is made if there is none; files of an earlier comparison are replaced.
            has_thumbnails: Whether the page shows the flipped pictures.

        Returns:
            The folder.

        Raises:
            InvalidMessageError: The files cannot be written.
        """
        from labelyard.evaluation.report.comparison_page import comparison_page

        page = comparison_page(self, has_thumbnails=has_thumbnails)
        lines = ("flips.jsonl", (flip.fields() for flip in self.flips))
        return write_report(folder, report=self.report(), page=page, lines=lines)


def compare_evaluations(first: Evaluation, second: Evaluation) -> Comparison:
    """Compare two evaluations of the same pictures.

    Raises:
        InvalidMessageError: Their pictures are not the same.
    """
    if [one.image for one in first.scored] != [one.image for one in second.scored]:
        raise InvalidMessageError("the evaluations are not of the same pictures: compare one split")
    counts, flips, n = [0, 0, 0, 0], list[Flip](), 0
    names = [[label.name for label in one.subject.label_set.labels] for one in (first, second)]
    for one, other in zip(first.scored, second.scored, strict=True):
        if one.error is not None or other.error is not None:
            continue
        n += 1
        right = is_right(one, names[0]), is_right(other, names[1])
        counts[{(True, True): 0, (True, False): 1, (False, True): 2, (False, False): 3}[right]] += 1
        answers = answer_of(one, names[0]), answer_of(other, names[1])
        if answers[0] != answers[1] or right[0] != right[1]:
            scores = max(one.scores), max(other.scores)
            flips.append(Flip(_kind(*right), one, answers, scores))
    order = ("broken", "fixed", "changed")
    flips.sort(key=lambda flip: (order.index(flip.kind), -max(flip.scores)))
    both, only_first, only_second, neither = counts
    return Comparison(
        first=first,
        second=second,
        n=n,
        right=(both, only_first, only_second, neither),
        mcnemar_p=mcnemar_p(only_first, only_second),
        flips=flips,
        labels=list(_changes(first, second)),
    )


def _kind(is_first_right: bool, is_second_right: bool) -> FlipKind:
    if is_first_right == is_second_right:
        return "changed"
    return "broken" if is_first_right else "fixed"


def _changes(first: Evaluation, second: Evaluation) -> Iterator[LabelChange]:
    """Yield the changes of the labels that a picture shows, or that one was given."""
    before, after = first.per_label(), second.per_label()
    for name in dict.fromkeys([*before, *after]):
        pair = before.get(name), after.get(name)
        if any(one and (one.detection.n or one.detection.predicted) for one in pair):
            yield LabelChange(name, pair)


def _summary(evaluation: Evaluation) -> dict[str, Any]:
    """Describe one side: the figures of all pictures, and what was evaluated."""
    report = evaluation.report()
    names = ("n", "accuracy", "accuracy_interval", "ece", "nll", "coverage", "none_of_these")
    return {name: report[name] for name in (*names, "failed", "reference", "label_set", "cost")}
