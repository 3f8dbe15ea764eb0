"""Pictures of explanations: the losses as a heat map over what the model sees, as PNG."""

import io
from typing import Final

import numpy as np

from labelyard_worker.vision.explanation import Explained
from labelyard_worker.vision.occlusion import Occlusion
from labelyard_worker.vision.scoring import Floats

#: Shortest edge of a map at least, in pixels: smaller pictures are enlarged a whole number of times.
LEAST_EDGE_PX: Final = 384
#: Colours of a map: a third of the bytes of one with all colours.
COLOURS: Final = 256
#: Colours of the least and the greatest loss.
COOL, HOT = (255.0, 214.0, 0.0), (230.0, 0.0, 20.0)
#: Share of the heat's colour where the loss is greatest; elsewhere the picture shows through more.
STRONGEST: Final = 0.65
#: Share of the colour in the picture below, which is greyed a little to let the heat stand out.
COLOUR_KEPT: Final = 0.5
LINE: Final = (255, 255, 255)
LINE_SHADOW: Final = (0, 0, 0)


def draw_map(occlusion: Occlusion, explained: Explained) -> bytes:
    """Draw the losses of a label over the picture, and a frame around the window that it was seen in.

    The heat is full from twice the loss that chance gives: the map of noise is pale.

    Returns:
        A PNG file; equal losses of equal pixels give equal bytes.
    """
    from PIL import Image

    heat = heat_of(occlusion, explained)[..., None]  # (height, width, 1)
    picture = occlusion.picture.astype(np.float32)
    grey = picture.mean(axis=2, keepdims=True)
    below = grey + (picture - grey) * COLOUR_KEPT
    cool, hot = (np.array(colour, dtype=np.float32) for colour in (COOL, HOT))
    above = cool + (hot - cool) * heat
    blended = below + (above - below) * STRONGEST * heat
    height, width = picture.shape[:2]
    times = max(1, -(-LEAST_EDGE_PX // min(height, width)))
    image = Image.fromarray(np.rint(blended).clip(0, 255).astype(np.uint8))
    image = image.resize((width * times, height * times), Image.Resampling.BICUBIC)
    if explained.warning is None:
        _frame(image, explained)
    file = io.BytesIO()
    image.quantize(COLOURS, Image.Quantize.MEDIANCUT, dither=Image.Dither.NONE).save(
        file, "PNG", optimize=True
    )
    return file.getvalue()


def heat_of(occlusion: Occlusion, explained: Explained) -> Floats:
    """Return the heat of each pixel, 0 to 1: the mean loss of the windows that hide it."""
    drops = np.asarray(explained.drops, dtype=np.float32).reshape(-1)
    greatest = np.float32(max(float(drops.max()), 2 * explained.floor))
    losses = np.clip(drops / greatest, 0, 1)
    shape = occlusion.picture.shape[:2]
    total: Floats = np.zeros(shape, dtype=np.float32)
    weight: Floats = np.zeros(shape, dtype=np.float32)
    for window, loss in enumerate(losses):
        weights = occlusion.weights(window)
        total += weights * np.float32(loss)
        weight += weights
    heat = total / np.maximum(weight, 1e-6)
    return heat.astype(np.float32)


def _frame(image: "object", explained: Explained) -> None:
    from PIL import Image, ImageDraw

    assert isinstance(image, Image.Image)  # noqa: S101 - Pillow is imported late
    left, top, right, bottom = explained.box
    corners = [
        (round(left * (image.width - 1)), round(top * (image.height - 1))),
        (round(right * (image.width - 1)), round(bottom * (image.height - 1))),
    ]
    draw = ImageDraw.Draw(image)
    draw.rectangle(corners, outline=LINE_SHADOW, width=6)
    draw.rectangle(corners, outline=LINE, width=3)
