"""Promised precision: thresholds with a bound, and honest refusals."""

import numpy as np
import pytest
from scipy.stats import beta

from labelyard.evaluation.certificates import certify, count_missing, smallest_evidence

PROMISE = {"precision": 0.95, "confidence": 0.9}


def upper_error(errors: int, pictures: int, *, confidence: float) -> float:
    """Return the Clopper-Pearson upper bound, computed another way."""
    if errors == pictures:
        return 1.0
    return float(beta.ppf(confidence, errors + 1, pictures - errors))


def draw(pictures: int, generator: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Draw answers whose precision grows with the score, from a half to 1."""
    scores = generator.uniform(size=pictures)
    return scores, generator.uniform(size=pictures) < 0.5 + 0.5 * scores**0.5


def precision_from(threshold: float) -> float:
    """Return the true precision of the answers of ``draw`` from a score on."""
    scores = np.linspace(threshold, 1.0, 20_001)
    return float((0.5 + 0.5 * scores**0.5).mean())


def test_forty_five_right_answers_without_an_error_certify_95_percent_at_90():
    assert smallest_evidence(0.95, 0.9) == 45
    scores = np.linspace(0.5, 1.0, 45)

    found = certify(scores, np.ones(45, dtype=bool), **PROMISE)

    assert found is not None
    assert (found.threshold, found.accepted, found.errors) == (0.0, 45, 0)
    assert certify(scores[:44], np.ones(44, dtype=bool), **PROMISE) is None


@pytest.mark.parametrize("precision", [0.8, 0.9, 0.95])
def test_a_promise_breaks_in_at_most_the_permitted_share_of_samples(precision):
    generator = np.random.default_rng(0)
    issued, broken = 0, 0
    for _ in range(300):
        found = certify(*draw(1_000, generator), precision=precision, confidence=0.9)
        issued += found is not None
        broken += found is not None and precision_from(found.threshold) < precision

    assert issued > 30
    assert broken <= 0.1 * 300


def test_the_evidence_of_a_certificate_satisfies_the_bound():
    generator = np.random.default_rng(3)
    scores, is_right = draw(900, generator)

    found = certify(scores, is_right, precision=0.9, confidence=0.9)

    assert found is not None
    accepted = scores >= found.threshold
    assert (found.accepted, found.errors) == (accepted.sum(), (~is_right[accepted]).sum())
    assert upper_error(found.errors, found.accepted, confidence=0.9) <= 0.1


def test_an_early_error_does_not_spoil_a_large_sample():
    scores = np.linspace(1.0, 0.0, 600)
    is_right = np.arange(600) != 3

    found = certify(scores, is_right, **PROMISE)

    assert found is not None
    assert found.accepted == 600


def test_equal_scores_are_accepted_or_refused_together():
    scores = np.repeat([0.9, 0.5], [60, 60])
    is_right = np.repeat([True, False], [60, 60])

    found = certify(scores, is_right, **PROMISE)

    assert found is not None
    assert (found.accepted, found.errors) == (60, 0)


def test_nothing_is_certified_without_pictures():
    nothing = np.empty(0), np.empty(0, dtype=bool)

    assert certify(*nothing, **PROMISE) is None
    assert count_missing(*nothing, **PROMISE) is None


@pytest.mark.parametrize(("errors", "missing"), [(0, 25), (20, None)])
def test_missing_pictures_are_those_that_the_bound_lacks(errors, missing):
    scores = np.linspace(1.0, 0.5, 20)
    is_right = np.arange(20) >= errors

    assert count_missing(scores, is_right, **PROMISE) == missing


@pytest.mark.parametrize(
    ("pictures", "errors"), [(20, {7, 12, 16, 19}), (12, {4, 6, 7, 11}), (14, {7, 12})]
)
def test_missing_pictures_are_right_within_a_tenth_though_whole_errors_make_steps(pictures, errors):
    is_right = np.array([place not in errors for place in range(pictures)])
    curve = np.concatenate([[0], np.cumsum(~is_right)])

    missing = count_missing(np.linspace(1.0, 0.5, pictures), is_right, **PROMISE)

    assert missing is not None
    for more, is_given in ((1.1 * missing, True), (0.9 * missing, False)):
        total = pictures + round(more)
        ranks = np.arange(total + 1) * pictures / total
        found = np.round(np.interp(ranks, np.arange(pictures + 1), curve) * total / pictures)
        sample = np.diff(found) == 0
        assert (certify(np.linspace(1, 0, total), sample, **PROMISE) is not None) is is_given


@pytest.mark.parametrize("first_error", [4, 8, 15])
def test_with_the_missing_pictures_the_same_mix_is_certified_and_with_a_tenth_less_it_is_not(
    first_error,
):
    scores, is_right = np.linspace(1.0, 0.5, 20), np.arange(20) != first_error

    missing = count_missing(scores, is_right, **PROMISE)

    assert missing is not None
    total = 20 + missing
    for pictures, is_given in ((round(1.1 * total), True), (round(0.9 * total), False)):
        stretched = np.floor(np.arange(pictures) * 20 / pictures).astype(int)
        found = certify(np.linspace(1, 0, pictures), is_right[stretched], **PROMISE)
        assert (found is not None) is is_given
