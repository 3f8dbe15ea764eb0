"""Accuracy of an evaluation at each level of a hierarchy."""

from collections.abc import Sequence
from typing import Final

import numpy as np

from labelyard.errors import InvalidMessageError
from labelyard.evaluation.level_figures import LevelFigures
from labelyard.evaluation.manifest import LabelledImage
from labelyard.evaluation.metrics import wilson_interval
from labelyard.evaluation.score_table import ScoreTable
from labelyard.hierarchy import Hierarchy, Path
from labelyard.messages import LabelSet

FIRST: Final = 1


def measure_levels(table: ScoreTable, label_set: LabelSet) -> list[LevelFigures]:
    """Measure how often the best node of each level is right.

    The hierarchy is that of the set; if it has none, that of the manifest's paths. A label that
    ends above a level stands for itself there.

    Returns:
        One entry for each level, the top one first; none without a hierarchy.
    """
    images = [one.image for one in table.rows]
    tree = Hierarchy.of(label_set) or hierarchy_of_manifest(label_set, images)
    if tree is None or not images:
        return []
    of_labels = dict(zip(table.names, tree.labels, strict=True))
    truths = [true_paths(image, of_labels) for image in images]
    return [
        _measure(table, tree, truths, level=level) for level in range(FIRST, tree.depth + FIRST)
    ]


def _measure(
    table: ScoreTable, tree: Hierarchy, truths: Sequence[Sequence[Path]], *, level: int
) -> LevelFigures:
    nodes = list(dict.fromkeys(path[:level] for path in tree.labels))
    places = {path: place for place, path in enumerate(nodes)}
    scores = np.zeros((len(table.rows), len(nodes)))
    for label, path in enumerate(tree.labels):
        node = places[path[:level]]
        if table.scoring == "sigmoid":
            scores[:, node] = np.maximum(scores[:, node], table.scores[:, label])
        else:
            scores[:, node] += table.scores[:, label]
    best = scores.argmax(axis=1)
    n = correct = 0
    for row, paths in enumerate(truths):
        true = {places[path[:level]] for path in paths if path[:level] in places}
        n += bool(true)
        correct += best[row] in true and not table.abstained[row]
    return LevelFigures(
        level=level,
        nodes=len(nodes),
        n=n,
        correct=correct,
        interval=wilson_interval(correct, n) if n else (0.0, 1.0),
    )


def true_paths(image: LabelledImage, of_labels: dict[str, Path]) -> list[Path]:
    """Return the paths of the nodes that a picture shows.

    Args:
        image: With one label, its own path counts, which may go on below the label.
        of_labels: Path of each label in the hierarchy, its own name included.
    """
    if image.path and len(image.labels) <= 1:
        return [_whole(image)]
    return [of_labels[name] for name in image.labels]


def hierarchy_of_manifest(label_set: LabelSet, images: Sequence[LabelledImage]) -> Hierarchy | None:
    """Return the hierarchy that the paths of a manifest give the labels, if they make a tree."""
    paths: dict[str, Path] = {}
    for image in images:
        if image.path and len(image.labels) == 1:
            (name,) = image.labels
            whole = _whole(image)
            parents = whole[: whole.index(name)]
            if paths.setdefault(name, parents) != parents:
                return None
    labels = [
        label.model_copy(update={"path": paths.get(label.name, ())}) for label in label_set.labels
    ]
    try:
        return Hierarchy.of(LabelSet(labels=tuple(labels)))
    except InvalidMessageError:
        return None


def _whole(image: LabelledImage) -> Path:
    """Return the path of a picture, its label included."""
    missing = (name for name in image.labels if name not in image.path)
    return (*image.path, *missing)
