"""Explanation of a label: how much of its logit each hidden window of a picture takes away."""

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from labelyard.messages import LabelExplanation, Window
from labelyard.messages.explanation import ExplanationWarning
from labelyard_worker.pixels import PixelSpec
from labelyard_worker.resized_sizes import resized_size
from labelyard_worker.vision.scoring import LabelMatrix

#: Decimals of losses: two runs of one job, in other batches, differ beyond them.
DECIMALS: Final = 3
PLACES: Final = 4
#: Losses of a label count from so many times the usual loss of the other labels on: of 16 draws
#: from a normal distribution one in fifty is that far out, and the map shows the greatest of them.
LEAST_LOSS: Final = 3.0

Box = tuple[float, float, float, float]


@dataclass(frozen=True)
class Explained:
    """Losses of one label, by window.

    Attributes:
        label: Index of the label in the set.
        drops: Loss of the label's logit when each window is hidden, shape (grid, grid).
        floor: Loss that chance gives: a smaller one says nothing.
        box: The window that costs most: left, top, right and bottom, in shares of what the model
            sees.
        competitor: Index of the other label that fits best, or ``None``.
        warning: Why the losses are not to be believed, or ``None``.
    """

    label: int
    drops: NDArray[np.float64]
    floor: float
    box: Box
    competitor: int | None
    warning: ExplanationWarning | None

    def to_message(
        self, names: tuple[str, ...], scores: NDArray[np.float64], *, seen: Box, uri: str
    ) -> LabelExplanation:
        """Return the explanation as results carry it.

        Args:
            names: Of the labels, in the order of the set.
            scores: Of the whole picture, shape (labels + abstain,).
            seen: Part of the picture that the model sees.
            uri: Address of the map.
        """
        rival = self.competitor
        return LabelExplanation(
            label=names[self.label],
            score=float(scores[self.label]),
            drops=tuple(map(tuple, self.drops.tolist())),
            window=to_window(within(seen, self.box)),
            seen=to_window(seen),
            competitor=None if rival is None else names[rival],
            competitor_score=None if rival is None else float(scores[rival]),
            object_uri=uri,
            warning=self.warning,
        )


def explain_label(logits: NDArray[np.float64], label: int, *, grid: int, is_low: bool) -> Explained:
    """Compare the logits of a picture with those of its variants.

    Args:
        logits: Of the picture, then of the variant of each window, shape (1 + windows, labels).
        label: Index of the label.
        grid: Windows along each side.
        is_low: Whether the label's score for the picture is low; see :func:`is_low_score`.
    """
    drops = np.round(logits[0, label] - logits[1:, label], DECIMALS) + 0.0
    hottest = int(drops.argmax())
    row, column = divmod(hottest, grid)
    others = np.delete(np.arange(logits.shape[1]), label)
    competitor = int(others[logits[0, others].argmax()]) if len(others) else None
    losses = logits[0] - logits[1:]  # (windows, labels)
    usual = losses[:, others] if len(others) else np.delete(drops, hottest)
    floor = LEAST_LOSS * float(np.sqrt(np.mean(usual**2)))
    warning: ExplanationWarning | None = "low_score" if is_low else None
    if drops[hottest] <= floor:
        warning = "noise"
    elif competitor is not None and is_outscored(logits, losses[hottest], label, competitor):
        warning = "outscored"
    return Explained(
        label=label,
        drops=drops.reshape(grid, grid),
        floor=floor,
        box=(column / grid, row / grid, (column + 1) / grid, (row + 1) / grid),
        competitor=competitor,
        warning=warning,
    )


def is_outscored(
    logits: NDArray[np.float64], losses: NDArray[np.float64], label: int, competitor: int
) -> bool:
    """Return whether a competitor fits the picture better, and loses more by the same window."""
    is_better = logits[0, competitor] > logits[0, label]
    return bool(is_better and losses[competitor] > losses[label])


def is_low_score(labels: LabelMatrix, scores: NDArray[np.float64], label: int) -> bool:
    """Return whether a label's score is as low as that of a label that is not in the picture.

    Args:
        scores: Of the picture, shape (labels + abstain,).
        label: Index of the label.
    """
    if labels.scoring == "softmax":  # below what each would have if nothing were known
        return bool(scores[label] < 1 / len(scores))
    return bool(scores[label] < labels.thresholds[label])


def seen_part(spec: PixelSpec, *, height: int, width: int) -> Box:
    """Return the part of a picture that the model sees: a crop takes only its middle.

    Args:
        height: Pixels of the picture.
        width: Pixels of the picture.
    """
    if spec.crop is None:
        return (0.0, 0.0, 1.0, 1.0)
    rows, columns = resized_size(spec, height=height, width=width)
    top, left = (rows - spec.crop[0]) // 2, (columns - spec.crop[1]) // 2
    bottom, right = top + spec.crop[0], left + spec.crop[1]
    # Where the crop is larger than the picture, the windows go beyond its edges.
    return (left / columns, top / rows, right / columns, bottom / rows)


def within(outer: Box, inner: Box) -> Box:
    """Return a part of a part of a picture as a part of the picture, which bounds it."""
    left, top, right, bottom = outer
    width, height = right - left, bottom - top
    return (
        left + inner[0] * width,
        top + inner[1] * height,
        left + inner[2] * width,
        top + inner[3] * height,
    )


def to_window(box: Box) -> Window:
    """Return a box as messages carry it, inside the picture."""
    left, top, right, bottom = (round(min(max(share, 0.0), 1.0), PLACES) for share in box)
    return Window(left=left, top=top, right=right, bottom=bottom)
