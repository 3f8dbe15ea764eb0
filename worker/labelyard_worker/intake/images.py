"""Turn an image file's bytes into the pixels that a checkpoint expects."""

import hashlib
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

from PIL import Image, UnidentifiedImageError

from labelyard.errors import ImageError, ImageTooLargeError, ImageUndecodableError
from labelyard_worker.intake.formats import open_image, sniff
from labelyard_worker.intake.modes import orientation_of, to_rgb, turn
from labelyard_worker.intake.resize import Drafted, resize_and_crop, resized_size
from labelyard_worker.intake.spec import PREPROCESSING_VERSION, ImageLimits, Pixels, PixelSpec

__all__ = ["PREPROCESSING_VERSION", "ImageLimits", "PixelSpec", "Pixels", "decode"]

# Pillow's resize then still averages at least 2 x 2 decoded pixels into one.
DRAFT_OVERSAMPLING = 2

SIDEWAYS = (5, 6, 7, 8)
# Orientations that bring a file's right, or lower, edge to the left, or to the top.
PADDED_LEFT = (2, 3, 6, 7)
PADDED_TOP = (3, 4, 7, 8)
LONGEST_REASON = 120


def decode(raw: bytes, *, uri: str, spec: PixelSpec, limits: ImageLimits) -> Pixels:
    """Decode an image file, and bring it to the size that *spec* asks for.

    The content decides the format, never a name. Of an animation the first frame is
    taken. EXIF orientation is followed; an EXIF block that cannot be read is ignored.
    Not for several threads at once: Python's warning filters are changed meanwhile.

    Raises:
        ImageUndecodableError: Not a picture, or a damaged one.
        ImageTooLargeError: Beyond *limits*.
    """
    with foreign_errors_as_ours(raw, uri=uri), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Pillow's, about metadata that we can do without
        with open_image(raw, uri=uri, limits=limits) as opened:
            width, height = opened.size
            if limits.decode == "draft" and opened.format in ("JPEG", "MPO"):
                _draft(opened, spec)
            is_drafted = opened.size != (width, height)
            opened.load()
            orientation = orientation_of(opened)  # a TIFF's is known, and undone, once loaded
            image = to_rgb(turn(opened, orientation), limits)
            if orientation in SIDEWAYS:
                width, height = height, width
            part = _drafted(image, orientation, height, width) if is_drafted else None
            image = resize_and_crop(image, spec, drafted=part)
        return Pixels(
            data=image.tobytes(),
            height=image.height,
            width=image.width,
            source_width=width,
            source_height=height,
            sha256=hashlib.sha256(raw).hexdigest(),
        )


@contextmanager
def foreign_errors_as_ours(raw: bytes, *, uri: str) -> Iterator[None]:
    """Turn what decoders raise inside the block into our errors.

    Raises:
        ImageTooLargeError: The decoder ran out of the memory that it may take.
        ImageUndecodableError: Anything else.
    """
    try:
        yield
    except ImageError:
        raise
    except MemoryError as error:
        raise ImageTooLargeError(uri, "decoding takes more memory than is allowed") from error
    except Exception as error:
        reason = str(error)
        if "Decompressed data too large" in reason or "MAX_TEXT_MEMORY" in reason:
            raise ImageTooLargeError(uri, "its metadata unpacks to megabytes") from error
        raise ImageUndecodableError(uri, _reason(error, sniff(raw))) from error


def _reason(error: Exception, image_format: str | None) -> str:
    """Say for a person what is wrong with the file."""
    if isinstance(error, UnidentifiedImageError):  # its own text is an object's address
        return f"the header of this {image_format} is damaged"
    if "truncated" in str(error).lower():
        return f"this {image_format} is cut short"
    what = str(error).strip() or type(error).__name__
    return f"this {image_format} cannot be decoded: {what[:LONGEST_REASON]}"


def _draft(image: Image.Image, spec: PixelSpec) -> None:
    """Have a JPEG decoded at the smallest DCT scale that is still large enough."""
    width, height = image.size
    if orientation_of(image) in SIDEWAYS:
        wanted_width, wanted_height = resized_size(spec, height=width, width=height)
    else:
        wanted_height, wanted_width = resized_size(spec, height=height, width=width)
    image.draft(None, (DRAFT_OVERSAMPLING * wanted_width, DRAFT_OVERSAMPLING * wanted_height))


def _drafted(image: Image.Image, orientation: int, height: int, width: int) -> Drafted:
    """Find the picture in what was decoded; libjpeg fills up the last row and column.

    Args:
        image: Turned upright.
        orientation: By which it was turned.
        height: Of the picture, turned upright.
        width: Of the picture, turned upright.
    """
    scale = round(width / image.width) if width > height else round(height / image.height)
    exact_width, exact_height = width / scale, height / scale
    left = image.width - exact_width if orientation in PADDED_LEFT else 0.0
    top = image.height - exact_height if orientation in PADDED_TOP else 0.0
    return Drafted(height, width, (left, top, left + exact_width, top + exact_height))
