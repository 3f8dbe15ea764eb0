"""Sample pictures as bytes: every format we take, every breakage we refuse, six photographs."""

import importlib.util
import io
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

from PIL import Image, ImageDraw

Size = tuple[int, int]
SMALL: Size = (96, 64)

# Photographs that come in wheels; nothing is downloaded.
PHOTO_FILES = {
    "cat": ("skimage", "data/chelsea.png"),
    "coffee": ("skimage", "data/coffee.png"),
    "astronaut": ("skimage", "data/astronaut.png"),
    "rocket": ("skimage", "data/rocket.jpg"),
    "temple": ("sklearn", "datasets/images/china.jpg"),
    "flower": ("sklearn", "datasets/images/flower.jpg"),
}


def photo(name: str) -> bytes:
    """Return a photograph's file, one of ``PHOTO_FILES``; PNG or JPEG."""
    package, path = PHOTO_FILES[name]
    found = importlib.util.find_spec(package)  # importing them would take a second
    if found is None or found.origin is None:
        raise ModuleNotFoundError(f"{package} is missing; run: pip install 'labelyard[demo]'")
    return (Path(found.origin).parent / path).read_bytes()


def scene(size: Size = SMALL, *, seed: int = 0) -> Image.Image:
    """Draw an RGB picture with gradients and edges, another one for each seed."""
    width, height = size
    across = Image.linear_gradient("L").rotate(90).resize(size)
    down = Image.linear_gradient("L").resize(size)
    around = Image.radial_gradient("L").resize(size)
    bands = [across, down, around]
    picture = Image.merge("RGB", bands[seed % 3 :] + bands[: seed % 3])
    draw = ImageDraw.Draw(picture)
    left, top = width * (seed % 5) // 8, height * (seed % 7) // 12
    colour = (37 * seed % 256, 200, 91 * seed % 256)
    draw.rectangle((left, top, left + width // 3, top + height // 3), fill=colour)
    draw.ellipse((width // 2, height // 2, width - 1, height - 1), fill=(250, 240, 10))
    return picture


def encode(picture: Image.Image, image_format: str, **options: Any) -> bytes:
    """Return the picture as a file; options are those of ``Image.save``."""
    file = io.BytesIO()
    picture.save(file, image_format, **options)
    return file.getvalue()


def jpeg(size: Size = SMALL, *, seed: int = 0, quality: int = 90) -> bytes:
    """Make a baseline JPEG."""
    return encode(scene(size, seed=seed), "JPEG", quality=quality)


def progressive_jpeg(size: Size = SMALL) -> bytes:
    """Make a progressive JPEG."""
    return encode(scene(size), "JPEG", progressive=True)


def cmyk_jpeg(size: Size = SMALL) -> bytes:
    """Make a JPEG in four printing colours."""
    return encode(scene(size).convert("CMYK"), "JPEG")


def greyscale_jpeg(size: Size = SMALL) -> bytes:
    """Make a JPEG with one channel."""
    return encode(scene(size).convert("L"), "JPEG")


def rotated_jpeg(size: Size = SMALL, *, orientation: int = 6) -> bytes:
    """Make a JPEG with an EXIF orientation; 6 is a quarter turn clockwise."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    return encode(scene(size), "JPEG", exif=exif)


def png(size: Size = SMALL, *, seed: int = 0) -> bytes:
    """Make an RGB PNG."""
    return encode(scene(size, seed=seed), "PNG")


def palette_png(size: Size = SMALL) -> bytes:
    """Make a PNG of 16 colours."""
    return encode(scene(size).quantize(16), "PNG")


def transparent_palette_png(size: Size = SMALL) -> bytes:
    """Make a PNG of 16 colours, of which the first is transparent."""
    return encode(scene(size).quantize(16), "PNG", transparency=0)


def transparent_png(size: Size = SMALL) -> bytes:
    """Make an RGBA PNG that fades from clear to opaque."""
    picture = scene(size)
    picture.putalpha(Image.linear_gradient("L").resize(size))
    return encode(picture, "PNG")


def sixteen_bit_png(size: Size = SMALL) -> bytes:
    """Make a greyscale PNG of 16 bits a pixel."""
    width, height = size
    values = [65_535 * x // width for _ in range(height) for x in range(width)]
    return encode(Image.frombytes("I;16", size, struct.pack(f"<{len(values)}H", *values)), "PNG")


def webp(size: Size = SMALL) -> bytes:
    """Make a WebP."""
    return encode(scene(size), "WEBP")


def gif(size: Size = SMALL) -> bytes:
    """Make a GIF of one frame."""
    return encode(scene(size).quantize(64), "GIF")


def animated_gif(size: Size = SMALL, *, frames: int = 3) -> bytes:
    """Make a GIF whose frames differ; the first is ``scene(size, seed=0)`` in 64 colours."""
    first, *others = [scene(size, seed=seed).quantize(64) for seed in range(frames)]
    return encode(first, "GIF", save_all=True, append_images=others, duration=100, loop=0)


def animated_webp(size: Size = SMALL, *, frames: int = 3) -> bytes:
    """Make a WebP whose frames differ."""
    first, *others = [scene(size, seed=seed) for seed in range(frames)]
    return encode(first, "WEBP", save_all=True, append_images=others, duration=100)


def bmp(size: Size = SMALL) -> bytes:
    """Make a BMP."""
    return encode(scene(size), "BMP")


def tiff(size: Size = SMALL) -> bytes:
    """Make a TIFF."""
    return encode(scene(size), "TIFF")


def avif(size: Size = SMALL) -> bytes:
    """Make an AVIF."""
    return encode(scene(size), "AVIF")


def heic(size: Size = SMALL) -> bytes:
    """Make a HEIC; needs the package pillow-heif, and registers nothing with Pillow."""
    import pillow_heif

    file = io.BytesIO()
    pillow_heif.from_pillow(scene(size)).save(file, quality=90)
    return file.getvalue()


# Every kind of picture that decodes without further packages.
GOOD_PICTURES: dict[str, Callable[[], bytes]] = {
    "baseline.jpg": jpeg,
    "progressive.jpg": progressive_jpeg,
    "cmyk.jpg": cmyk_jpeg,
    "greyscale.jpg": greyscale_jpeg,
    "rotated.jpg": rotated_jpeg,
    "rgb.png": png,
    "palette.png": palette_png,
    "transparent_palette.png": transparent_palette_png,
    "transparent.png": transparent_png,
    "sixteen_bit.png": sixteen_bit_png,
    "still.webp": webp,
    "animated.webp": animated_webp,
    "still.gif": gif,
    "animated.gif": animated_gif,
    "plain.bmp": bmp,
    "plain.tiff": tiff,
    "plain.avif": avif,
}
