"""Hierarchy of a label set: its parents, the labels below each, and the deepest node that passes."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal, TypeAlias

Path: TypeAlias = tuple[str, ...]

#: Threshold of a node that has none of its own: it is more likely than all others of its level
#: together.
NODE_THRESHOLD: Final = 0.5
#: Between the names of a path, for people.
ARROW: Final = " > "
ROOT: Final[Path] = ()


def show_path(path: Sequence[str]) -> str:
    """Write a path for people."""
    return ARROW.join(path)


@dataclass(frozen=True)
class Hierarchy:
    """Nodes of a label set as a tree.

    Nodes are numbered: the labels first, in the order of the set, then the parents.

    Attributes:
        labels: Path of each label from the root, its own name included.
        parents: Path of each parent, in the order of the first label below it.
        thresholds: Score from which each node passes.
        children: Nodes directly below the root, then below each parent, in ascending order.
    """

    labels: tuple[Path, ...]
    parents: tuple[Path, ...]
    thresholds: tuple[float, ...]
    children: tuple[tuple[int, ...], ...]

    @classmethod
    def of(cls, label_set: Any) -> "Hierarchy | None":
        """Return the hierarchy of a ``LabelSet``; ``None`` if no label of it has a path."""
        if not any(label.path for label in label_set.labels):
            return None
        labels = tuple((*label.path, label.name) for label in label_set.labels)
        parents = parents_of(label.path for label in label_set.labels)
        own = {parent.path: parent.threshold for parent in label_set.parents}
        by_label = (label.threshold for label in label_set.labels)
        thresholds = [*by_label, *(own.get(parent) for parent in parents)]
        return cls(
            labels,
            parents,
            tuple(NODE_THRESHOLD if one is None else one for one in thresholds),
            _children_of(labels, parents),
        )

    @property
    def nodes(self) -> tuple[Path, ...]:
        """Path of each node."""
        return self.labels + self.parents

    @property
    def depth(self) -> int:
        """Number of levels."""
        return max(map(len, self.labels))

    def ancestors(self) -> tuple[tuple[int, ...], ...]:
        """Return the places of the parents above each label, from the root down."""
        places = {path: place for place, path in enumerate(self.parents)}
        return tuple(
            tuple(places[path[:length]] for length in range(1, len(path))) for path in self.labels
        )

    def parent_scores(
        self, scores: Sequence[float], scoring: Literal["softmax", "sigmoid"]
    ) -> list[float]:
        """Return the score of each parent of one picture.

        Args:
            scores: Of each label.
            scoring: Under softmax a parent has the sum of its labels, under sigmoid their largest.
        """
        found = [0.0] * len(self.parents)
        for score, above in zip(scores, self.ancestors(), strict=True):
            for parent in above:
                found[parent] = (
                    max(found[parent], score) if scoring == "sigmoid" else found[parent] + score
                )
        return found

    def deepest(self, scores: Sequence[float]) -> int | None:
        """Return the deepest node that passes, on the way of the best scores from the root down.

        Args:
            scores: Of each node; of equal ones the first is the better.
        """
        found, group = None, 0
        while True:
            best = max(self.children[group], key=lambda node: scores[node])
            if scores[best] >= self.thresholds[best]:
                found = best
            if best < len(self.labels):
                return found
            group = best - len(self.labels) + 1


def parents_of(paths: Any) -> tuple[Path, ...]:
    """Return every parent that *paths* go through, each once, in the order of the first."""
    found: Mapping[Path, None] = {
        path[:length]: None for path in paths for length in range(1, len(path) + 1)
    }
    return tuple(found)


def _children_of(labels: Sequence[Path], parents: Sequence[Path]) -> tuple[tuple[int, ...], ...]:
    groups: dict[Path, list[int]] = {path: [] for path in (ROOT, *parents)}
    for node, path in enumerate((*labels, *parents)):
        groups[path[:-1]].append(node)
    return tuple(map(tuple, groups.values()))
