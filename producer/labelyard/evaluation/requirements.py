"""Requirements on figures, such as ``accuracy>=0.9``, by which a pipeline decides."""

import operator
import re
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from labelyard.arguments import listed
from labelyard.errors import InvalidMessageError
from labelyard.evaluation.figures import Figures, LabelFigures

EXAMPLES: Final = "accuracy>=0.9, ece<=0.05 or recall[a gun]>=0.9"
EVERY: Final = "*"
_FORM: Final = re.compile(r"\s*([a-z_]+)\s*(?:\[(.*)\])?\s*(>=|<=|>|<|==|=)\s*(\S+)\s*", re.DOTALL)
_COMPARE: Final[Mapping[str, Callable[[float, float], bool]]] = {
    ">=": operator.ge,
    "<=": operator.le,
    ">": operator.gt,
    "<": operator.lt,
}
_OF_ALL: Final[Mapping[str, Callable[[Figures], float | None]]] = {
    "accuracy": lambda figures: figures.accuracy,
    "accuracy_low": lambda figures: figures.interval[0],
    "ece": lambda figures: figures.ece,
    "nll": lambda figures: figures.nll,
    "coverage": lambda figures: figures.coverage,
    "risk": lambda figures: figures.area_under_risk,
    "auroc": lambda figures: figures.none_of_these.auroc if figures.none_of_these else None,
    "auroc_fit": lambda figures: figures.none_of_these.auroc_fit if figures.none_of_these else None,
    "n": lambda figures: figures.n,
    "failed": lambda figures: figures.failed,
}
_OF_LABEL: Final[Mapping[str, Callable[[LabelFigures], float | None]]] = {
    "precision": lambda label: label.detection.precision,
    "recall": lambda label: label.detection.recall,
    "average_precision": lambda label: label.average_precision,
    "n": lambda label: label.detection.n,
}
#: Accuracy at a level of the hierarchy: ``level[1]`` is the top one.
LEVEL: Final = "level"
#: Figures without a largest value; all others are shares.
_UNBOUNDED: Final = frozenset({"n", "failed", "nll"})


@dataclass(frozen=True, slots=True)
class Requirement:
    """Bound on a figure of an evaluation, such as ``accuracy>=0.9``.

    Attributes:
        text: As it was written.
        metric: Name of the figure.
        label: Label that it is of, ``*`` for each; ``None`` for a figure of all pictures.
        relation: ``>=``, ``<=``, ``>`` or ``<``.
        bound: Number to compare with.
    """

    text: str
    metric: str
    label: str | None
    relation: str
    bound: float

    def check(self, figures: Figures) -> "CheckedRequirement":
        """Compare the figure with the bound; a figure that has no value does not pass."""
        values = self._values(figures)
        worst = None if None in values else _worst(values, self.relation)
        passed = worst is not None and _COMPARE[self.relation](worst, self.bound)
        return CheckedRequirement(self.text, worst, passed)

    def _values(self, figures: Figures) -> list[float | None]:
        if self.label is None:
            return [_OF_ALL[self.metric](figures)]
        if self.metric == LEVEL:
            levels = [one.accuracy for one in figures.levels if str(one.level) == self.label]
            return list(levels) or [None]
        read = _OF_LABEL[self.metric]
        # A label that nobody shows and nobody was given says nothing about "every label".
        return [
            read(label)
            for label in figures.labels
            if label.name == self.label or (self.label == EVERY and label.detection.n)
        ] or [None]


@dataclass(frozen=True, slots=True)
class CheckedRequirement:
    """A requirement with the figure that it was compared with.

    Attributes:
        value: The figure, of ``[*]`` that of the worst label; ``None`` if there is none.
    """

    text: str
    value: float | None
    passed: bool

    def fields(self) -> dict[str, Any]:
        """Describe the requirement for programs."""
        return {"requirement": self.text, "value": self.value, "passed": self.passed}


def _worst(values: Sequence[Any], relation: str) -> float:
    return float(min(values) if relation.startswith(">") else max(values))


def read_requirements(texts: Iterable[str], *, labels: Collection[str]) -> list[Requirement]:
    """Read requirements.

    Args:
        labels: Labels of the set.

    Raises:
        InvalidMessageError: One is not of the form, or names a figure or label that there is not.
    """
    if isinstance(texts, str):
        texts = [texts]
    return [_read(text, labels) for text in listed(texts, name="require")]


def _read(text: str, labels: Collection[str]) -> Requirement:
    found = _FORM.fullmatch(text) if isinstance(text, str) else None
    if found is None or found[3] not in _COMPARE:
        raise InvalidMessageError(f"requirement {text!r}: write one such as {EXAMPLES}")
    metric, label, relation = found[1], found[2], found[3]
    if metric == LEVEL and label is not None and label.isdecimal():
        return Requirement(text, metric, label, relation, _bound(text, metric, found[4]))
    known = _OF_ALL if label is None else _OF_LABEL
    if metric not in known:
        raise InvalidMessageError(f"requirement {text!r}: {_advice(metric, label)}")
    if label not in (None, EVERY, *labels):
        raise InvalidMessageError(f"requirement {text!r}: the label set has no label {label!r}")
    return Requirement(text, metric, label, relation, _bound(text, metric, found[4]))


def _advice(metric: str, label: str | None) -> str:
    if label is None and metric in _OF_LABEL:
        return f"{metric} is a figure of a label: write {metric}[a label], or {metric}[*] for each"
    if label is not None and metric in _OF_ALL:
        return f"{metric} is a figure of all pictures: write it without a label"
    if metric == LEVEL:
        return "level is the accuracy at a level of the hierarchy: write level[1] for the top one"
    names = ", ".join(_OF_ALL), ", ".join(_OF_LABEL)
    return f"there is no figure {metric}: the figures are {names[0]}, and of a label {names[1]}"


def _bound(text: str, metric: str, written: str) -> float:
    try:
        bound = float(written)
    except ValueError:
        raise InvalidMessageError(f"requirement {text!r}: write a number, as 0.9") from None
    largest = float("inf") if metric in _UNBOUNDED else 1.0
    if not 0.0 <= bound <= largest:
        raise InvalidMessageError(
            f"requirement {text!r}: {metric} is a share: write a number from 0 to 1, 0.9 for 90 %"
            if metric not in _UNBOUNDED
            else f"requirement {text!r}: write a number of at least 0"
        )
    return bound
