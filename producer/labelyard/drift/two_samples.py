"""Tests of two samples by their counts: Kolmogorov-Smirnov for scores, chi-square for answers."""

import math
from collections.abc import Sequence
from typing import Final

from labelyard.drift.counts import AnswerCounts

#: Least expected count of a cell; rarer answers are tested together (Cochran 1954, section 4).
LEAST_EXPECTED: Final = 5.0
TERMS: Final = 100


def distance_of_scores(first: Sequence[int], second: Sequence[int]) -> float:
    """Return the largest distance of two cumulated histograms, 0 to 1.

    Args:
        first: Counts by bin.
        second: Counts by the same bins.
    """
    n, m = sum(first), sum(second)
    if not n or not m:
        return 0.0
    largest, left, right = 0.0, 0, 0
    for one, other in zip(first, second, strict=True):
        left, right = left + one, right + other
        largest = max(largest, abs(left / n - right / m))
    return largest


def p_of_scores(first: Sequence[int], second: Sequence[int]) -> float:
    """Return the probability of so large a distance of two samples of one distribution.

    Samples in bins have smaller distances than their scores: the p-value is too large, if wrong.

    Source:
        Kolmogorov-Smirnov test of two samples, with the asymptotic distribution; Stephens 1970,
        "Use of the Kolmogorov-Smirnov, Cramer-Von Mises and Related Statistics", for the terms
        0.12 and 0.11 that make it hold for small samples.
    """
    n, m = sum(first), sum(second)
    if not n or not m:
        return 1.0
    root = math.sqrt(n * m / (n + m))
    scaled = (root + 0.12 + 0.11 / root) * distance_of_scores(first, second)
    if scaled < 0.2:  # the series needs many terms there, and is 1 to twelve digits
        return 1.0
    series = (
        (-1) ** (term - 1) * math.exp(-2.0 * term * term * scaled * scaled)
        for term in range(1, TERMS + 1)
    )
    return min(1.0, max(0.0, 2.0 * math.fsum(series)))


def distance_of_answers(first: AnswerCounts, second: AnswerCounts) -> float:
    """Return the share of the pictures that would have to change their answer, 0 to 1."""
    if not first.n or not second.n:
        return 0.0
    cells = _cells(first, second)
    return 0.5 * math.fsum(abs(one / first.n - other / second.n) for one, other in cells)


def p_of_answers(first: AnswerCounts, second: AnswerCounts) -> float:
    """Return the probability of so different answers in two samples of one distribution.

    An abstention is an answer. Answers that are too rare to be tested are tested together.

    Source:
        Pearson's chi-square test of homogeneity for a table of two rows.
    """
    n, m = first.n, second.n
    if not n or not m:
        return 1.0
    least = LEAST_EXPECTED * (n + m) / min(n, m)  # of both samples together
    kept = [cell for cell in _cells(first, second) if sum(cell) >= least]
    rare = [cell for cell in _cells(first, second) if sum(cell) < least]
    rest = (sum(one for one, _ in rare), sum(other for _, other in rare))
    if sum(rest) >= least:
        kept.append(rest)
    elif sum(rest) and kept:  # too few for a cell of their own
        smallest = min(range(len(kept)), key=lambda at: sum(kept[at]))
        kept[smallest] = (kept[smallest][0] + rest[0], kept[smallest][1] + rest[1])
    if len(kept) < 2:
        return 1.0
    statistic = math.fsum(
        (one - sum(cell) * n / (n + m)) ** 2 / (sum(cell) * n / (n + m))
        + (other - sum(cell) * m / (n + m)) ** 2 / (sum(cell) * m / (n + m))
        for cell in kept
        for one, other in [cell]
    )
    return chi_square_tail(statistic, degrees=len(kept) - 1)


def chi_square_tail(statistic: float, *, degrees: int) -> float:
    """Return the probability that a chi-square variable is at least *statistic*.

    Source:
        Abramowitz and Stegun 1964, 26.4.4 and 26.4.5: finite sums for odd and even degrees.
    """
    if statistic <= 0:
        return 1.0
    half = statistic / 2
    if degrees % 2:
        total, first = math.erfc(math.sqrt(half)), 0.5
    else:
        total, first = 0.0, 0.0
    for step in range(degrees // 2):
        power = first + step
        total += math.exp(power * math.log(half) - half - math.lgamma(power + 1))
    return min(1.0, total)


def _cells(first: AnswerCounts, second: AnswerCounts) -> list[tuple[int, int]]:
    """Return the counts of each answer in both samples.

    A label that one of them counts with the labels that are not named is taken there in both.
    """
    names = dict.fromkeys([*first.answers, *second.answers])
    has_rest = "" in names
    named = [
        name
        for name in names
        if name and (not has_rest or (name in first.answers and name in second.answers))
    ]
    cells = [(first.answers.get(name, 0), second.answers.get(name, 0)) for name in named]
    rest = (
        sum(first.answers.values()) - sum(one for one, _ in cells),
        sum(second.answers.values()) - sum(other for _, other in cells),
    )
    cells += [rest, (first.abstained, second.abstained)]
    return [cell for cell in cells if sum(cell)]
