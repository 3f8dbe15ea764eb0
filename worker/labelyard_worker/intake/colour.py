"""Turn a picture upright, and convert its colour mode to RGB."""

from typing import Final, cast

from PIL import ExifTags, Image, ImageMath

from labelyard_worker.pixels import ImageLimits

WHITE = (255, 255, 255)

# EXIF 2.32, tag 0x0112.
TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}

# Programs write a fourth channel of zeros into these and mean no transparency by it: browsers
# and Windows show such a BMP opaque, and a TIFF may not name the meaning of its extra channel.
UNUSED_ALPHA_FORMATS: Final = frozenset({"BMP", "TIFF"})

# Brightest values that a grey picture is measured against: 8, 10, 12 and 16 bits.
INTEGER_SPANS: Final = (255.0, 1023.0, 4095.0, 65_535.0)
FLOAT_SPANS: Final = (1.0, *INTEGER_SPANS)
LARGEST_FLOAT: Final = 3.4e38

# TIFF 6.0, sections 4, 8 and 19.
BITS_PER_SAMPLE: Final = 258
PHOTOMETRIC_INTERPRETATION: Final = 262
SAMPLE_FORMAT: Final = 339
WHITE_IS_ZERO: Final = 0
UNSIGNED: Final = 1


def orientation_of(image: Image.Image) -> int:
    """Read the EXIF orientation, 1 to 8; 1, as it stands, if there is none to be read."""
    try:
        orientation = image.getexif().get(ExifTags.Base.Orientation, 1)
    except Exception:  # noqa: BLE001 - the picture may be sound beside broken EXIF
        return 1
    return orientation if orientation in TURNS else 1


def turn(image: Image.Image, orientation: int) -> Image.Image:
    """Turn a picture upright."""
    method = TURNS.get(orientation)
    return image if method is None else image.transpose(method)


def to_rgb(
    image: Image.Image, limits: ImageLimits, *, composes_colour_key: bool = True
) -> Image.Image:
    """Convert a loaded picture to RGB, within *limits*.

    Args:
        image: As its decoder returned it, before any transposition: a TIFF's tags and the
            name of the format are read.
        limits: With ``decode=exact`` and ``transparency=drop`` the pixels are those of
            transformers' pipeline, which clips deep greys and drops alpha channels. Otherwise
            deep greys are scaled to 8 bits, and transparency is composed on white or dropped.
        composes_colour_key: Whether the checkpoint's image processor composes pixels of one
            transparent colour on white.
    """
    if image.mode == "RGB" and "transparency" not in image.info:
        return image
    if image.mode == "La":
        image = image.convert("LA")  # Pillow converts La to nothing else
    if limits.follows_pipeline:
        return _convert_as_pipeline(image, composes_colour_key=composes_colour_key)
    if image.mode in ("I", "F") or image.mode.startswith("I;16"):
        return _scale_deep_grey(image, limits)
    if limits.transparency == "drop" or not image.has_transparency_data:
        return image.convert("RGB")
    return _compose_on_white(image)


def _convert_as_pipeline(image: Image.Image, *, composes_colour_key: bool) -> Image.Image:
    """Convert as the pipeline does: Pillow first, then the image processor.

    Pillow's conversion drops an alpha channel and keeps a transparent colour as a colour of
    the RGB picture; the processor then composes every pixel of that colour on white.

    Source:
        transformers 5.23: ``image_utils.load_image``, ``image_transforms.convert_to_rgb``.
    """
    rgb = image.convert("RGB")
    if not composes_colour_key or rgb.info.get("transparency") is None:
        return rgb
    try:
        with_alpha = rgb.convert("RGBA")
    except (TypeError, ValueError):
        return rgb  # the pipeline fails here
    white = Image.new("RGBA", rgb.size, (*WHITE, 255))
    return Image.alpha_composite(white, with_alpha).convert("RGB")


def _compose_on_white(image: Image.Image) -> Image.Image:
    with_alpha = image.convert("RGBA")
    alpha = with_alpha.getchannel("A")
    if image.format in UNUSED_ALPHA_FORMATS and alpha.getextrema() == (0, 0):
        return image.convert("RGB")
    canvas = Image.new("RGB", image.size, WHITE)
    canvas.paste(with_alpha, mask=alpha)
    return canvas


def _scale_deep_grey(image: Image.Image, limits: ImageLimits) -> Image.Image:
    """Scale a grey picture of more than 8 bits to RGB; its transparent value becomes white."""
    key = image.info.get("transparency")
    values = image.convert("I") if image.mode.startswith("I;16") else image
    tags = cast("dict[int, int | tuple[int, ...]]", getattr(image, "tag_v2", {}))
    grey = _to_eight_bits(_repair(values, tags), tags)
    if isinstance(key, int) and limits.transparency == "white" and values.mode == "I":
        clear = values.point([255 * (value == key) for value in range(65_536)], "L")
        grey.paste(255, mask=clear)
    return grey.convert("RGB")


def _repair(values: Image.Image, tags: dict[int, int | tuple[int, ...]]) -> Image.Image:
    """Replace values that are not numbers, and read unsigned 32-bit integers as such."""
    if values.mode == "F":
        finite = ImageMath.lambda_eval(
            lambda bands: abs(bands["values"]) <= LARGEST_FLOAT, values=values
        )
        clean = Image.new("F", values.size, 0.0)
        clean.paste(values, mask=finite.convert("L").point(lambda value: value * 255, "1"))
        return clean
    is_unsigned = tags.get(SAMPLE_FORMAT, UNSIGNED) in (UNSIGNED, (UNSIGNED,))
    darkest, _ = cast("tuple[float, float]", values.getextrema())
    if darkest < 0 and tags and is_unsigned:  # Pillow reads 2 ** 31 and more as negative
        unsigned: Image.Image = ImageMath.lambda_eval(
            lambda bands: bands["values"] + (bands["values"] < 0) * float(2**32), values=values
        )
        return unsigned
    return values


def _to_eight_bits(values: Image.Image, tags: dict[int, int | tuple[int, ...]]) -> Image.Image:
    """Scale integers or floats to 0..255.

    Only the header of a TIFF of 12 bits names their range. Without negative values they
    span 1 (floats), 8, 10, 12 or 16 bits, whichever holds the brightest, or else up to it; with
    negative values they span from the darkest to the brightest.
    """
    darkest, brightest = cast("tuple[float, float]", values.getextrema())  # one band, one pair
    black = min(0.0, darkest)
    spans: tuple[float, ...] = FLOAT_SPANS if values.mode == "F" else INTEGER_SPANS
    if tags.get(BITS_PER_SAMPLE) == (12,):
        spans = (4095.0,)
    white = brightest
    if darkest >= 0:
        white = next((span for span in spans if brightest <= span), brightest)
    scale = 255.0 / (white - black) if white > black else 0.0
    offset = 0.5 - black * scale  # 0.5 because Pillow truncates
    grey = values.point(lambda value: value * scale + offset).convert("L")
    if tags.get(PHOTOMETRIC_INTERPRETATION) == WHITE_IS_ZERO:
        grey = grey.point([255 - value for value in range(256)])  # Pillow inverts 8 bits alone
    return grey
