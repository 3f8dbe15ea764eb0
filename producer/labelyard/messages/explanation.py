"""Explanations of scores: where in a picture a label was seen, and which label competed."""

from typing import Annotated, Final, Literal

from pydantic import Field

from labelyard.fields import AS_NUMBER
from labelyard.messages.models import Report

#: Labels that one job may have explained.
MAX_EXPLAINED_LABELS: Final = 8
MIN_GRID: Final = 2
DEFAULT_GRID: Final = 4
MAX_GRID: Final = 8
#: Extra images of one job: 16 pictures with 4 x 4 windows, 4 with 8 x 8.
MAX_OCCLUDED_IMAGES: Final = 256

#: Windows along each side of a picture.
Grid = Annotated[int, Field(ge=MIN_GRID, le=MAX_GRID), AS_NUMBER]
ExplanationWarning = Literal["noise", "outscored", "low_score"]
#: What a warning means, for people.
WARNINGS: Final[dict[str, str]] = {
    "noise": "no window matters more than chance: the label is probably not there",
    "outscored": "the window shows the competitor rather than the label",
    "low_score": "the label's score for the whole picture is low: it may not be there",
}


class Window(Report):
    """Part of a picture, in shares of its width and height, from the left and the top."""

    left: float
    top: float
    right: float
    bottom: float


class LabelExplanation(Report):
    """Where in a picture one label was seen.

    Attributes:
        label: Name of the label.
        score: Its score for the whole picture.
        drops: Loss of the label's logit when each window is hidden: rows from the top, each
            from the left. Negative where the picture fits the label better without the window.
        window: The window that the label loses most by.
        seen: Part of the picture that the model sees, which the windows divide.
        competitor: The other label that fits best; ``None`` if the set has one label.
        competitor_score: Its score for the whole picture.
        object_uri: The map as a PNG picture, laid over what the model sees.
        warning: Why the label is probably not there, or ``None``: ``noise`` (no window matters
            more than chance), ``outscored`` (the window shows the competitor rather than the
            label) or ``low_score`` (below chance; with sigmoid scores, below the threshold).
    """

    label: str
    score: float
    drops: tuple[tuple[float, ...], ...]
    window: Window
    seen: Window
    competitor: str | None = None
    competitor_score: float | None = None
    object_uri: str
    warning: ExplanationWarning | None = None


def count_occluded(grid: int) -> int:
    """Count the extra images of one explained picture, for all its labels together."""
    return grid * grid
