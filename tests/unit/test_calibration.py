"""Temperature of a label set: fitted, shrunk, and kept only if it helps."""

import numpy as np
import pytest
from numpy.typing import NDArray

from labelyard.evaluation.calibration import fit_temperature

Floats = NDArray[np.float64]


def draw(pictures: int, *, temperature: float, seed: int = 0) -> tuple[Floats, NDArray[np.intp]]:
    """Draw labels from the softmax of logits, and report the logits times a temperature."""
    generator = np.random.default_rng(seed)
    logits = generator.normal(size=(pictures, 6)) * 2
    labels = (logits + generator.gumbel(size=logits.shape)).argmax(1)
    return logits * temperature, labels


@pytest.mark.parametrize("temperature", [0.3, 3.0, 30.0])
def test_the_temperature_that_spoiled_the_scores_is_found(temperature):
    found = fit_temperature(*draw(2_000, temperature=temperature))

    assert found.value == pytest.approx(temperature, rel=0.1)
    assert found.nll_after < found.nll_before


def test_fewer_pictures_move_the_temperature_less():
    few, many = (fit_temperature(*draw(n, temperature=8.0)).value for n in (20, 2_000))

    assert 1.0 < few < many


def test_scores_that_are_good_keep_their_temperature_more_often_than_not():
    values = [fit_temperature(*draw(50, temperature=1.0, seed=seed)).value for seed in range(40)]

    assert np.median(values) == 1.0
    assert np.abs(np.log(values)).mean() < 0.15


def test_too_sharp_scores_by_text_are_softened_on_less_evidence_than_too_soft_ones_are_sharpened():
    sharp, soft = (
        np.mean([fit_temperature(*draw(60, temperature=t, seed=s)).value != 1 for s in range(40)])
        for t in (1.3, 1 / 1.3)
    )

    assert sharp > 0.5
    assert soft < 0.25


def test_scores_that_examples_made_change_on_clear_evidence_only():
    doubtful = [draw(60, temperature=1.3, seed=seed) for seed in range(40)]
    changed = np.mean([fit_temperature(*one, is_taught=True).value != 1 for one in doubtful])
    clear = fit_temperature(*draw(500, temperature=1.3), is_taught=True).value

    assert changed < 0.3
    assert clear == pytest.approx(1.3, rel=0.1)


def test_a_handful_of_pictures_fits_nothing():
    assert fit_temperature(*draw(9, temperature=5.0)).value == 1.0
