"""Scenes of known pictures with the box of each: one on a texture, or four side by side."""

import io
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

import numpy as np
from PIL import Image

Kind = Literal["texture", "collage"]
Box = tuple[float, float, float, float]

EDGE_PX: Final = 512
#: Kept free along each edge: checkpoints that crop see the middle 87.5 % of a square picture.
MARGIN: Final = 0.0625


@dataclass(frozen=True)
class Placed:
    """One known picture in a scene.

    Attributes:
        label: What it shows.
        box: Left, top, right and bottom, in shares of the scene.
    """

    label: str
    box: Box

    @property
    def area(self) -> float:
        """Share of the scene that the picture covers."""
        left, top, right, bottom = self.box
        return (right - left) * (bottom - top)

    def holds(self, x: float, y: float) -> bool:
        """Return whether a point is in the box."""
        left, top, right, bottom = self.box
        return left <= x <= right and top <= y <= bottom


@dataclass(frozen=True)
class Scene:
    """A scene as a PNG file, and what is in it."""

    picture: bytes
    objects: tuple[Placed, ...]


@dataclass(frozen=True)
class Source:
    """Labelled pictures that scenes are made of.

    Attributes:
        labels: Names, in alphabetical order.
        files: Pictures of each label.
    """

    labels: tuple[str, ...]
    files: dict[str, list[Path]]

    @classmethod
    def read(cls, folder: Path, splits: Sequence[str]) -> "Source":
        """Read the manifest of a set, and take some splits of it."""
        lines = map(json.loads, (folder / "manifest.jsonl").read_text().splitlines())
        files: dict[str, list[Path]] = {}
        for line in lines:
            if line["split"] in splits:
                files.setdefault(line["label"], []).append(folder / line["file"])
        return cls(tuple(sorted(files)), files)

    def draw(self, label: str, edge_px: int, generator: np.random.Generator) -> Image.Image:
        """Draw a picture of a label: its middle square, resized."""
        path = self.files[label][generator.integers(len(self.files[label]))]
        with Image.open(path) as opened:
            picture = opened.convert("RGB")
        edge = min(picture.size)
        left, top = (picture.width - edge) // 2, (picture.height - edge) // 2
        middle = picture.crop((left, top, left + edge, top + edge))
        return middle.resize((edge_px, edge_px), Image.Resampling.BICUBIC)


def make_scene(source: Source, kind: Kind, seed: Sequence[int]) -> Scene:
    """Make a scene; the same seed gives the same one."""
    generator = np.random.default_rng(list(seed))
    picture = texture(generator)
    placed = []
    for label, left, top, edge in places(source, kind, generator):
        picture.paste(source.draw(label, edge, generator), (left, top))
        corners = (left, top, left + edge, top + edge)
        shares = [corner / EDGE_PX for corner in corners]
        placed.append(Placed(label, (shares[0], shares[1], shares[2], shares[3])))
    file = io.BytesIO()
    picture.save(file, "PNG")
    return Scene(file.getvalue(), tuple(placed))


def places(
    source: Source, kind: Kind, generator: np.random.Generator
) -> list[tuple[str, int, int, int]]:
    """Draw labels, with left, top and edge of each picture in pixels."""
    margin = int(EDGE_PX * MARGIN)
    if kind == "texture":
        label = source.labels[generator.integers(len(source.labels))]
        edge = int(EDGE_PX * generator.uniform(0.3, 0.5))
        left, top = generator.integers(margin, EDGE_PX - margin - edge + 1, size=2).tolist()
        return [(label, left, top, edge)]
    cell = (EDGE_PX - 2 * margin) // 2
    found = []
    count = min(4, len(source.labels) - 1)  # one label is left that is not there
    for place, label in enumerate(generator.choice(len(source.labels), count, replace=False)):
        edge = int(cell * generator.uniform(0.7, 1.0))
        x, y = generator.integers(0, cell - edge + 1, size=2).tolist()
        left, top = margin + place % 2 * cell + x, margin + place // 2 * cell + y
        found.append((source.labels[label], left, top, edge))
    return found


def texture(generator: np.random.Generator) -> Image.Image:
    """Draw coloured noise of three grain sizes."""
    colours = np.zeros((EDGE_PX, EDGE_PX, 3)) + generator.uniform(70, 180, size=3)
    for cells, strength in ((4, 60), (16, 30), (64, 20)):
        grain = generator.normal(size=(3, cells, cells)).clip(-2, 2) * strength
        for channel, values in enumerate(grain):
            layer = Image.fromarray(values.astype(np.float32))
            size = (EDGE_PX, EDGE_PX)
            colours[..., channel] += np.asarray(layer.resize(size, Image.Resampling.BICUBIC))
    return Image.fromarray(colours.clip(0, 255).astype(np.uint8))
