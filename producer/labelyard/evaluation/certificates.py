"""Thresholds that keep a promise: the share of right answers among accepted ones, with a bound."""

import math
from bisect import bisect_left, bisect_right
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

import numpy as np
from numpy.typing import NDArray

from labelyard.evaluation.example_scores import Array

#: Starting points of one search, among which the permitted error is divided.
MOST_STARTS: Final = 4
#: Part of the permitted error that labels may spend which are certified together. The temperature
#: was fitted to the same pictures, and pictures that come in series say less than their number.
PART_TOGETHER: Final = 0.25
#: Beyond it the number of missing pictures is not named: other pictures, or a better set, are
#: the remedy.
MOST_MISSING: Final = 10_000
#: Factor within which the number of missing pictures is right.
SPARE: Final = 1.1


@dataclass(frozen=True)
class Certificate:
    """A threshold, and the evidence that answers from it on keep the promise.

    Attributes:
        threshold: Scores that are at least this high are accepted; 0 accepts all.
        accepted: Pictures of the sample that it accepts.
        errors: Wrong ones among them.
    """

    threshold: float
    accepted: int
    errors: int


def certify(
    scores: Array, is_right: NDArray[np.bool_], *, precision: float, confidence: float
) -> Certificate | None:
    """Find the lowest threshold from which on answers are as precise as promised.

    Given the score of rank ``k + 1``, the ``k`` pictures above it are a fair sample of all
    pictures with a higher score, so their errors are binomial. Ranks are tested in a fixed
    sequence from several starting points; each has its part of the permitted error, and ends
    where a test fails. Which ranks are tested depends on the number of pictures alone.

    Args:
        scores: Score of each picture's answer, shape (pictures,).
        is_right: Whether the answer is right, shape (pictures,).
        precision: Promised share of right answers among accepted ones.
        confidence: Probability with which the promise holds.

    Returns:
        ``None`` if the evidence does not suffice.

    Source:
        Clopper and Pearson 1934 for the test; Angelopoulos et al. 2021, arXiv:2110.01052,
        section 4 (fixed sequence testing from several starting points).
    """
    order = np.argsort(-scores, kind="stable")
    ranked = scores[order]
    wrong = np.concatenate([[0], np.cumsum(~is_right[order])])
    # Equal scores are accepted together: a rank among them stands for the last of them.
    ends = np.searchsorted(-ranked, -ranked, side="right")
    best = 0
    for steps in _searches(len(scores), precision, 1.0 - confidence):
        for errors, rank in steps:
            end = int(ends[rank - 1])
            if wrong[end] > errors:
                break
            best = max(best, end)
    if not best:
        return None
    threshold = 0.0 if best == len(ranked) else float(np.nextafter(ranked[best], np.inf))
    return Certificate(threshold, best, int(wrong[best]))


def certify_together(
    scores: Array, is_right: NDArray[np.bool_], *, precision: float, confidence: float
) -> Certificate | None:
    """Find one threshold for several labels; as :func:`certify`, with a part of the error."""
    careful = 1.0 - PART_TOGETHER * (1.0 - confidence)
    return certify(scores, is_right, precision=precision, confidence=careful)


def count_missing(
    scores: Array, is_right: NDArray[np.bool_], *, precision: float, confidence: float
) -> int | None:
    """Estimate how many more pictures like these a certificate needs.

    Returns:
        Smallest number with which a sample of the same shape passes, while with a tenth more than
        it every larger one does, too; 0 if this one passes; ``None`` if no number up to 10,000
        does. Errors are whole numbers: where one more is expected, a sample that is a little larger
        than one that passes may fail.
    """
    order = np.argsort(-scores, kind="stable")
    curve = np.concatenate([[0], np.cumsum(~is_right[order])])
    observed = len(scores)
    if not observed or _is_enough(curve, observed, precision, confidence):
        return None if not observed else 0
    total, first = observed, 0
    while total - observed <= MOST_MISSING:
        while not _is_enough(curve, total, precision, confidence):
            total += max(1, total // 50)
            if total - observed > MOST_MISSING:
                return None
        while _is_enough(curve, total - 1, precision, confidence):  # the step was too long
            total -= 1
        first = first or total - observed
        last = observed + round(SPARE * (total - observed))
        failing = [
            more
            for more in range(total + 1, last + 1)
            if not _is_enough(curve, more, precision, confidence)
        ]
        if not failing:
            return max(first, math.ceil((total - observed) / SPARE))
        total = failing[-1] + 1
    return None


def smallest_evidence(precision: float, confidence: float) -> int:
    """Return the number of accepted pictures that suffices if none of them is wrong."""
    return _rank_of(0, precision, 1.0 - confidence)


def _is_enough(curve: NDArray[np.intp], total: int, precision: float, confidence: float) -> bool:
    """Return whether *total* pictures, with errors spread over the ranks as in *curve*, pass."""
    observed = len(curve) - 1
    for steps in _searches(total, precision, 1.0 - confidence):
        errors, rank = steps[0]  # a sequence that starts gives a certificate
        above = np.interp(rank * observed / total, np.arange(observed + 1), curve)
        if round(float(above) * total / observed) <= errors:
            return True
    return False


def _searches(pictures: int, precision: float, permitted: float) -> list[list[tuple[int, int]]]:
    """List the searches: each a sequence of permitted errors and the rank that is tested.

    Between two ranks of a sequence the same number of errors is permitted, so the tests that
    are left out are passed whenever the next one is. The last rank accepts all pictures.
    """
    least = smallest_evidence(precision, 1.0 - permitted)
    if pictures < least:
        return []
    count = min(MOST_STARTS, int(math.log2(pictures / least)) + 1)
    ladder = _ladder(1 << pictures.bit_length(), precision, permitted / count)
    ranks = ladder[: bisect_right(ladder, pictures)]
    starts = {bisect_left(ranks, ladder[0] << doubled) for doubled in range(count)}
    steps = list(enumerate(ranks))
    if ranks and ranks[-1] < pictures:
        steps.append((len(ranks) - 1, pictures))
    return [steps[start:] for start in sorted(starts) if start < len(ranks)]


@lru_cache(maxsize=64)
def _ladder(most: int, precision: float, permitted: float) -> tuple[int, ...]:
    """Return, for 0, 1, 2 … errors, the least number of pictures that proves the precision.

    Args:
        most: No larger number is looked for.
    """
    ladder: list[int] = []
    while True:
        rank = _rank_of(len(ladder), precision, permitted, least=ladder[-1] + 1 if ladder else 1)
        if rank > most:
            return tuple(ladder)
        ladder.append(rank)


def _rank_of(errors: int, precision: float, permitted: float, *, least: int = 1) -> int:
    """Return the smallest number of pictures for which so few errors prove the precision."""
    from scipy.special import bdtr

    low, high = least, max(2 * least, 16)
    while bdtr(errors, high, 1.0 - precision) > permitted:
        low, high = high, 2 * high
    while low < high:
        middle = (low + high) // 2
        if bdtr(errors, middle, 1.0 - precision) <= permitted:
            high = middle
        else:
            low = middle + 1
    return low
