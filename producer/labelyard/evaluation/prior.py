"""Bias of each label: mean scores as expected, or labels on a level. No label of a picture is used."""

from typing import Final

import numpy as np
from numpy.typing import NDArray

from labelyard.evaluation.example_scores import log_sum_exp

Floats64 = NDArray[np.float64]

#: Standard deviation of a bias around that of Bayes' rule, before pictures are seen: a factor of
#: e on the odds. Of a small sample the scores of rare labels say little.
SPREAD: Final = 1.0


def bayes_bias(shares: Floats64) -> Floats64:
    """Return the bias of labels whose shares are known, and all that a model has wrong is not.

    Args:
        shares: Expected share of each label, shape (labels,); they add up to 1.

    Returns:
        Shape (labels,); the mean is 0.

    Source:
        Saerens et al. 2002, doi 10.1162/089976602753284446, equation 2.4, with shares that are
        given, and a model that takes all labels for equally frequent.
    """
    found = np.log(shares)
    bias: Floats64 = found - found.mean()
    return bias


def fit_bias(logits: Floats64, shares: Floats64) -> Floats64:
    """Fit a bias to each label, so that the mean scores of a sample are the expected shares.

    The number of pictures decides how far: the fit starts from :func:`bayes_bias`, and a small
    sample moves it little.

    Args:
        logits: Of a sample that has the expected shares, shape (pictures, labels).
        shares: As for :func:`bayes_bias`.

    Returns:
        Shape (labels,); the mean is 0.

    Source:
        Sinkhorn 1964, doi 10.1214/aoms/1177703591 (scaling to given margins), as the maximum of
        its dual, with a normal prior.
    """
    from scipy.optimize import minimize

    pictures, start = len(logits), bayes_bias(shares)

    def loss(bias: Floats64) -> tuple[float, Floats64]:
        shifted = logits + bias
        totals = log_sum_exp(shifted)
        away = (bias - start) / SPREAD
        value = totals.sum() - pictures * shares @ bias + 0.5 * (away @ away)
        scores = np.exp(shifted - totals)
        slope = scores.sum(axis=0) - pictures * shares + away / SPREAD
        return float(value) / pictures, slope / pictures

    found: Floats64 = minimize(loss, start, jac=True, method="L-BFGS-B").x
    bias: Floats64 = found - found.mean()
    return bias


def level_bias(logits: Floats64) -> Floats64:
    """Return the bias that takes each label's mean logit away, so that none is favoured.

    Args:
        logits: Of a sample, shape (pictures, labels).

    Returns:
        Shape (labels,); the mean is 0.
    """
    means = logits.mean(axis=0)
    bias: Floats64 = means.mean() - means
    return bias


def to_shares(logits: Floats64) -> Floats64:
    """Return the softmax of each row, shape (pictures, labels)."""
    shares: Floats64 = np.exp(logits - log_sum_exp(logits))
    return shares
