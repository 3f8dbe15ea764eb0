"""Weights of pictures and of the texts beside them, fitted to labelled pictures."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from labelyard.evaluation.example_scores import log_sum_exp

Floats64 = NDArray[np.float64]
Flags = NDArray[np.bool_]

#: Spread of the log-normal prior around 1 of each weight: a factor of e to it is one deviation.
PRIOR_SPREAD: Final = 1.5
#: Standard errors by which texts must gain in cross-validation, as for a temperature.
LEAST_GAIN: Final = 1.25
FOLDS: Final = 5
#: Fewer pictures fit no weights.
FEWEST: Final = 2 * FOLDS
#: Weights below it change no score that is shown.
LEAST_WEIGHT: Final = 1e-3


@dataclass(frozen=True)
class FittedWeights:
    """Weights, and what they are worth.

    Attributes:
        picture: Factor of a picture's logits.
        title: Factor of a text's logits; 0 if texts do not help.
        accuracies: Share of the pictures that is right by the picture, by the text, and by both, in
            cross-validation.
        nll: Mean negative log-likelihood by the picture, and by the chosen weights in
            cross-validation.
    """

    picture: float
    title: float
    accuracies: tuple[float, float, float]
    nll: tuple[float, float]


@dataclass(frozen=True, eq=False)
class TitledSample:
    """Labelled pictures with texts.

    Attributes:
        pictures: Logits by the picture, in units of the set's temperature, shape (pictures, labels).
        titles: Logits by the text, shape (pictures, labels).
        truth: Whether each label is true, shape (pictures, labels).
        is_sigmoid: Whether each label is scored by itself.
    """

    pictures: Floats64
    titles: Floats64
    truth: Flags
    is_sigmoid: bool = False

    def rows(self, chosen: Flags) -> "TitledSample":
        """Return a part of the pictures."""
        return TitledSample(
            self.pictures[chosen], self.titles[chosen], self.truth[chosen], self.is_sigmoid
        )

    def losses(self, picture: float, title: float) -> Floats64:
        """Return each picture's negative log-likelihood, shape (pictures,)."""
        logits = picture * self.pictures + title * self.titles
        if self.is_sigmoid:
            each: Floats64 = np.logaddexp(0.0, np.where(self.truth, -logits, logits)).sum(axis=1)
            return each
        own = np.where(self.truth, logits, 0.0).sum(axis=1)  # of the one label that is true
        losses: Floats64 = log_sum_exp(logits)[:, 0] - own
        return losses

    def hits(self, picture: float, title: float) -> Flags:
        """Return whether the best label of each picture is true, shape (pictures,)."""
        best = (picture * self.pictures + title * self.titles).argmax(axis=1)
        hits: Flags = self.truth[np.arange(len(best)), best]
        return hits


def fit_title_weights(sample: TitledSample) -> FittedWeights:
    """Fit both weights; keep texts only if the likelihood clearly gains by them.

    Three fits predict pictures that were left out: by the picture, by the text, and by both. Both
    must clearly beat the better one of the others, and the text the picture: a weight of the
    picture alone works as a temperature, and is no merit of the text.

    Source:
        Two experts whose logits are added: Hinton 2002, doi 10.1162/089976602760128018, with
        weights; stacking by cross-validation: Wolpert 1992, doi 10.1016/S0893-6080(05)80023-1.
    """
    count = len(sample.truth)
    losses = {name: np.empty(count) for name in _FITS}
    hits = {name: np.empty(count, dtype=bool) for name in _FITS}
    folds = np.random.default_rng(0).permutation(count) % FOLDS
    for fold in range(FOLDS if count >= FEWEST else 0):
        out = folds == fold
        for name, fit in _FITS.items():
            weights = fit(sample.rows(~out))
            losses[name][out] = sample.rows(out).losses(*weights)
            hits[name][out] = sample.rows(out).hits(*weights)
    before = sample.losses(1.0, 0.0)
    by_picture = float(sample.hits(1.0, 0.0).mean())
    if count < FEWEST:
        return FittedWeights(1.0, 0.0, (by_picture, 0.0, 0.0), (float(before.mean()),) * 2)
    accuracies = by_picture, float(hits["title"].mean()), float(hits["both"].mean())
    best = "title" if _is_better(losses["title"], losses["picture"]) else "picture"
    single = min(losses["title"], losses["picture"], key=lambda each: float(each.mean()))
    if _is_better(losses["both"], single):
        best = "both"
    if best == "picture":
        return FittedWeights(1.0, 0.0, accuracies, (float(before.mean()),) * 2)
    picture, title = (weight if weight >= LEAST_WEIGHT else 0.0 for weight in _FITS[best](sample))
    return FittedWeights(
        picture, title, accuracies, (float(before.mean()), float(losses[best].mean()))
    )


def _is_better(losses: Floats64, others: Floats64) -> bool:
    """Return whether the first losses are clearly smaller."""
    gains = others - losses
    return bool(gains.mean() > LEAST_GAIN * gains.std() / np.sqrt(len(gains)))


def _fit_picture(sample: TitledSample) -> tuple[float, float]:
    return _most_probable(sample, lambda logs: (np.exp(logs[0]), 0.0), 1)


def _fit_both(sample: TitledSample) -> tuple[float, float]:
    picture, title = _most_probable(sample, lambda logs: (np.exp(logs[0]), np.exp(logs[1])), 2)
    return picture, title


def _fit_title(sample: TitledSample) -> tuple[float, float]:
    return _most_probable(sample, lambda logs: (0.0, np.exp(logs[0])), 1)


_FITS: Final[dict[str, Callable[[TitledSample], tuple[float, float]]]] = {
    "picture": _fit_picture,
    "both": _fit_both,
    "title": _fit_title,
}


def _most_probable(
    sample: TitledSample, weights_of: Callable[[Floats64], tuple[float, float]], count: int
) -> tuple[float, float]:
    from scipy.optimize import minimize

    def loss(logs: Floats64) -> float:
        prior = 0.5 * ((logs / PRIOR_SPREAD) ** 2).sum()
        return float(sample.losses(*weights_of(logs)).sum() + prior)

    options = {"maxiter": 200, "xatol": 0.005, "fatol": 0.005}
    found = minimize(loss, np.zeros(count), method="Nelder-Mead", options=options)
    picture, title = weights_of(found.x)
    return float(picture), float(title)
