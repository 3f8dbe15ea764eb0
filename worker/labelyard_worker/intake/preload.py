"""Imported by the fork server before it forks, so that a child starts in milliseconds."""

from PIL import (
    AvifImagePlugin,
    BmpImagePlugin,
    GifImagePlugin,
    JpegImagePlugin,
    MpoImagePlugin,
    PngImagePlugin,
    TiffImagePlugin,
    WebPImagePlugin,
)

from labelyard_worker.intake import child, images
from labelyard_worker.intake.formats import has_heif

has_heif()

__all__ = [
    "AvifImagePlugin",
    "BmpImagePlugin",
    "GifImagePlugin",
    "JpegImagePlugin",
    "MpoImagePlugin",
    "PngImagePlugin",
    "TiffImagePlugin",
    "WebPImagePlugin",
    "child",
    "images",
]
