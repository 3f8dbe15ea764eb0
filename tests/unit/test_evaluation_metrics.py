"""Metrics agree with scikit-learn and scipy, and do not depend on the order of the pictures."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from sklearn import metrics as second_opinion
from sklearn.calibration import calibration_curve

from labelyard.evaluation import metrics

SEEDS = st.integers(min_value=0, max_value=2**32 - 1)


def draw(seed: int, *, n: int | None = None) -> tuple[np.ndarray, np.ndarray]:
    """Draw confidences, some of them tied, and whether each is right."""
    random = np.random.default_rng(seed)
    n = n or int(random.integers(1, 80))
    scores = random.random(n).round(int(random.integers(1, 6)))
    return scores, random.random(n) < scores


@given(n=st.integers(1, 10_000), share=st.floats(0, 1))
def test_the_wilson_interval_is_scipy_s(n: int, share: float) -> None:
    correct = round(share * n)

    low, high = metrics.wilson_interval(correct, n)

    theirs = stats.binomtest(correct, n).proportion_ci(method="wilson")
    assert (low, high) == pytest.approx((theirs.low, theirs.high), abs=1e-9)
    assert low <= correct / n <= high


def test_without_a_picture_nothing_is_known() -> None:
    assert metrics.wilson_interval(0, 0) == (0.0, 1.0)
    assert metrics.expected_calibration_error([], []) == 0.0
    assert metrics.risk_coverage_curve([], []) == []
    assert metrics.auroc([], [1.0]) is None
    assert metrics.average_precision([0.2], [False]) is None


@given(seed=SEEDS)
@settings(max_examples=25)
def test_average_precision_and_auroc_are_scikit_learn_s(seed: int) -> None:
    scores, flags = draw(seed)
    if flags.all() or not flags.any():
        flags[0] = not flags[0]

    ours = metrics.average_precision(scores, flags)
    assert ours == pytest.approx(
        second_opinion.average_precision_score(flags, scores) if flags.any() else None
    )
    if flags.any() and not flags.all():
        assert metrics.auroc(scores[flags], scores[~flags]) == pytest.approx(
            second_opinion.roc_auc_score(flags, scores)
        )


@given(seed=SEEDS)
@settings(max_examples=25)
def test_the_likelihood_is_scikit_learn_s(seed: int) -> None:
    random = np.random.default_rng(seed)
    n, labels = int(random.integers(1, 20)), int(random.integers(2, 6))
    shares = random.dirichlet(np.ones(labels), n)
    truth = np.eye(labels, dtype=bool)[random.integers(0, labels, n)]

    assert metrics.softmax_nll(shares, truth) == pytest.approx(
        second_opinion.log_loss(truth.argmax(1), shares, labels=range(labels))
    )
    by_label = [
        second_opinion.log_loss(t, s, labels=[0, 1]) for t, s in zip(truth.T, shares.T, strict=True)
    ]
    assert metrics.sigmoid_nll(shares, truth) == pytest.approx(sum(by_label))


def test_a_score_of_0_for_the_true_label_costs_much_and_not_infinity() -> None:
    assert 600 < metrics.softmax_nll([[0.0, 1.0]], [[True, False]]) < math.inf
    assert 600 < metrics.sigmoid_nll([[1.0]], [[False]]) < math.inf


@given(seed=SEEDS)
@settings(max_examples=25)
def test_precision_and_recall_are_scikit_learn_s(seed: int) -> None:
    random = np.random.default_rng(seed)
    truth, predicted = random.random((2, 30, 4)) < 0.3

    found = metrics.detections(truth, predicted)

    precision, recall, _, n = second_opinion.precision_recall_fscore_support(
        truth, predicted, zero_division=np.nan
    )
    assert [one.n for one in found] == list(n)
    nan = float("nan")
    assert [one.precision if one.predicted else nan for one in found] == pytest.approx(
        precision, nan_ok=True
    )
    assert [one.recall if one.n else nan for one in found] == pytest.approx(recall, nan_ok=True)


@given(only_first=st.integers(0, 400), only_second=st.integers(0, 400))
def test_mcnemar_s_p_is_that_of_the_binomial_test(only_first: int, only_second: int) -> None:
    n = only_first + only_second

    p = metrics.mcnemar_p(only_first, only_second)

    assert p == pytest.approx(stats.binomtest(only_first, n).pvalue if n else 1.0, rel=1e-6)


def test_bins_have_equal_mass_and_their_distances_are_averaged() -> None:
    confidences, correct = draw(7, n=3_000)
    confidences = confidences + np.random.default_rng(1).random(3_000) * 1e-9  # no ties

    curve = metrics.reliability_curve(confidences, correct)

    order = np.argsort(confidences)
    parts = np.array_split(order, 15)
    assert [one.n for one in curve] == [200] * 15
    expected = np.mean([abs(confidences[part].mean() - correct[part].mean()) for part in parts])
    assert metrics.expected_calibration_error(confidences, correct) == pytest.approx(expected)
    accuracy, mean = calibration_curve(correct, confidences, n_bins=15, strategy="quantile")
    assert [one.accuracy for one in curve] == pytest.approx(accuracy, abs=0.01)
    assert [one.confidence for one in curve] == pytest.approx(mean, abs=0.01)


@given(seed=SEEDS)
def test_the_order_of_the_pictures_changes_nothing(seed: int) -> None:
    scores, correct = draw(seed)
    order = np.random.default_rng(seed + 1).permutation(len(scores))

    assert metrics.expected_calibration_error(scores[order], correct[order]) == pytest.approx(
        metrics.expected_calibration_error(scores, correct)
    )
    assert metrics.risk_coverage_curve(
        scores[order], correct[order]
    ) == metrics.risk_coverage_curve(scores, correct)


@given(seed=SEEDS)
def test_the_risk_at_a_threshold_is_the_share_of_errors_above_it(seed: int) -> None:
    scores, correct = draw(seed)

    curve = metrics.risk_coverage_curve(scores, correct)

    assert curve[-1].coverage == 1.0
    for point in curve:
        kept = scores >= point.threshold
        assert point.coverage == pytest.approx(kept.mean())
        assert point.risk == pytest.approx((~correct[kept]).mean())
    assert 0.0 <= metrics.area_under_risk(curve) <= 1.0
