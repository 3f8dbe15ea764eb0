"""Turn an image file's bytes into the pixels that a checkpoint expects."""

import hashlib
import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

from PIL import Image, UnidentifiedImageError

from labelyard.errors import ImageError, ImageTooLargeError, ImageUndecodableError
from labelyard_worker.intake.colour import orientation_of, to_rgb, turn
from labelyard_worker.intake.formats import open_image, sniff
from labelyard_worker.intake.resize import Drafted, resize_and_crop
from labelyard_worker.pixels import (
    PREPROCESSING_VERSION,
    ImageFacts,
    ImageLimits,
    Pixels,
    PixelSpec,
)
from labelyard_worker.resized_sizes import resized_size

__all__ = ["PREPROCESSING_VERSION", "ImageLimits", "PixelSpec", "Pixels", "decode"]

log = logging.getLogger(__name__)

# Pillow's resize then averages at least 2 x 2 decoded pixels into one.
DRAFT_OVERSAMPLING = 2

SIDEWAYS = (5, 6, 7, 8)
# Orientations that bring a file's right, or lower, edge to the left, or to the top.
PADDED_LEFT = (2, 3, 6, 7)
PADDED_TOP = (3, 4, 7, 8)
LONGEST_REASON = 120


def decode(raw: bytes, *, uri: str, spec: PixelSpec, limits: ImageLimits) -> Pixels:
    """Decode an image file, and resize it to the size in *spec*.

    The content decides the format, never a name. Of an animation the first frame is
    taken. EXIF orientation is followed; an EXIF block that cannot be read is ignored.
    Not for several threads at once: Python's warning filters are changed meanwhile.

    Raises:
        ImageUndecodableError: The file is not a picture, or is damaged.
        ImageTooLargeError: Beyond *limits*.
    """
    with foreign_errors_as_ours(raw, uri=uri), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Pillow's, about metadata that we do not need
        if limits.decode == "draft" and sniff(raw) == "JPEG":
            try:
                return _decode(raw, uri=uri, spec=spec, limits=limits, is_drafted=True)
            except (ImageError, MemoryError):
                raise
            except Exception as error:  # noqa: BLE001 - decoding every pixel decides
                log.debug("draft_failed", extra={"fields": {"reason": str(error)}})
        return _decode(raw, uri=uri, spec=spec, limits=limits, is_drafted=False)


def _decode(
    raw: bytes, *, uri: str, spec: PixelSpec, limits: ImageLimits, is_drafted: bool
) -> Pixels:
    """Decode in one way; *is_drafted* allows a JPEG to be decoded at a smaller scale."""
    with open_image(raw, uri=uri, limits=limits) as opened:
        width, height = opened.size
        drafted_size = _draft(opened, spec) if is_drafted else None
        opened.load()
        orientation = orientation_of(opened)  # a TIFF's is known, and undone, once loaded
        rgb = to_rgb(opened, limits, composes_colour_key=spec.composes_colour_key)
        image = turn(rgb, orientation)
        if orientation in SIDEWAYS:
            width, height = height, width
        part = None
        if drafted_size is not None:
            part = Drafted(height, width, _drafted_box(image, orientation, drafted_size))
        image = resize_and_crop(image, spec, drafted=part)
    return Pixels(
        data=image.tobytes(),
        height=image.height,
        width=image.width,
        facts=ImageFacts(sha256=hashlib.sha256(raw).hexdigest(), width=width, height=height),
    )


@contextmanager
def foreign_errors_as_ours(raw: bytes, *, uri: str) -> Iterator[None]:
    """Translate decoders' exceptions raised inside the block into our errors.

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
    """Describe the file's fault for a person."""
    if isinstance(error, UnidentifiedImageError):  # its own text is an object's address
        return f"the header of this {image_format} is damaged"
    if "truncated" in str(error).lower():
        return f"this {image_format} is cut short"
    text = str(error).strip() or type(error).__name__
    return f"this {image_format} cannot be decoded: {text[:LONGEST_REASON]}"


def _draft(image: Image.Image, spec: PixelSpec) -> tuple[float, float] | None:
    """Have a JPEG decoded at the smallest DCT scale that is still large enough.

    Returns:
        Width and height of the picture at that scale, as stored, with their fractions;
        ``None`` if every pixel is decoded.
    """
    width, height = whole = image.size
    if orientation_of(image) in SIDEWAYS:
        wanted_width, wanted_height = resized_size(spec, height=width, width=height)
    else:
        wanted_height, wanted_width = resized_size(spec, height=height, width=width)
    wanted = DRAFT_OVERSAMPLING * wanted_width, DRAFT_OVERSAMPLING * wanted_height
    configured = image.draft(None, wanted)
    if configured is None or image.size == whole:
        return None
    _, (_, _, scaled_width, scaled_height) = configured
    return scaled_width, scaled_height


def _drafted_box(
    image: Image.Image, orientation: int, size: tuple[float, float]
) -> tuple[float, float, float, float]:
    """Find the picture in the decoded pixels; libjpeg fills up the last row and column.

    Args:
        image: Turned upright.
        orientation: By which it was turned.
        size: Width and height of the picture in decoded pixels, before it was turned.
    """
    width, height = reversed(size) if orientation in SIDEWAYS else size
    left = image.width - width if orientation in PADDED_LEFT else 0.0
    top = image.height - height if orientation in PADDED_TOP else 0.0
    return left, top, left + width, top + height
