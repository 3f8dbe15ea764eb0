"""Explanations from logits alone: the window, the competitor, the warning, the picture."""

import io

import numpy as np
import pytest
from PIL import Image

from labelyard.messages.explanation import WARNINGS
from labelyard_worker.pixels import ImageFacts, Pixels, PixelSpec
from labelyard_worker.vision.explanation import (
    Explained,
    explain_label,
    is_low_score,
    seen_part,
    to_window,
    within,
)
from labelyard_worker.vision.map_picture import draw_map
from labelyard_worker.vision.occlusion import Occlusion
from labelyard_worker.vision.scoring import LabelMatrix

CAT, DOG, FOX = range(3)


def logits_of(*, picture: list[float], hot: dict[int, list[float]]) -> np.ndarray:
    """Make logits of 4 x 4 windows: a window that is not *hot* changes next to nothing."""
    noise = np.random.default_rng(1).normal(scale=0.05, size=(16, 3))
    rows = np.array(picture) - noise
    for window, losses in hot.items():
        rows[window] = np.array(picture) - losses
    return np.concatenate([[picture], rows])


def explain(logits: np.ndarray, *, is_low: bool = False) -> Explained:
    return explain_label(logits, CAT, grid=4, is_low=is_low)


def test_the_window_that_costs_most_is_where_the_label_was_seen() -> None:
    found = explain(logits_of(picture=[5, 3, 1], hot={6: [4, 0.5, 0]}))

    assert found.box == (0.5, 0.25, 0.75, 0.5)
    assert found.drops[1, 2] == pytest.approx(4)
    assert (found.competitor, found.warning) == (DOG, None)


@pytest.mark.parametrize(
    ("picture", "hot", "is_low", "warning"),
    [
        ([5, 3, 1], {}, False, "noise"),
        ([5, 3, 1], {}, True, "noise"),
        ([3, 5, 1], {6: [2, 3, 0]}, False, "outscored"),
        ([1, 5, 3], {6: [2, 0.1, 0]}, True, "low_score"),
        ([3, 5, 1], {6: [2, 0.1, 0], 9: [0, 0.5, 0]}, False, None),
    ],
)
def test_a_label_that_is_not_there_carries_a_warning(
    picture: list[float], hot: dict[int, list[float]], is_low: bool, warning: str | None
) -> None:
    found = explain(logits_of(picture=picture, hot=hot), is_low=is_low)

    assert found.warning == warning
    assert warning is None or warning in WARNINGS


def test_a_lone_label_has_no_competitor() -> None:
    logits = logits_of(picture=[5, 3, 1], hot={6: [4, 0.5, 0]})[:, :1]

    found = explain(logits)

    assert (found.competitor, found.warning) == (None, None)


def matrix(scoring: str) -> LabelMatrix:
    thresholds = np.array([0.5, 0.8, np.nan])
    embeds = np.zeros((3, 4), dtype=np.float32)
    return LabelMatrix("d", ("a", "b", "c"), thresholds, embeds, scoring, 1.0)  # type: ignore[arg-type]


def test_a_score_is_low_below_chance_or_below_the_threshold_of_a_label_by_itself() -> None:
    scores = np.array([0.6, 0.34, 0.06])

    softmax = [is_low_score(matrix("softmax"), scores, label) for label in range(3)]
    sigmoid = [is_low_score(matrix("sigmoid"), scores, label) for label in range(2)]

    assert softmax == [False, False, True]
    assert sigmoid == [False, True]


@pytest.mark.parametrize(
    ("spec", "height", "width", "seen"),
    [
        (PixelSpec("exact", height=8, width=8), 50, 100, (0, 0, 1, 1)),
        (
            PixelSpec("shortest_edge", shortest_edge=256, crop=(224, 224)),
            256,
            256,
            (0.0625, 0.9375),
        ),
        (PixelSpec("shortest_edge", shortest_edge=224, crop=(224, 224)), 224, 448, (0.25, 0.75)),
    ],
)
def test_windows_divide_the_part_that_the_model_sees(
    spec: PixelSpec, height: int, width: int, seen: tuple[float, ...]
) -> None:
    found = seen_part(spec, height=height, width=width)

    assert found[::2] == pytest.approx(seen[::2] if len(seen) == 4 else seen)


def test_a_window_is_given_in_shares_of_the_whole_picture_and_inside_it() -> None:
    window = to_window(within((0.25, -0.5, 0.75, 1.5), (0.5, 0.0, 1.0, 0.5)))

    assert window.model_dump() == {"left": 0.5, "top": 0.0, "right": 0.75, "bottom": 0.5}


def occlusion(edge_px: int = 96) -> Occlusion:
    grey = bytes([128]) * (3 * edge_px**2)
    facts = ImageFacts("0" * 64, width=edge_px, height=edge_px)
    return Occlusion(Pixels(grey, edge_px, edge_px, facts), grid=4)


def colours(png: bytes) -> np.ndarray:
    with Image.open(io.BytesIO(png)) as picture:
        assert picture.format == "PNG"
        return np.asarray(picture.convert("RGB")).astype(int)


def test_the_map_is_hot_where_the_label_was_seen_and_plain_elsewhere() -> None:
    found = explain(logits_of(picture=[5, 3, 1], hot={5: [4, 0.5, 0]}))

    png = draw_map(occlusion(), found)

    drawn = colours(png)
    assert drawn.shape == (384, 384, 3)
    hot, far = drawn[144, 144], drawn[340, 340]
    assert hot[0] > hot[2] + 60
    assert abs(far - 128).max() <= 12
    assert len(png) < 60_000
    assert png == draw_map(occlusion(), found)


def test_the_map_of_noise_is_pale() -> None:
    found = explain(logits_of(picture=[5, 3, 1], hot={}))

    drawn = colours(draw_map(occlusion(), found))

    assert found.warning == "noise"
    assert (drawn[..., 0] - drawn[..., 2]).max() < 110
