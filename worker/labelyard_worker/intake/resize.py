"""Resize and crop with Pillow exactly as transformers' PIL image processors do."""

from dataclasses import dataclass

from PIL import Image

from labelyard_worker.pixels import PixelSpec
from labelyard_worker.resized_sizes import resized_size

# A picture of 1 x 65,500 would be resized to 224 x 14,672,000 only to be cropped to its
# middle: beyond this many pixels the middle alone is resized, even of a whole one.
MAX_RESIZED_PX = 50_000_000


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
