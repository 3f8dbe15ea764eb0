"""Vectors of labelled photographs: decoded and embedded once by the worker's own code, then cached."""

import json
import time
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.folders import cache_dir
from labelyard.label_sets import as_label_set
from labelyard_worker.intake.decode import decode
from labelyard_worker.pixels import ImageLimits, Pixels
from labelyard_worker.settings import WorkerSettings
from labelyard_worker.vision.checkpoint import Checkpoint, load_checkpoint
from labelyard_worker.vision.label_index import LabelIndex

BATCH = 8
SETS = ("everyday", "clothes", "grocery", "trash", "textile", "moderation")


@dataclass(frozen=True)
class PhotoSet:
    """Vectors of one set of photographs.

    Attributes:
        labels: Names, in alphabetical order.
        classes: Index of each picture's label, shape (pictures,).
        splits: ``train``, ``calibration`` or ``test`` of each picture.
        cosines: Cosine of each picture to each label's text, shape (pictures, labels).
        joint: Unit vectors that are compared with texts, shape (pictures, dim).
        features: Unit vectors for examples, shape (pictures, dim).
        scale: Inverse temperature of the checkpoint.
        paths: Parents of each label in the manifest's hierarchy; none if it has no hierarchy.
    """

    labels: tuple[str, ...]
    classes: NDArray[np.intp]
    splits: NDArray[np.str_]
    cosines: NDArray[np.float64]
    joint: NDArray[np.float32]
    features: NDArray[np.float32]
    scale: float
    paths: tuple[tuple[str, ...], ...]

    def rows(self, split: str) -> NDArray[np.intp]:
        """Return the indices of the pictures in *split*."""
        return np.flatnonzero(self.splits == split)


@cache
def lite() -> Checkpoint:
    """Load the checkpoint, once."""
    return load_checkpoint(WorkerSettings(device="cpu"))


def texts_of(labels: tuple[str, ...]) -> NDArray[np.float32]:
    """Encode labels with the default template, shape (labels, dim)."""
    index = LabelIndex(lite(), capacity_bytes=64 * 1024 * 1024)
    try:
        return index.matrix(as_label_set(labels)).text_embeds
    finally:
        index.close()


def load_sets(photos: Path) -> dict[str, PhotoSet]:
    """Embed every set of *photos*, or read the vectors that an earlier call cached."""
    checkpoint = lite()
    folder = cache_dir() / f"labels-{checkpoint.info.fingerprint[7:23]}"
    folder.mkdir(parents=True, exist_ok=True)
    return {name: _load(photos / name, folder / f"{name}.npz", checkpoint) for name in SETS}


def _load(source: Path, cached: Path, checkpoint: Checkpoint) -> PhotoSet:
    lines = [json.loads(line) for line in (source / "manifest.jsonl").read_text().splitlines()]
    labels = tuple(sorted({line["label"] for line in lines}))
    if not cached.exists():
        started_at = time.monotonic()
        joint, features = _embed([source / line["file"] for line in lines], checkpoint)
        np.savez(cached, joint=joint, features=features)
        print(f"{source.name}: {len(lines)} pictures in {time.monotonic() - started_at:.0f} s")
    vectors = np.load(cached)
    texts = texts_of(labels)
    return PhotoSet(
        labels=labels,
        classes=np.array([labels.index(line["label"]) for line in lines]),
        splits=np.array([line["split"] for line in lines]),
        cosines=(vectors["joint"] @ texts.T).astype(np.float64),
        joint=vectors["joint"],
        features=vectors["features"],
        scale=checkpoint.logit_scale,
        paths=tuple(_parents_of(label, lines) for label in labels),
    )


def _parents_of(label: str, lines: list[dict[str, Any]]) -> tuple[str, ...]:
    """Return the path of a label's first picture, up to the label."""
    path = next(line.get("path", []) for line in lines if line["label"] == label)
    return tuple(path[: path.index(label)] if label in path else path)


def _embed(
    files: list[Path], checkpoint: Checkpoint
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    limits = ImageLimits(decode=checkpoint.decode)
    vectors = []
    for start in range(0, len(files), BATCH):
        pixels: list[Pixels] = [
            decode(path.read_bytes(), uri=path.name, spec=checkpoint.pixel_spec, limits=limits)
            for path in files[start : start + BATCH]
        ]
        vectors.append(checkpoint.image_vectors(pixels))
    rows = np.concatenate(vectors)
    joint, features = checkpoint.layout.joint(rows), checkpoint.layout.features(rows)
    return np.ascontiguousarray(joint), np.ascontiguousarray(features)
