"""JPEGs of chosen sizes, cut from real photographs, with grain that gives them real file sizes."""

import io
import json
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from benchmarks.folders import cache_dir
from labelyard_worker.local.photographs import read_all

VERSION = 1
PICTURES = 64
BYTES_PER_PX = 0.35  # a camera's JPEG: 2 megapixels are about 700 kB
LANDSCAPE_PX = {0.02: (160, 120), 0.3: (640, 480), 2.0: (1632, 1224), 12.0: (4000, 3000)}
QUALITY = 88
SHIPPED = Path(__file__).parent / "gpu" / "photographs"
TRIES = 4


@dataclass(frozen=True, slots=True)
class Picture:
    """A JPEG on disk.

    Attributes:
        copy: Tells objects apart that are made of one file.
    """

    path: Path
    megapixels: float
    copy: int = 0

    @property
    def key(self) -> str:
        """Return the object's key in the bucket."""
        folder = f"{self.megapixels:g}mp" + (f"-{self.copy}" if self.copy else "")
        return f"{folder}/{self.path.name}"


def ensure_pictures(megapixels: float, *, shipped: bool = False) -> list[Picture]:
    """Make the pictures of one size, unless they are there.

    Args:
        megapixels: One of ``LANDSCAPE_PX``.
        shipped: Cut them from the photographs of this repository, and need no wheels.
    """
    kind = f"pictures-{VERSION}" + ("-shipped" if shipped else "")
    folder = cache_dir() / kind / f"{megapixels:g}mp"
    done = folder / "done.json"
    if not done.exists():
        folder.mkdir(parents=True, exist_ok=True)
        photographs = [_rgb(raw) for raw in (shipped_photographs() if shipped else wheels())]
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            sizes = list(
                pool.map(
                    lambda number: _make(folder, number, megapixels, photographs), range(PICTURES)
                )
            )
        done.write_text(json.dumps({"bytes": sizes}))
    return [Picture(folder / _name(number), megapixels) for number in range(PICTURES)]


def shipped_photographs() -> list[bytes]:
    """Read the photographs that come with this repository."""
    return [path.read_bytes() for path in sorted(SHIPPED.glob("*.jpg"))]


def wheels() -> list[bytes]:
    """Read the demo's photographs, which come in wheels."""
    return list(read_all().values())


def describe(pictures: Sequence[Picture]) -> dict[str, int]:
    """Return the number of files and their sizes."""
    sizes = sorted(picture.path.stat().st_size for picture in pictures)
    return {
        "pictures": len(sizes),
        "smallest_bytes": sizes[0],
        "median_bytes": sizes[len(sizes) // 2],
        "largest_bytes": sizes[-1],
    }


def _name(number: int) -> str:
    return f"{number:03d}.jpg"


def _rgb(raw: bytes) -> Image.Image:
    return Image.open(io.BytesIO(raw)).convert("RGB")


def _make(folder: Path, number: int, megapixels: float, photographs: Sequence[Image.Image]) -> int:
    """Write one picture, and return its size in bytes."""
    numbers = np.random.default_rng(number)
    size = LANDSCAPE_PX[megapixels]
    if number % 3 == 2:
        size = size[::-1]
    photograph = photographs[number % len(photographs)]
    scene = np.asarray(_cut(photograph, size, numbers), dtype=np.int16)
    raw = _with_grain(scene, numbers, wanted_bytes=int(BYTES_PER_PX * size[0] * size[1]))
    unfinished = folder / f"{number:03d}.new"
    unfinished.write_bytes(raw)
    unfinished.replace(folder / _name(number))
    return len(raw)


def _cut(
    photograph: Image.Image, size: tuple[int, int], numbers: np.random.Generator
) -> Image.Image:
    """Take a part of the photograph of the right shape, at the right size, mirrored or not."""
    width, height = photograph.size
    part = min(width / size[0], height / size[1]) * numbers.uniform(0.6, 1.0)
    across, down = size[0] * part, size[1] * part
    left, top = numbers.uniform(0, width - across), numbers.uniform(0, height - down)
    cut = photograph.resize(
        size, Image.Resampling.BICUBIC, box=(left, top, left + across, top + down)
    )
    return cut.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if numbers.random() < 0.5 else cut


def _with_grain(
    scene: "np.ndarray[tuple[int, ...], np.dtype[np.int16]]",
    numbers: np.random.Generator,
    *,
    wanted_bytes: int,
) -> bytes:
    """Add as much grain, as sensors do, as brings the file near *wanted_bytes*."""
    grain = numbers.standard_normal((*scene.shape[:2], 1), dtype=np.float32)
    strength, raw = 6.0, b""
    for _ in range(TRIES):
        pixels = (scene + (strength * grain).astype(np.int16)).clip(0, 255).astype(np.uint8)
        buffer = io.BytesIO()
        Image.fromarray(pixels).save(buffer, "JPEG", quality=QUALITY)
        raw = buffer.getvalue()
        excess = len(raw) / wanted_bytes
        if 0.85 < excess < 1.15:
            break
        strength /= excess
    return raw
