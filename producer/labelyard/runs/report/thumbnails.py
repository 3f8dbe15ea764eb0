"""Thumbnails: pictures that were read, made small, and encoded again; no foreign byte remains."""

import base64
import io
import threading
import time
import warnings
from collections import Counter
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, Final

from labelyard.runs.report.picture_sources import PictureSource, PictureUnreadableError

#: Formats that are decoded; libtiff writes to standard error, so TIFF is not among them.
FORMATS: Final = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "AVIF")
MAX_PIXELS: Final = 64_000_000
#: Longest side; a page shows at most 176 px, which a phone draws with two or three dots each.
SIDE_PX: Final = 256
#: Sides and qualities, of which the first is used that is small enough.
STEPS: Final = ((256, 62), (224, 45), (160, 40), (112, 30), (64, 20))
READERS: Final = 8
#: After so many failures without a picture, no other is tried.
GIVE_UP_AFTER: Final = 24
#: Seconds for all pictures; those that are not read by then are left out.
TIME_LIMIT_S: Final = 180.0
PILLOW_MISSING: Final = "Pillow is not installed: pip install 'labelyard[report]'"


@dataclass(slots=True)
class Thumbnails:
    """Thumbnails by the address of their picture, and why others are missing.

    Attributes:
        by_uri: Each as a ``data:`` address.
        missing: Numbers of pictures by the reason for which they are missing.
    """

    by_uri: dict[str, str] = field(default_factory=dict)
    missing: Counter[str] = field(default_factory=Counter)


def make_thumbnails(
    uris: Iterable[str],
    source: PictureSource,
    *,
    max_bytes: int,
    time_limit_s: float = TIME_LIMIT_S,
) -> Thumbnails:
    """Read pictures and make them small.

    Args:
        uris: Addresses; each is read once.
        max_bytes: Most characters of one thumbnail's ``data:`` address.
        time_limit_s: Seconds after which no further picture is begun.
    """
    wanted = list(dict.fromkeys(uris))
    made = Thumbnails()
    if not wanted:
        return made
    try:
        import PIL.Image
    except ImportError:
        made.missing[PILLOW_MISSING] = len(wanted)
        return made
    attempts = _Attempts(source, max_bytes, until=time.monotonic() + time_limit_s)
    with warnings.catch_warnings(), ThreadPoolExecutor(READERS, "labelyard-report") as pool:
        warnings.simplefilter("error", PIL.Image.DecompressionBombWarning)
        for uri, (thumbnail, reason) in zip(wanted, pool.map(attempts.make, wanted), strict=True):
            if thumbnail:
                made.by_uri[uri] = thumbnail
            else:
                made.missing[reason] += 1
    return made


class _Attempts:
    """Attempts to make thumbnails, which end early when none succeeds or the time is over."""

    def __init__(self, source: PictureSource, max_bytes: int, *, until: float) -> None:
        self._until = until
        self._source = source
        self._max_bytes = max_bytes
        self._failures = self._successes = 0
        self._last_reason = ""
        # Decoded pictures are large: two at once keep both cores of a laptop busy.
        self._decoders = threading.Semaphore(2)

    def make(self, uri: str) -> tuple[str, str]:
        """Return a thumbnail, or an empty text and the reason."""
        if self._failures >= GIVE_UP_AFTER and not self._successes:
            return "", self._last_reason
        if time.monotonic() >= self._until:
            return "", "the time for reading pictures was over"
        try:
            content = self._source.read(uri)
            with self._decoders:
                thumbnail = shrink(content, max_bytes=self._max_bytes)
        except PictureUnreadableError as error:
            self._failures += 1
            self._last_reason = str(error)
            return "", self._last_reason
        self._successes += 1
        return thumbnail, ""


def shrink(content: bytes, *, max_bytes: int) -> str:
    """Make a thumbnail of a picture's file, as a ``data:`` address.

    Raises:
        PictureUnreadableError: The file is not a picture, or too large.
    """
    from PIL import Image, ImageOps

    try:
        with Image.open(io.BytesIO(content), formats=FORMATS) as opened:
            if opened.width * opened.height > MAX_PIXELS:
                raise PictureUnreadableError("picture above 64 million pixels")
            opened.draft("RGB", (2 * SIDE_PX, 2 * SIDE_PX))  # a JPEG decodes fewer pixels
            picture = ImageOps.exif_transpose(opened)
            if picture.mode.startswith("I"):  # 16 bits a channel, which convert() would clip
                picture = picture.convert("I").point(lambda value: value * (1 / 256)).convert("L")
            picture.thumbnail((SIDE_PX, SIDE_PX), reducing_gap=2.0)
            picture = _on_white(picture)
            for side, quality in STEPS:
                picture.thumbnail((side, side))
                address = _encoded(picture, quality)
                if len(address) <= max_bytes:
                    return address
    except PictureUnreadableError:
        raise
    except Exception as error:  # Pillow raises nearly every type on a bad file
        raise PictureUnreadableError("not a picture that can be decoded") from error
    raise PictureUnreadableError("no room left in the page")


def _on_white(picture: Any) -> Any:
    from PIL import Image

    if picture.mode in ("RGBA", "LA", "PA") or "transparency" in picture.info:
        opaque = picture.convert("RGBA")
        white = Image.new("RGBA", opaque.size, "white")
        return Image.alpha_composite(white, opaque).convert("RGB")
    return picture.convert("RGB")


def _encoded(picture: Any, quality: int) -> str:
    from PIL import features

    kind = "webp" if features.check("webp") else "jpeg"
    file = io.BytesIO()
    picture.save(file, kind.upper(), quality=quality)
    return f"data:image/{kind};base64,{base64.b64encode(file.getvalue()).decode()}"
