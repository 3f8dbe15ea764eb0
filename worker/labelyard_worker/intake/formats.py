"""Detect an image file's format by its content, and open it with that decoder alone."""

import importlib.util
import io
from functools import cache

from PIL import Image

from labelyard.errors import ImageTooLargeError, ImageUndecodableError
from labelyard_worker.pixels import ImageLimits

# Pillow's own limit warns and raises at sizes of its choosing; ours is in open_image.
Image.MAX_IMAGE_PIXELS = None

SUPPORTED = "JPEG, PNG, WebP, GIF, BMP, TIFF, AVIF, or HEIC where the worker has pillow-heif"

HEIF_BRANDS = {b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1"}
AVIF_BRANDS = {b"avif", b"avis"}

MAGIC = (
    (b"\xff\xd8\xff", "JPEG"),
    (b"\x89PNG\r\n\x1a\n", "PNG"),
    (b"GIF87a", "GIF"),
    (b"GIF89a", "GIF"),
    (b"BM", "BMP"),
    (b"II*\x00", "TIFF"),
    (b"MM\x00*", "TIFF"),
    (b"II+\x00", "TIFF"),
    (b"MM\x00+", "TIFF"),
)
# Named in the error, because these files arrive most often in a picture's place.
OTHER_FILES = (
    (b"<!doctype html", "an HTML page"),
    (b"<html", "an HTML page"),
    (b"<svg", "an SVG drawing"),
    (b"<?xml", "an XML document"),
    (b"%pdf-", "a PDF document"),
    (b"pk\x03\x04", "a ZIP archive"),
    (b"{", "a JSON document"),
)


def sniff(raw: bytes) -> str | None:
    """Return Pillow's name of the format that the first bytes show, or ``None``."""
    if raw[:4] == b"RIFF" and raw[8:12] == b"WEBP":
        return "WEBP"
    if raw[4:8] == b"ftyp":
        return _iso_media(raw)
    return next((name for magic, name in MAGIC if raw.startswith(magic)), None)


def open_image(raw: bytes, *, uri: str, limits: ImageLimits) -> Image.Image:
    """Read and check the header of an image file, without decoding a pixel.

    Raises:
        ImageUndecodableError: The format is not supported, or the file has no pixels.
        ImageTooLargeError: More bytes or pixels than *limits* allow.
    """
    if not raw:
        raise ImageUndecodableError(uri, "the file is empty")
    if len(raw) > limits.max_bytes:
        raise ImageTooLargeError(uri, f"{len(raw)} bytes; the limit is {limits.max_bytes}")
    name = sniff(raw)
    if name is None:
        raise ImageUndecodableError(uri, f"{_name_other_file(raw)}; send {SUPPORTED}")
    if name == "HEIF" and not has_heif():
        raise ImageUndecodableError(uri, "a HEIC file, and the worker has no pillow-heif")
    image = Image.open(io.BytesIO(raw), formats=[name])
    width, height = image.size
    if width * height > limits.max_pixels:
        raise ImageTooLargeError(
            uri, f"{width} x {height} pixels; the limit is {limits.max_pixels}"
        )
    if width < 1 or height < 1:
        raise ImageUndecodableError(uri, f"{width} x {height} pixels")
    return image


@cache
def has_heif() -> bool:
    """Return whether HEIC can be read, and register its decoder with Pillow if so."""
    if importlib.util.find_spec("pillow_heif") is None:
        return False
    import pillow_heif

    pillow_heif.register_heif_opener(thumbnails=False)
    return True


def _iso_media(raw: bytes) -> str | None:
    """Distinguish AVIF from HEIC by the brands of the ``ftyp`` box (ISO/IEC 14496-12, 4.3)."""
    size = min(int.from_bytes(raw[:4], "big"), 256)
    brands = {raw[8:12]} | {raw[at : at + 4] for at in range(16, size, 4)}
    if brands & AVIF_BRANDS:
        return "AVIF"
    return "HEIF" if brands & HEIF_BRANDS else None


def _name_other_file(raw: bytes) -> str:
    start = raw[:256].lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    return next((name for prefix, name in OTHER_FILES if start.startswith(prefix)), "not a picture")
