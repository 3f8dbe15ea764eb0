"""Figures of one level of a hierarchy."""

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class LevelFigures:
    """Accuracy at one level of a hierarchy.

    Attributes:
        level: 1 is the top one.
        nodes: Parents and labels of the level.
        n: Pictures whose node of this level is known.
        correct: Those of them for which the best node is right, and the set did not abstain.
        interval: Wilson interval of the accuracy, at 95 %.
    """

    level: int
    nodes: int
    n: int
    correct: int
    interval: tuple[float, float]

    @property
    def accuracy(self) -> float | None:
        """Share of the pictures that are correct."""
        return self.correct / self.n if self.n else None

    def fields(self) -> dict[str, Any]:
        """Describe the level for programs."""
        return {
            "level": self.level,
            "nodes": self.nodes,
            "n": self.n,
            "accuracy": self.accuracy,
            "accuracy_interval": list(self.interval),
        }
