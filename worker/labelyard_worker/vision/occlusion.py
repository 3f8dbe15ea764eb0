"""Occlusion of a picture: variants with one window hidden each, made when the model reads them."""

from functools import cached_property
from typing import Final

import numpy as np
from numpy.typing import NDArray

from labelyard_worker.pixels import Pixels
from labelyard_worker.vision.scoring import Floats

#: Side of a window, in cells of the grid: neighbours overlap, so that an object on the line
#: between two cells is hidden as a whole by one of them.
WINDOW_CELLS: Final = 1.5
#: Width of the edge over which a window fades, in cells: a hard edge is an object of its own.
EDGE_CELLS: Final = 0.5


class OccludedPixels(Pixels):
    """A picture of which one window is hidden; its bytes are made each time that they are read.

    So a variant takes memory only while a batch is put together, beside the picture itself, which
    holds a place of the pixel budget.
    """

    __slots__ = ("_occlusion", "_window")

    def __init__(self, occlusion: "Occlusion", window: int) -> None:
        """Hide one window.

        Args:
            window: Its index, row by row from the top left.
        """
        whole = occlusion.pixels
        for name in ("height", "width", "facts", "stamp"):
            object.__setattr__(self, name, getattr(whole, name))
        object.__setattr__(self, "_occlusion", occlusion)
        object.__setattr__(self, "_window", window)

    @property
    def data(self) -> bytes:
        """The pixels, as those of the whole picture."""
        occlusion: Occlusion = object.__getattribute__(self, "_occlusion")
        window: int = object.__getattribute__(self, "_window")
        return occlusion.hide(window)


class Occlusion:
    """Windows of one picture, and the mean colour that hides them."""

    def __init__(self, pixels: Pixels, *, grid: int) -> None:
        """Divide a picture.

        Args:
            grid: Windows along each side.
        """
        self.pixels = pixels
        self.grid = grid
        self._rows = axis_weights(pixels.height, grid)
        self._columns = axis_weights(pixels.width, grid)

    @property
    def variants(self) -> list[OccludedPixels]:
        """Return a variant for each window, row by row from the top left."""
        return [OccludedPixels(self, window) for window in range(self.grid**2)]

    @cached_property
    def picture(self) -> NDArray[np.uint8]:
        """The pixels as an array, shape (height, width, 3); not a copy."""
        flat = np.frombuffer(self.pixels.data, dtype=np.uint8)
        return flat.reshape(self.pixels.height, self.pixels.width, 3)

    @cached_property
    def _fill(self) -> Floats:
        """Mean colour of the picture, shape (3,)."""
        colour: Floats = self.picture.mean(axis=(0, 1), dtype=np.float64).astype(np.float32)
        return colour

    def weights(self, window: int) -> Floats:
        """Return how far a window hides each pixel, 0 to 1, shape (height, width)."""
        row, column = divmod(window, self.grid)
        weights: Floats = self._rows[row][:, None] * self._columns[column]
        return weights

    def hide(self, window: int) -> bytes:
        """Return the bytes of the picture with one window hidden."""
        row, column = divmod(window, self.grid)
        down, across = _span(self._rows[row]), _span(self._columns[column])
        hidden = self.picture.copy()
        part = hidden[down, across]
        weights = (self._rows[row][down, None] * self._columns[column][across])[..., None]
        part[:] = np.rint(part + (self._fill - part) * weights).astype(np.uint8)
        return hidden.tobytes()


def axis_weights(length_px: int, grid: int) -> Floats:
    """Return how far each window hides each line along one axis, shape (grid, length_px)."""
    lines = (np.arange(length_px) + 0.5) * grid / length_px  # in cells
    centres = np.arange(grid) + 0.5
    beyond = np.abs(lines - centres[:, None]) - WINDOW_CELLS / 2
    weights: Floats = np.clip(0.5 - beyond / EDGE_CELLS, 0, 1).astype(np.float32)
    return weights


def _span(weights: Floats) -> slice:
    """Return the lines that a window touches."""
    touched = np.flatnonzero(weights)
    return slice(int(touched[0]), int(touched[-1]) + 1) if len(touched) else slice(0, 0)
