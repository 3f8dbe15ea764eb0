"""Measure the levels of hierarchies on labelled photographs, with the lite checkpoint.

    python -m benchmarks.labels.hierarchy PHOTOS

PHOTOS is a folder with a folder for each set, each with a ``manifest.jsonl``. Every score is made by
the worker's own code, from vectors that are computed once. Names of parents are scored as labels of
their own for comparison.
"""

import sys
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from benchmarks.labels.quality import DRAWS, few_shot, shares, zero_shot
from benchmarks.labels.vectors import PhotoSet, load_sets, texts_of
from labelyard.evaluation.calibration import fit_temperature
from labelyard.hierarchy import Hierarchy
from labelyard.messages import Label, LabelSet
from labelyard_worker.vision.tree_scores import (
    LITE_TEMPERATURE,
    LabelTree,
    NodeScores,
    find_deepest,
    score_on_host,
)

SETS: Final = ("everyday", "clothes", "grocery")
HEADS: Final = (
    *("set", "level", "nodes", "sums of labels", "without the temperature of trees"),
    *("parents' names", "16 examples"),
)
Scores = NDArray[np.float64]


def hierarchy_of(photos: PhotoSet) -> Hierarchy:
    """Return the hierarchy of a set of photographs."""
    pairs = zip(photos.labels, photos.paths, strict=True)
    found = Hierarchy.of(LabelSet(labels=tuple(Label(name=n, path=path) for n, path in pairs)))
    assert found is not None
    return found


def by_text(photos: PhotoSet) -> Scores:
    """Return the scores of all pictures as a worker makes them for a tree."""
    return shares(zero_shot(photos) / LITE_TEMPERATURE)


def score(photos: PhotoSet, scores: Scores) -> tuple[LabelTree, NodeScores]:
    """Score the nodes, and check that each parent is the sum of the labels below it."""
    tree = LabelTree(hierarchy_of(photos), is_summed=True)
    found = score_on_host(scores, tree)
    if (error := largest_error(tree, found, scores)) > 1e-6:
        raise SystemExit(f"a parent is {error} off the sum of its labels")
    return tree, found


def largest_error(tree: LabelTree, found: NodeScores, scores: Scores) -> float:
    """Return by how much a parent differs from the sum of the labels below it, at most."""
    errors = [0.0]
    for place, path in enumerate(tree.hierarchy.parents):
        below = [label[: len(path)] == path for label in tree.hierarchy.labels]
        errors.append(float(np.abs(found.parents[:, place] - scores[:, below].sum(1)).max()))
    return max(errors)


def accuracy(photos: PhotoSet, scores: Scores, *, level: int) -> float:
    """Return the percentage of test pictures whose node of a level is the best one there."""
    tree, found = score(photos, scores)
    paths = tree.hierarchy.labels
    every = np.concatenate([scores, found.parents], axis=1)
    nodes = [
        node
        for node, path in enumerate(tree.hierarchy.nodes)
        if len(path) == level or (len(path) < level and node < len(paths))
    ]
    best = every[:, nodes].argmax(axis=1)
    right = [
        tree.hierarchy.nodes[nodes[best[row]]] == paths[photos.classes[row]][:level]
        for row in photos.rows("test")
    ]
    return 100 * float(np.mean(right))


def by_names(photos: PhotoSet, *, level: int) -> float:
    """Return the same if the nodes' own names are asked for."""
    paths = [(*path, name) for name, path in zip(photos.labels, photos.paths, strict=True)]
    nodes = list(dict.fromkeys(path[:level] for path in paths))
    cosines = photos.joint @ texts_of(tuple(node[-1] for node in nodes)).T
    test = photos.rows("test")
    best = cosines[test].argmax(axis=1)
    truth = [nodes.index(paths[label][:level]) for label in photos.classes[test]]
    return 100 * float((best == truth).mean())


def print_nodes(photos: PhotoSet, name: str) -> None:
    """Print how deep the node of a picture is, and how often it is right."""
    tree, found = score(photos, by_text(photos))
    deepest, _ = find_deepest(found, tree)
    test = photos.rows("test")
    paths = tree.hierarchy.nodes
    depths = np.array([len(paths[node]) if node >= 0 else 0 for node in deepest[test]])
    right = np.array(
        [
            node >= 0 and tree.hierarchy.labels[label][: len(paths[node])] == paths[node]
            for node, label in zip(deepest[test], photos.classes[test], strict=True)
        ]
    )
    parts = [
        f"depth {depth}: {100 * (depths == depth).mean():.1f} % of the pictures, "
        f"{100 * right[depths == depth].mean() if (depths == depth).any() else 0:.1f} % right"
        for depth in range(int(depths.max()) + 1)
    ]
    print(f"{name}, node with thresholds of 0.5: {'; '.join(parts)}")


def print_temperatures(sets: dict[str, PhotoSet]) -> None:
    """Print the temperature that fits the calibration pictures of each set best."""
    found = []
    for name, photos in sets.items():
        rows = photos.rows("calibration")
        fitted = fit_temperature(zero_shot(photos)[rows], photos.classes[rows])
        found.append(f"{name} {fitted.value:.2f}")
    print(f"temperatures of the calibration pictures: {', '.join(found)}")


def main() -> None:
    """Print the table of all levels, and what the nodes are worth."""
    if len(sys.argv) != 2 or not Path(sys.argv[1]).is_dir():
        raise SystemExit(__doc__)
    sets = load_sets(Path(sys.argv[1]))
    print(f"| {' | '.join(HEADS)} |\n|{'---|' * len(HEADS)}")
    for name in SETS:
        photos = sets[name]
        tree = hierarchy_of(photos)
        for level in range(1, tree.depth + 1):
            nodes = len({path[:level] for path in tree.labels})
            taught = [
                accuracy(photos, shares(few_shot(photos, 16, seed=seed)), level=level)
                for seed in range(DRAWS)
            ]
            cells = (
                name,
                str(level),
                str(nodes),
                f"{accuracy(photos, by_text(photos), level=level):.1f} %",
                f"{accuracy(photos, shares(zero_shot(photos)), level=level):.1f} %",
                f"{by_names(photos, level=level):.1f} %",
                f"{np.mean(taught):.1f} %",
            )
            print(f"| {' | '.join(cells)} |")
    for name in SETS:
        print_nodes(sets[name], name)
    print_temperatures(sets)


if __name__ == "__main__":
    main()
