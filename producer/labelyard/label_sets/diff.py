"""Difference of two label sets: labels that came, went or changed, and changed rules."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from labelyard.messages import LabelSet


@dataclass(frozen=True, slots=True)
class LabelSetDiff:
    """Differences between two label sets, from the first to the second.

    Attributes:
        added: Names of labels that only the second set has.
        removed: Names of labels that only the first set has.
        changed: Fields of labels that both have, by the name: before and after.
        settings: Other fields of the sets: before and after. Of ``learned`` each part by itself.
        is_reordered: Whether labels that both have stand in another order, which decides ties.
    """

    added: tuple[str, ...] = ()
    removed: tuple[str, ...] = ()
    changed: Mapping[str, Mapping[str, tuple[Any, Any]]] = field(default_factory=dict)
    settings: Mapping[str, tuple[Any, Any]] = field(default_factory=dict)
    is_reordered: bool = False

    @property
    def is_empty(self) -> bool:
        """Whether the sets are equal."""
        return self == LabelSetDiff()

    def fields(self) -> dict[str, Any]:
        """Describe the difference for programs."""
        return asdict(self)


def compare_label_sets(first: LabelSet, second: LabelSet) -> LabelSetDiff:
    """Return the differences between two label sets."""
    old = {label.name: label.model_dump(mode="json") for label in first.labels}
    new = {label.name: label.model_dump(mode="json") for label in second.labels}
    kept = [name for name in old if name in new]
    changed = {name: _changes(old[name], new[name]) for name in kept if old[name] != new[name]}
    return LabelSetDiff(
        added=tuple(name for name in new if name not in old),
        removed=tuple(name for name in old if name not in new),
        changed=changed,
        settings=_changes(_settings(first), _settings(second)),
        is_reordered=kept != [name for name in new if name in old],
    )


def _settings(label_set: LabelSet) -> dict[str, Any]:
    settings = label_set.model_dump(mode="json", exclude={"labels", "learned"})
    learned = label_set.learned
    if learned is not None:
        parts = learned.model_dump(mode="json", exclude_none=True)
        settings |= {f"learned.{name}": part for name, part in parts.items()}
    return settings


def _changes(old: Mapping[str, Any], new: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
    names = [*old, *(name for name in new if name not in old)]
    return {
        name: (old.get(name), new.get(name)) for name in names if old.get(name) != new.get(name)
    }
