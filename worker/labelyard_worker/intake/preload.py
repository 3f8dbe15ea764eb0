"""Modules that the fork server imports before it forks, so that a decoder starts in milliseconds."""

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

from labelyard_worker.intake import child_hardening, decode
from labelyard_worker.intake import decoder_child as decoder
from labelyard_worker.intake.formats import has_heif

has_heif()
child_hardening.scrub_environment()
child_hardening.refuse_new_privileges()

__all__ = [
    "AvifImagePlugin",
    "BmpImagePlugin",
    "GifImagePlugin",
    "JpegImagePlugin",
    "MpoImagePlugin",
    "PngImagePlugin",
    "TiffImagePlugin",
    "WebPImagePlugin",
    "decode",
    "decoder",
]
