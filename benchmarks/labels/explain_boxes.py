"""Measure whether explanations point at objects, on scenes of known pictures with their boxes.

    python -m benchmarks.labels.explain_boxes PHOTOS [--set everyday] [--split test] [--scenes 30]

PHOTOS is a folder with a folder for each set, each with a ``manifest.jsonl``. Half of the scenes
have one picture on a texture, the others four pictures of different labels side by side; every
picture is an object whose label is explained, and in every scene one label is explained that is
not there. The parts are the worker's own, with the lite checkpoint.
"""

import argparse
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from benchmarks.labels.scenes import Kind, Placed, Scene, Source, make_scene
from labelyard.label_sets import as_label_set
from labelyard_worker.intake.decode import decode
from labelyard_worker.pixels import ImageLimits, Pixels
from labelyard_worker.settings import WorkerSettings
from labelyard_worker.vision.checkpoint import Checkpoint, load_checkpoint
from labelyard_worker.vision.explanation import (
    Explained,
    explain_label,
    is_low_score,
    seen_part,
    within,
)
from labelyard_worker.vision.label_index import LabelIndex
from labelyard_worker.vision.occlusion import Occlusion
from labelyard_worker.vision.scorer import Scorer
from labelyard_worker.vision.scoring import LabelMatrix

BATCH = 8


@dataclass(frozen=True)
class Found:
    """An explanation of one label in one scene.

    Attributes:
        kind: Kind of the scene.
        placed: The object, or ``None`` if the label is not in the scene.
        is_hit: Whether the middle of the hottest window is in the object's box.
        extra: Images that the model read besides the scene.
        explained: The losses.
    """

    kind: Kind
    placed: Placed | None
    is_hit: bool
    extra: int
    explained: Explained


class Meter:
    """Explains labels of scenes with one checkpoint and one label set."""

    def __init__(self, checkpoint: Checkpoint, labels: LabelMatrix, *, grid: int) -> None:
        self._checkpoint = checkpoint
        self._labels = labels
        self._scorer = Scorer.of(checkpoint, capacity_bytes=1 << 20)
        self._grid = grid

    def explain(self, scene: Scene, kind: Kind, absent: str) -> list[Found]:
        """Explain every object of a scene, and a label that is not there."""
        checkpoint = self._checkpoint
        pixels = decode(
            scene.picture,
            uri="scene.png",
            spec=checkpoint.pixel_spec,
            limits=ImageLimits(decode=checkpoint.decode),
        )
        variants = Occlusion(pixels, grid=self._grid).variants
        logits, scores = self._scorer.logits_and_scores(
            self._embed([pixels, *variants]), self._labels
        )
        facts = pixels.facts
        seen = seen_part(checkpoint.pixel_spec, height=facts.height, width=facts.width)
        found = []
        for placed in (*scene.objects, None):
            label = self._labels.names.index(absent if placed is None else placed.label)
            one = explain_label(
                logits[:, : self._labels.n_labels],
                label,
                grid=self._grid,
                is_low=is_low_score(self._labels, scores[0], label),
            )
            left, top, right, bottom = within(seen, one.box)
            is_hit = placed is not None and placed.holds((left + right) / 2, (top + bottom) / 2)
            found.append(Found(kind, placed, is_hit, len(variants), one))
        return found

    def _embed(self, pictures: list[Pixels]) -> np.ndarray:
        parts = [pictures[start : start + BATCH] for start in range(0, len(pictures), BATCH)]
        return np.concatenate([self._checkpoint.image_vectors(part) for part in parts])


def measure(
    folder: Path, splits: list[str], *, scenes: int, grid: int, seed: int, checkpoint: Checkpoint
) -> list[Found]:
    """Make scenes of one set, and explain them."""
    source = Source.read(folder, splits)
    index = LabelIndex(checkpoint, capacity_bytes=1 << 26)
    try:
        meter = Meter(checkpoint, index.matrix(as_label_set(source.labels)), grid=grid)
        found: list[Found] = []
        for number in range(scenes):
            kind: Kind = "texture" if number % 2 == 0 else "collage"
            scene = make_scene(source, kind, (seed, number))
            there = {placed.label for placed in scene.objects}
            others = [label for label in source.labels if label not in there]
            generator = np.random.default_rng([seed, number, 1])
            found += meter.explain(scene, kind, others[generator.integers(len(others))])
        return found
    finally:
        index.close()


def report(found: list[Found]) -> None:
    """Print the figures by kind of scene, and of all."""
    heads = ("scenes", "objects", "hit", "box", "hit / box", "warned", "absent", "warned")
    print(f"| {' | '.join(heads)} |\n|{'---|' * len(heads)}")
    for kind in ("texture", "collage", "all"):
        some = [one for one in found if kind in (one.kind, "all")]
        there = [one for one in some if one.placed is not None]
        absent = [one for one in some if one.placed is None]
        hit = np.mean([one.is_hit for one in there])
        area = np.mean([one.placed.area for one in there if one.placed is not None])
        warned = [
            np.mean([one.explained.warning is not None for one in part]) for part in (there, absent)
        ]
        cells = (
            *(kind, len(there), f"{100 * hit:.0f} %", f"{100 * area:.0f} %"),
            *(f"{hit / area:.1f}", f"{100 * warned[0]:.0f} %", len(absent)),
            f"{100 * warned[1]:.0f} %",
        )
        print(f"| {' | '.join(map(str, cells))} |")
    print(f"extra images of a scene: {sorted({one.extra for one in found})}")


def main() -> None:
    """Measure the sets that the command line names."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("photos", type=Path)
    parser.add_argument("--set", action="append", dest="sets")
    parser.add_argument("--split", action="append", dest="splits")
    parser.add_argument("--scenes", type=int, default=30)
    parser.add_argument("--grid", type=int, default=4)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    checkpoint = load_checkpoint(WorkerSettings(device="cpu"))
    for name in options.sets or ["everyday"]:
        splits = options.splits or ["test"]
        print(f"\n{name}, {' and '.join(splits)}:")
        started_at = time.monotonic()
        report(
            measure(
                options.photos / name,
                splits,
                scenes=options.scenes,
                grid=options.grid,
                seed=options.seed,
                checkpoint=checkpoint,
            )
        )
        print(f"{time.monotonic() - started_at:.0f} s")


if __name__ == "__main__":
    main()
