"""Scores of a hierarchy's nodes: parents from labels, and the best child of each node."""

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Final, Literal

import numpy as np
import torch
from numpy.typing import NDArray

from labelyard.hierarchy import Hierarchy

if TYPE_CHECKING:
    from labelyard_worker.vision.vector_layout import VectorLayout

#: Divides logits by text of the lite checkpoint under softmax, if the set is a tree. Temperatures
#: fitted to the calibration part of six sets of photographs are 1.4 to 3.1, and 1 for one of them:
#: one wrong label that is too sure outweighs the sum of a parent's labels.
#: ``python -m benchmarks.labels.hierarchy`` prints accuracies and temperatures.
LITE_TEMPERATURE: Final = 2.0

Indices = NDArray[np.intp]
Scores = NDArray[np.float64]
# Of a node's path, and of each name in it.
OBJECT_BYTES, NAME_BYTES = 200, 80


@dataclass(frozen=True, eq=False)
class LabelTree:
    """A hierarchy as arrays. Nodes are numbered as in :class:`Hierarchy`: labels, then parents.

    Attributes:
        hierarchy: The nodes.
        is_summed: Whether a parent has the sum of its labels (softmax), or the largest (sigmoid).
    """

    hierarchy: Hierarchy
    is_summed: bool

    @classmethod
    def of(
        cls, hierarchy: Hierarchy | None, scoring: Literal["softmax", "sigmoid"]
    ) -> "LabelTree | None":
        """Return the arrays of a hierarchy, if there is one."""
        return None if hierarchy is None else cls(hierarchy, scoring == "softmax")

    @property
    def n_parents(self) -> int:
        """Count the parents."""
        return len(self.hierarchy.parents)

    @cached_property
    def thresholds(self) -> Scores:
        """Score from which each node passes, shape (nodes,)."""
        return np.asarray(self.hierarchy.thresholds, dtype=np.float64)

    @cached_property
    def pairs(self) -> tuple[Indices, Indices]:
        """Each parent with each label below it: labels and parents, in the order of the parents."""
        found = [
            (parent, label)
            for label, above in enumerate(self.hierarchy.ancestors())
            for parent in above
        ]
        parents, labels = np.array(sorted(found), dtype=np.intp).T
        return np.ascontiguousarray(labels), np.ascontiguousarray(parents)

    @cached_property
    def children(self) -> tuple[Indices, Indices]:
        """Each node with the group that it is a child in: 0 for the root, then the parents."""
        groups = self.hierarchy.children
        nodes = np.concatenate([np.array(group, dtype=np.intp) for group in groups])
        return nodes, np.repeat(np.arange(len(groups)), [len(group) for group in groups])

    @property
    def held_bytes(self) -> int:
        """Bytes of memory that the tree takes, about: its arrays, and its paths as objects."""
        arrays = (self.thresholds, *self.pairs, *self.children)
        paths = sum(OBJECT_BYTES + NAME_BYTES * len(path) for path in self.hierarchy.nodes)
        return sum(array.nbytes for array in arrays) + paths

    @cached_property
    def on_device(self) -> dict[torch.device, tuple[torch.Tensor, ...]]:
        """Copies of ``pairs`` and ``children`` on devices that were used."""
        return {}


@dataclass(frozen=True, eq=False, slots=True)
class NodeScores:
    """Scores of the nodes of a job's images.

    Attributes:
        parents: Shape (images, parents).
        best: Best child of the root, then of each parent, shape (images, parents + 1).
        best_scores: Their scores, of the same shape.
    """

    parents: Scores
    best: Indices
    best_scores: Scores


def temperature_of(layout: "VectorLayout") -> float:
    """Return the temperature of trees for a checkpoint; that of others than lite is 1."""
    return LITE_TEMPERATURE if layout.space == "penultimate" else 1.0


def score_on_host(scores: Scores, tree: LabelTree) -> NodeScores:
    """Score the nodes on the CPU.

    Args:
        scores: Of each label, shape (images, labels).
        tree: The hierarchy.
    """
    labels, of_parents = tree.pairs
    add_up = np.add if tree.is_summed else np.maximum
    parents = add_up.reduceat(scores[:, labels], _starts(of_parents), axis=1)
    nodes, groups = tree.children
    children = np.concatenate([scores, parents], axis=1)[:, nodes]
    best_scores = np.maximum.reduceat(children, _starts(groups), axis=1)
    places = np.where(children == best_scores[:, groups], np.arange(len(nodes)), len(nodes) - 1)
    best = nodes[np.minimum.reduceat(places, _starts(groups), axis=1)]
    return NodeScores(parents, best, best_scores)


def score_on_device(scores: torch.Tensor, tree: LabelTree) -> NodeScores:
    """Score the nodes where *scores* are, and copy what is found to the host at once."""
    labels, of_parents, nodes, groups = _copies(tree, scores.device)
    images, n_parents = len(scores), tree.n_parents
    parents = scores.new_zeros((images, n_parents)).scatter_reduce_(
        1,
        of_parents.expand(images, -1),
        scores[:, labels],
        "sum" if tree.is_summed else "amax",
    )
    children = torch.cat([scores, parents], dim=1)[:, nodes]
    in_groups = groups.expand(images, -1)
    best_scores = scores.new_full((images, n_parents + 1), -np.inf)
    best_scores.scatter_reduce_(1, in_groups, children, "amax")
    numbers = torch.arange(len(nodes), device=scores.device, dtype=scores.dtype)
    places = torch.where(children == best_scores[:, groups], numbers, numbers[-1])
    first = scores.new_full(best_scores.shape, float(len(nodes) - 1))
    first.scatter_reduce_(1, in_groups, places, "amin")
    table = torch.cat([parents, best_scores, first], dim=1).cpu().numpy()
    found, best, place = np.split(table, [n_parents, 2 * n_parents + 1], axis=1)
    return NodeScores(found, tree.children[0][place.astype(np.intp)], best)


def find_deepest(found: NodeScores, tree: LabelTree) -> tuple[Indices, Scores]:
    """Find the deepest node that passes, on the way of the best scores from the root down.

    Returns:
        The node of each image, -1 if none passes, and its score, each of shape (images,).
    """
    images = np.arange(len(found.best))
    groups = np.zeros(len(images), dtype=np.intp)
    deepest, its_score = np.full(len(images), -1), np.zeros(len(images))
    n_labels = len(tree.hierarchy.labels)
    for _ in range(tree.hierarchy.depth):
        # An image that has come to a label stays in its group: nothing new passes there.
        node, score = found.best[images, groups], found.best_scores[images, groups]
        passes = score >= tree.thresholds[node]
        deepest, its_score = np.where(passes, node, deepest), np.where(passes, score, its_score)
        groups = np.where(node < n_labels, groups, node - n_labels + 1)
    return deepest, its_score


def _starts(numbers: Indices) -> Indices:
    """Return where each number first stands among ascending ones."""
    return np.flatnonzero(np.diff(numbers, prepend=-1))


def _copies(tree: LabelTree, device: torch.device) -> tuple[torch.Tensor, ...]:
    known = tree.on_device.get(device)
    if known is None:
        arrays = (*tree.pairs, *tree.children)
        known = tuple(torch.from_numpy(array).to(device) for array in arrays)
        tree.on_device[device] = known
    return known
