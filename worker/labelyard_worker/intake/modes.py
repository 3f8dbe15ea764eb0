"""Bring a picture of any mode upright and to RGB."""

from typing import cast

from PIL import ExifTags, Image

from labelyard_worker.intake.spec import ImageLimits

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


def orientation_of(image: Image.Image) -> int:
    """Read the EXIF orientation, 1 to 8; 1, as it stands, if there is none to be read."""
    try:
        orientation = image.getexif().get(ExifTags.Base.Orientation, 1)
    except Exception:  # noqa: BLE001 - whatever is wrong with EXIF, the picture may be fine
        return 1
    return orientation if orientation in TURNS else 1


def turn(image: Image.Image, orientation: int) -> Image.Image:
    """Turn a picture upright."""
    method = TURNS.get(orientation)
    return image if method is None else image.transpose(method)


def to_rgb(image: Image.Image, limits: ImageLimits) -> Image.Image:
    """Convert to RGB: deep greys scaled to 8 bits, transparency put on white or dropped.

    Where *limits* ask for the pipeline's pixels, Pillow's plain conversion is used, which
    is what the pipeline does: it clips deep greys and drops transparency.
    """
    if image.mode == "RGB" and "transparency" not in image.info:
        return image
    if limits.follows_pipeline:
        return image.convert("RGB")
    if image.mode in ("I", "F") or image.mode.startswith("I;16"):
        return _eight_bits(image).convert("RGB")
    if limits.transparency == "drop" or not image.has_transparency_data:
        return image.convert("RGB")
    return _on_white(image)


def _on_white(image: Image.Image) -> Image.Image:
    with_alpha = image.convert("RGBA")
    canvas = Image.new("RGB", image.size, WHITE)
    canvas.paste(with_alpha, mask=with_alpha.getchannel("A"))
    return canvas


def _eight_bits(image: Image.Image) -> Image.Image:
    """Scale a grey picture of more than 8 bits to 0..255.

    16 bits span 0..65,535. What 32-bit integers and floats span is in no header: up to 1
    (floats), 255, 65,535, or else the picture's own maximum.
    """
    if image.mode.startswith("I;16"):
        image = image.convert("I")
        white = 65_535.0
    else:
        _, brightest = cast("tuple[float, float]", image.getextrema())  # one band, one pair
        spans = (1.0, 255.0, 65_535.0) if image.mode == "F" else (255.0, 65_535.0)
        white = next((span for span in spans if brightest <= span), brightest)
    scale = 255.0 / white
    # Pillow reads this as a scale and an offset; 0.5 because it truncates.
    return image.point(lambda value: value * scale + 0.5).convert("L")
