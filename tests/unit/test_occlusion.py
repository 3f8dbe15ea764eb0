"""Windows of a picture: together they hide all of it, each by itself only its own part."""

import numpy as np
import pytest

from labelyard_worker.pixels import ImageFacts, Pixels
from labelyard_worker.vision.occlusion import Occlusion

FACTS = ImageFacts("0" * 64, width=64, height=48)


def picture(height: int = 48, width: int = 64) -> Pixels:
    noise = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Pixels(noise.tobytes(), height, width, FACTS, stamp="noon")


def as_array(pixels: Pixels) -> np.ndarray:
    return np.frombuffer(pixels.data, np.uint8).reshape(pixels.height, pixels.width, 3).astype(int)


@pytest.mark.parametrize("grid", [2, 4, 8])
def test_there_is_a_variant_for_each_window_of_the_shape_and_facts_of_the_picture(
    grid: int,
) -> None:
    whole = picture()

    variants = Occlusion(whole, grid=grid).variants

    assert len(variants) == grid**2
    for one in variants:
        assert isinstance(one, Pixels)
        assert (one.height, one.width, one.facts, one.stamp) == (48, 64, FACTS, "noon")
        assert len(one.data) == len(whole.data)


def test_each_window_hides_its_cell_leaves_what_is_far_and_fades_in_between() -> None:
    whole = as_array(picture())
    mean = whole.mean(axis=(0, 1))
    occlusion = Occlusion(picture(), grid=4)

    variant = as_array(occlusion.variants[6])  # the second row, the third cell
    weights = occlusion.weights(6)

    assert np.abs(variant[12:24, 32:48] - mean).max() <= 1
    assert (variant[36:] == whole[36:]).all()
    assert (variant[:, :16] == whole[:, :16]).all()
    assert np.abs(np.diff(weights, axis=0)).max() < 0.2
    assert weights.max() == 1


def test_windows_hide_every_pixel_of_the_picture_as_a_whole() -> None:
    occlusion = Occlusion(picture(), grid=4)

    hidden = np.max([occlusion.weights(window) for window in range(16)], axis=0)

    assert hidden.min() == 1


def test_a_picture_smaller_than_its_grid_has_variants_all_the_same() -> None:
    tiny = Pixels(bytes(range(12)), 2, 2, FACTS)

    variants = Occlusion(tiny, grid=8).variants

    assert {len(one.data) for one in variants} == {12}
