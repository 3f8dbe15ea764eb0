"""Temperature of a label set, fitted to labelled pictures."""

from dataclasses import dataclass
from typing import Final

import numpy as np

from labelyard.evaluation.example_scores import Array, Indices, log_sum_exp

#: Standard deviation of the logarithm of the temperature, before pictures are seen: a factor
#: of 1.5 is one. Without it 50 pictures spoil scores that were good.
PRIOR_SPREAD: Final = 0.4
#: Standard errors by which the likelihood must gain in cross-validation before scores are made
#: sharper, or those of taught labels are changed at all: their examples have fitted them already.
#: Softer scores by text need to gain only: towards too high a score is how a checkpoint errs.
LEAST_GAIN: Final = 2.0
FOLDS: Final = 5
BOUNDS: Final = (-7.0, 7.0)  # of the logarithm
#: Fewer pictures do not fit a number.
FEWEST: Final = 2 * FOLDS


@dataclass(frozen=True)
class FittedTemperature:
    """A temperature, and what it gains.

    Attributes:
        value: Divides the logits; 1 if a fitted one would not have helped.
        nll_before: Mean negative log-likelihood of the pictures without it.
        nll_after: The same in cross-validation, with temperatures fitted to the other pictures.
    """

    value: float
    nll_before: float
    nll_after: float


def fit_temperature(
    logits: Array, classes: Indices, *, is_taught: bool = False
) -> FittedTemperature:
    """Fit one temperature, shrunk towards 1; keep it only if the likelihood gains by it.

    Args:
        logits: Of all labels, shape (pictures, labels).
        classes: Index of each picture's true label, shape (pictures,).
        is_taught: Whether examples made the logits.

    Source:
        Guo et al. 2017, arXiv:1706.04599, section 4.2, with a log-normal prior around 1.
    """
    logits = logits.astype(np.float64)
    before = _nll(logits, classes, 0.0)
    unchanged = FittedTemperature(1.0, float(before.mean()), float(before.mean()))
    if len(classes) < FEWEST:
        return unchanged
    folds = np.random.default_rng(0).permutation(len(classes)) % FOLDS
    after = np.empty(len(classes))
    for fold in range(FOLDS):
        out = folds == fold
        after[out] = _nll(logits[out], classes[out], _fit(logits[~out], classes[~out]))
    value = float(np.exp(_fit(logits, classes)))
    gains = before - after
    errors = LEAST_GAIN if is_taught or value < 1 else 0.0
    if gains.mean() <= errors * gains.std() / np.sqrt(len(gains)):
        return unchanged
    return FittedTemperature(value, float(before.mean()), float(after.mean()))


def _fit(logits: Array, classes: Indices) -> float:
    """Return the logarithm of the most probable temperature."""
    from scipy.optimize import minimize_scalar

    def loss(log_temperature: float) -> float:
        prior = 0.5 * (log_temperature / PRIOR_SPREAD) ** 2
        return float(_nll(logits, classes, log_temperature).sum() + prior)

    return float(minimize_scalar(loss, bounds=BOUNDS, method="bounded").x)


def _nll(logits: Array, classes: Indices, log_temperature: float) -> Array:
    """Return each picture's negative log-likelihood, shape (pictures,)."""
    scaled = logits / np.exp(log_temperature)
    found: Array = log_sum_exp(scaled)[:, 0] - scaled[np.arange(len(classes)), classes]
    return found
