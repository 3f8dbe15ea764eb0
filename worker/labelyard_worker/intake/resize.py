"""Resize and crop with Pillow exactly as transformers' PIL image processors do."""

import math
from dataclasses import dataclass

from PIL import Image

from labelyard_worker.pixels import PixelSpec

# A picture of 1 x 65,500 would be resized to 224 x 14,672,000 only to be cropped to its
# middle: beyond this many pixels the middle alone is resized, even of a whole one.
MAX_RESIZED_PX = 50_000_000


def resized_size(spec: PixelSpec, *, height: int, width: int) -> tuple[int, int]:
    """Return the height and width that *spec* resizes a picture to, before its crop.

    Source:
        transformers 5.23: ``PilBackend.resize`` and ``image_transforms.py``, whose
        truncations and roundings are kept.
    """
    match spec.resize:
        case "exact":
            return spec.height, spec.width
        case "shortest_edge":
            return _shortest_edge(spec.shortest_edge, height=height, width=width)
        case "both_edges":
            return _both_edges(spec, height=height, width=width)
        case "fit":
            scale = min(spec.height / height, spec.width / width)
            return int(height * scale), int(width * scale)
        case "patches":
            return _whole_patches(spec, height=height, width=width)
        case "none":
            return height, width


@dataclass(frozen=True, slots=True)
class Drafted:
    """Position of a picture decoded at a smaller scale within the decoded pixels.

    Attributes:
        height: Rows that a full decoding would have.
        width: Columns that a full decoding would have.
        box: Left, top, right and bottom of the picture, in decoded pixels: 1025 columns
            at half the scale are 512.5, in 513 of which the last is half padding.
    """

    height: int
    width: int
    box: tuple[float, float, float, float]


def resize_and_crop(
    image: Image.Image, spec: PixelSpec, *, drafted: Drafted | None = None
) -> Image.Image:
    """Bring an RGB picture to the size that the checkpoint expects.

    Of a picture that was decoded at a smaller scale, only the part inside the crop is
    resized: a quarter less work, and a value in 10,000 differs by one. All other pictures
    equal those of transformers to the bit.
    """
    is_exact = drafted is None
    if drafted is None:
        drafted = Drafted(image.height, image.width, (0, 0, image.width, image.height))
    height, width = resized_size(spec, height=drafted.height, width=drafted.width)
    resample = Image.Resampling(spec.resample)
    if spec.crop is None:
        if spec.resize == "none":
            return image
        return image.resize((width, height), resample, box=drafted.box)
    top, left = (height - spec.crop[0]) // 2, (width - spec.crop[1]) // 2
    box = (left, top, left + spec.crop[1], top + spec.crop[0])
    if not is_exact or height * width > MAX_RESIZED_PX:
        return _resize_middle(image, drafted, size=(height, width), box=box, resample=resample)
    if spec.resize != "none":
        image = image.resize((width, height), resample, box=drafted.box)
    return image.crop(box)  # the part outside the picture becomes black, as in transformers


def _resize_middle(
    image: Image.Image,
    drafted: Drafted,
    *,
    size: tuple[int, int],
    box: tuple[int, int, int, int],
    resample: Image.Resampling,
) -> Image.Image:
    """Resize only the part in *box* of a picture resized to *size* (height, width)."""
    height, width = size
    left, top = max(box[0], 0), max(box[1], 0)
    right, bottom = min(box[2], width), min(box[3], height)
    x, y, end_x, end_y = drafted.box
    across, down = (end_x - x) / width, (end_y - y) / height
    middle = image.resize(
        (right - left, bottom - top),
        resample,
        box=(x + left * across, y + top * down, x + right * across, y + bottom * down),
    )
    return middle.crop((box[0] - left, box[1] - top, box[2] - left, box[3] - top))


def _shortest_edge(edge: int, *, height: int, width: int) -> tuple[int, int]:
    if width <= height:
        return int(edge * height / width), edge
    return edge, int(edge * width / height)


def _both_edges(spec: PixelSpec, *, height: int, width: int) -> tuple[int, int]:
    edge, exact_edge = spec.shortest_edge, float(spec.shortest_edge)
    short, long = min(height, width), max(height, width)
    if long / short * edge > spec.longest_edge:
        exact_edge = spec.longest_edge * short / long
        edge = round(exact_edge)
    if short == edge:
        return height, width
    if width < height:
        return int(exact_edge * height / width), edge
    return edge, int(exact_edge * width / height)


def _whole_patches(
    spec: PixelSpec, *, height: int, width: int, tolerance: float = 1e-5
) -> tuple[int, int]:
    """Find by bisection the largest size of whole patches that is not too many.

    Source:
        ``get_image_size_for_max_num_patches`` of transformers 5.23 (SigLIP 2, NaFlex).
    """

    def scaled(scale: float) -> tuple[int, int]:
        return _to_patches(height * scale), _to_patches(width * scale)

    def _to_patches(edge: float) -> int:
        return max(spec.patch_size, math.ceil(edge / spec.patch_size) * spec.patch_size)

    low, high = tolerance / 10, 100.0
    while high - low >= tolerance:
        middle = (low + high) / 2
        rows, columns = (edge / spec.patch_size for edge in scaled(middle))
        if rows * columns <= spec.max_num_patches:
            low = middle
        else:
            high = middle
    return scaled(low)
