"""Metrics of classifiers: accuracy, calibration, likelihood, precision and recall, ranking."""

import math
from collections.abc import Sequence
from typing import Final, TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray

from labelyard.evaluation.figures import Detection, ReliabilityBin, RiskPoint

Floats64: TypeAlias = NDArray[np.float64]
Flags: TypeAlias = NDArray[np.bool_]

#: Bins of the calibration error, each with the same number of pictures.
ECE_BINS: Final = 15
#: Normal quantile of a two-sided interval at 95 %.
Z_95: Final = 1.959963984540054
#: Least probability in a likelihood: a score that float64 rounded to 0 costs 690 and not infinity.
MIN_PROBABILITY: Final = 1e-300


def wilson_interval(correct: float, n: int, *, z: float = Z_95) -> tuple[float, float]:
    """Compute the Wilson score interval of a share.

    Args:
        correct: Number of successes, 0 to *n*.
        n: Number of trials; of none nothing is known, so the interval is 0 to 1.
        z: Normal quantile; the default is of 95 %, two-sided.

    Source:
        Wilson 1927, doi 10.1080/01621459.1927.10502953.
    """
    if n == 0:
        return 0.0, 1.0
    share = correct / n
    middle = (share + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n))
    # A share of 0 or 1 is part of its interval, whatever the rounding.
    return min(max(0.0, middle - half), share), max(min(1.0, middle + half), share)


def _shared_by_ties(confidences: Floats64, values: Floats64) -> tuple[Floats64, Floats64]:
    """Sort by confidence, and give equal confidences the mean of their values.

    So no metric depends on the order in which the pictures came.
    """
    distinct, places, counts = np.unique(confidences, return_inverse=True, return_counts=True)
    means = np.bincount(places, weights=values, minlength=len(distinct)) / counts
    return np.repeat(distinct, counts), np.repeat(means, counts)


def _ends_of_ties(ranked: Floats64) -> NDArray[np.intp]:
    """Return the last index of each run of equal values."""
    return np.flatnonzero(np.append(ranked[1:] != ranked[:-1], [True] * min(1, len(ranked))))


def reliability_curve(
    confidences: ArrayLike, correct: ArrayLike, *, bins: int = ECE_BINS
) -> list[ReliabilityBin]:
    """Compare confidence and accuracy, in bins with the same number of pictures.

    Args:
        confidences: Best score of each picture, shape (images,).
        correct: Whether the best label is true, shape (images,).
        bins: Number of bins; fewer pictures make fewer bins.

    Returns:
        The bins, the least confident one first.
    """
    ranked, hits = _shared_by_ties(
        np.asarray(confidences, dtype=np.float64), np.asarray(correct, dtype=np.float64)
    )
    parts = np.array_split(np.arange(len(ranked)), min(bins, len(ranked))) if len(ranked) else []
    return [
        ReliabilityBin(
            n=len(part),
            confidence=float(ranked[part].mean()),
            accuracy=float(hits[part].mean()),
            interval=wilson_interval(float(hits[part].sum()), len(part)),
        )
        for part in parts
    ]


def expected_calibration_error(
    confidences: ArrayLike, correct: ArrayLike, *, bins: int = ECE_BINS
) -> float:
    """Compute the mean distance between confidence and accuracy, over bins of equal mass.

    Returns:
        0 to 1; 0 if there are no pictures.

    Source:
        Naeini et al. 2015, doi 10.1609/aaai.v29i1.9602, with bins of equal mass as in Nixon et
        al. 2019, arXiv:1904.01685, section 3.2.
    """
    curve = reliability_curve(confidences, correct, bins=bins)
    total = sum(one.n for one in curve)
    return sum(one.n * abs(one.confidence - one.accuracy) for one in curve) / max(1, total)


def risk_coverage_curve(confidences: ArrayLike, correct: ArrayLike) -> list[RiskPoint]:
    """Compute the error among the most confident pictures, for every possible threshold.

    Returns:
        A point for each distinct confidence, the highest first; the last has coverage 1.

    Source:
        El-Yaniv and Wiener 2010, JMLR 11, section 2.
    """
    scores = np.asarray(confidences, dtype=np.float64)
    wrong = 1.0 - np.asarray(correct, dtype=np.float64)
    order = np.argsort(-scores, kind="stable")
    ranked, errors = scores[order], wrong[order].cumsum()
    return [
        RiskPoint(
            coverage=float((end + 1) / len(ranked)),
            risk=float(errors[end] / (end + 1)),
            threshold=float(ranked[end]),
        )
        for end in _ends_of_ties(ranked)
    ]


def area_under_risk(curve: Sequence[RiskPoint]) -> float:
    """Return the mean risk over all coverages; lower is better, 0 is without an error."""
    area, before = 0.0, 0.0
    for point in curve:
        area += point.risk * (point.coverage - before)
        before = point.coverage
    return area


def softmax_nll(scores: ArrayLike, truth: ArrayLike) -> float:
    """Compute the mean negative logarithm of the share that the true labels have.

    Args:
        scores: Shares of each label, shape (images, labels).
        truth: Whether each label is true, at least one for each image, shape (images, labels).
    """
    shares = np.where(np.asarray(truth, dtype=bool), scores, 0.0).sum(axis=1)
    return float(-np.log(np.clip(shares, MIN_PROBABILITY, 1.0)).mean())


def sigmoid_nll(scores: ArrayLike, truth: ArrayLike) -> float:
    """Compute the binary cross entropy of each image, summed over its labels; the mean of images.

    Args:
        scores: Score of each label by itself, shape (images, labels).
        truth: Whether each label is true, shape (images, labels).
    """
    given = np.asarray(scores, dtype=np.float64)
    right = np.where(np.asarray(truth, dtype=bool), given, 1.0 - given)
    return float(-np.log(np.clip(right, MIN_PROBABILITY, 1.0)).sum(axis=1).mean())


def average_precision(scores: ArrayLike, is_true: ArrayLike) -> float | None:
    """Compute the area under the curve of precision and recall, as a sum over thresholds.

    Returns:
        0 to 1; ``None`` if the label is true for no picture.

    Source:
        Sum of precision times the increase in recall at each distinct score, as
        ``sklearn.metrics.average_precision_score``; without interpolation.
    """
    given, flags = np.asarray(scores, dtype=np.float64), np.asarray(is_true, dtype=bool)
    if not flags.any():
        return None
    order = np.argsort(-given, kind="stable")
    ranked, hits = given[order], flags[order].cumsum()
    ends = _ends_of_ties(ranked)
    recalls = hits[ends] / hits[-1]
    return float((np.diff(recalls, prepend=0.0) * hits[ends] / (ends + 1)).sum())


def auroc(positive: ArrayLike, negative: ArrayLike) -> float | None:
    """Compute the probability that a positive scores above a negative; ties count as one half.

    Returns:
        0 to 1; ``None`` if one of them is empty.

    Source:
        Mann-Whitney statistic, after Hanley and McNeil 1982, doi 10.1148/radiology.143.1.7063747.
    """
    above, below = np.asarray(positive, dtype=np.float64), np.asarray(negative, dtype=np.float64)
    if not above.size or not below.size:
        return None
    ranked = np.sort(below)
    lower, upper = np.searchsorted(ranked, above), np.searchsorted(ranked, above, side="right")
    return float((lower + upper).sum() / (2 * above.size * below.size))


def detections(truth: Flags, predicted: Flags) -> list[Detection]:
    """Count the decisions of each label.

    Args:
        truth: Whether each label is true, shape (images, labels).
        predicted: Whether each label was given, of the same shape.
    """
    columns = zip(truth.sum(0), predicted.sum(0), (truth & predicted).sum(0), strict=True)
    return [Detection(int(n), int(given), int(both)) for n, given, both in columns]


def mcnemar_p(only_first: int, only_second: int) -> float:
    """Compute the exact two-sided p of McNemar's test.

    Args:
        only_first: Pictures that only the first classifier has right.
        only_second: Pictures that only the second one has right.

    Returns:
        Probability of a difference at least as large if both are equally good.

    Source:
        McNemar 1947, doi 10.1007/BF02295996, with the binomial distribution in place of its
        approximation.
    """
    n, fewer = only_first + only_second, min(only_first, only_second)
    if n == 0:
        return 1.0
    # log C(n, k), without numbers that float cannot hold
    terms = [
        math.lgamma(n + 1) - math.lgamma(k + 1) - math.lgamma(n - k + 1) - n * math.log(2)
        for k in range(fewer + 1)
    ]
    most = max(terms)
    return min(1.0, 2.0 * math.exp(most) * math.fsum(math.exp(term - most) for term in terms))
