"""Fit of taught labels: a closed form and three weights, chosen on the examples themselves.

No epochs and no validation pictures: every number is chosen by how well each example is told by
the others (leave one out).
"""

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from labelyard.evaluation.example_scores import Array, Indices, TaughtLabels

__all__ = ["MOST_KERNEL_EXAMPLES", "TaughtLabels", "fit_examples"]

#: Values that leave-one-out chooses from.
WIDTHS: Final = (2.0, 5.0, 10.0, 20.0)
PENALTIES: Final = (0.03, 0.1, 0.3, 1.0, 3.0)
#: Medians of the log-normal prior of the weights of text, prototypes and regression, and its
#: spread: a factor of e to the spread either way is one standard deviation. Text is half as sure
#: as the checkpoint was trained to be.
PRIOR_WEIGHTS: Final = (0.5, 10.0, 2.0)
PRIOR_SPREAD: Final = 1.5
#: Weights and kernel if every label has a single example, of which none can be left out: only a
#: picture near an example counts for its label. Means of one picture each would let pictures that
#: are far from all examples go to the one that is a little less far.
SINGLE_WEIGHTS: Final = (0.5, 0.0, 30.0)
SINGLE_WIDTH: Final = 5.0
#: A label has no mean if its examples are not more like their own mean than like that of others:
#: by at most this part of what is usual in the set, ...
LEAST_LIKENESS: Final = 0.25
#: ... and with so many standard errors that none of hundreds of labels is found by chance.
CATCH_ALL_ERRORS: Final = 4.0
#: Taught labels from which nearness is fitted: each one is a stranger to the others.
LEAST_FOR_NEARNESS: Final = 3
#: Spread of the normal prior of its slope, for cosines of unit deviation, and of its intercept.
NEARNESS_SPREAD: Final = 2.0
#: Examples in the regression. Its fit takes time with their third power, and an image with their
#: number; the means use all examples.
MOST_KERNEL_EXAMPLES: Final = 2_000
_TINY: Final = 1e-9


@dataclass(frozen=True, eq=False)
class _Ridge:
    """A fitted kernel ridge regression, with its leave-one-out predictions."""

    width: float
    dual: Array
    left_out: Array
    error: float


def fit_examples(
    text_logits: Array, vectors: Array, classes: Indices, labels: Indices
) -> TaughtLabels:
    """Fit the scorer of taught labels to their examples.

    Args:
        text_logits: Logits of the examples by the texts of the taught labels; a constant may be
            added to each row. Shape (examples, taught).
        vectors: Unit-length vectors of the examples, shape (examples, dim).
        classes: Position in *labels* of each example's label, shape (examples,).
        labels: Indices of the taught labels within the set, shape (taught,).

    Raises:
        ValueError: A taught label has no example, or shapes differ.

    A label of which no example is like the others ("something else") gets a constant in place of a
    prototype; see :func:`_catch_all`.

    Source:
        Snell et al. 2017, arXiv:1703.05175 (prototypes); Saunders et al. 1998 (kernel ridge
        regression); Cawley and Talbot 2003, its leave-one-out errors in closed form.
    """
    counts = _counts_of(classes, vectors, text_logits, labels)
    vectors = vectors.astype(np.float64)
    one_hot = np.eye(len(labels))[classes]
    sums = one_hot.T @ vectors  # (taught, dim)
    prototypes = sums / np.maximum(np.linalg.norm(sums, axis=1, keepdims=True), _TINY)
    if counts.max() == 1:
        return _taught_by_singles(labels, prototypes, one_hot)
    kernel = _spread_over_labels(classes, counts)
    ridge = _fit_ridge(vectors[kernel], one_hot[kernel])
    near = _prototypes_left_out(vectors[kernel], sums, classes[kernel])
    is_catch_all, level = _catch_all(near, classes[kernel])
    near[:, is_catch_all] = level
    prototypes[is_catch_all] = 0.0
    is_usable = counts[classes[kernel]] > 1
    parts = [text_logits[kernel].astype(np.float64), near, ridge.left_out]
    weights = _fit_weights([part[is_usable] for part in parts], classes[kernel][is_usable])
    return TaughtLabels(
        labels,
        prototypes,
        vectors[kernel],
        ridge.dual,
        width=ridge.width,
        weights=weights,
        levels=np.where(is_catch_all, level, 0.0),
        nearness=_fit_nearness(vectors[kernel], classes[kernel]),
    )


def _counts_of(
    classes: Indices, vectors: Array, text_logits: Array, labels: Indices
) -> NDArray[np.intp]:
    """Count the examples of each label, and refuse arrays that do not describe the same ones."""
    counts = np.bincount(classes, minlength=len(labels))
    if len(counts) != len(labels) or not counts.all():
        raise ValueError("every taught label needs an example")
    if not len(classes) == len(vectors) == len(text_logits) or (
        text_logits.shape[1] != len(labels)
    ):
        raise ValueError("text_logits, vectors and classes must describe the same examples")
    return counts


def _taught_by_singles(labels: Indices, prototypes: Array, one_hot: Array) -> TaughtLabels:
    """Return the scorer of labels with one example each, in any order."""
    return TaughtLabels(
        labels,
        prototypes,
        one_hot @ prototypes,
        one_hot,
        width=SINGLE_WIDTH,
        weights=SINGLE_WEIGHTS,
        levels=np.zeros(len(labels)),
    )


def _spread_over_labels(classes: Indices, counts: Indices) -> Indices:
    """Choose the examples of the regression: all, or as many of each label as fit, evenly."""
    if len(classes) <= MOST_KERNEL_EXAMPLES:
        return np.arange(len(classes))
    order = np.argsort(classes, kind="stable")
    starts = np.repeat(np.cumsum(counts) - counts, counts)
    place = np.empty(len(classes), dtype=np.intp)
    place[order] = np.arange(len(classes)) - starts  # its number among the examples of its label
    return np.sort(np.argsort(place, kind="stable")[:MOST_KERNEL_EXAMPLES])


def _prototypes_left_out(vectors: Array, sums: Array, classes: Indices) -> Array:
    """Compute each example's cosine to every label's mean, its own left out of its label's."""
    norms = np.maximum(np.linalg.norm(sums, axis=1), _TINY)
    near: Array = (vectors @ sums.T) / norms  # (examples, taught)
    rest = sums[classes] - vectors
    rows = np.arange(len(classes))
    near[rows, classes] = (rest * vectors).sum(1) / np.maximum(np.linalg.norm(rest, axis=1), _TINY)
    return near


def _catch_all(near: Array, classes: Indices) -> tuple[NDArray[np.bool_], float]:
    """Find the labels whose examples have no common place: pictures near no other label are theirs.

    Their examples resemble each other no more than they resemble those of other labels. The mean
    of such examples is nothing that further pictures of the label are near to.

    Args:
        near: Cosines of the examples to each label's mean, their own left out, shape
            (examples, taught).

    Returns:
        Whether each label is one, shape (taught,), and the cosine that stands for their means: an
        image is theirs unless it is nearer to another label's mean, half-way between what members
        of a label have and what others have.
    """
    taught = near.shape[1]
    none = np.zeros(taught, dtype=np.bool_), 0.0
    counts = np.bincount(classes, minlength=taught)
    known = np.flatnonzero(counts > 1)
    if len(known) < 2:
        return none
    inside = np.array([near[classes == label, label].mean() for label in known])
    outside = np.array([near[classes != label, label].mean() for label in known])
    deviation = np.sqrt(np.mean([near[classes != label, label].var() for label in known]))
    likeness = inside - outside
    usual = np.median(likeness)
    errors = (usual - likeness) * np.sqrt(counts[known] - 1) / max(deviation, _TINY)
    is_one = (likeness < LEAST_LIKENESS * usual) & (errors > CATCH_ALL_ERRORS)
    if not is_one.any():
        return none
    found = none[0]
    found[known[is_one]] = True
    return found, float(inside[~is_one].mean() + outside[~is_one].mean()) / 2


def _fit_nearness(vectors: Array, classes: Indices) -> tuple[float, float]:
    """Fit the odds that an image shows one of the taught labels, by its nearest example.

    Each example is compared with the other examples, as an image of a taught label would be; and
    with those of the other labels, as an image of a label without examples would be. Maximum a
    posteriori of a logistic regression, normal prior.

    Returns:
        Slope and intercept of the logarithm of the odds; zeros if there are too few labels.
    """
    from scipy.optimize import minimize

    if len(np.unique(classes)) < LEAST_FOR_NEARNESS:
        return 0.0, 0.0
    gram = vectors @ vectors.T
    np.fill_diagonal(gram, -np.inf)
    member = gram.max(axis=1)
    stranger = np.where(classes[:, None] == classes[None, :], -np.inf, gram).max(axis=1)
    cosines = np.concatenate([member, stranger])
    is_member = np.arange(len(cosines)) < len(member)
    mean, deviation = cosines.mean(), max(float(cosines.std()), _TINY)
    scaled = (cosines - mean) / deviation

    def loss(line: Array) -> float:
        odds = line[0] * scaled + line[1]
        nll = (np.logaddexp(0.0, odds) - is_member * odds).sum()
        return float(nll + 0.5 * (line**2).sum() / NEARNESS_SPREAD**2)

    slope, intercept = minimize(loss, np.zeros(2)).x.tolist()
    return slope / deviation, intercept - slope * mean / deviation


def _fit_ridge(vectors: Array, one_hot: Array) -> _Ridge:
    """Fit the regression for each width and penalty, and keep the best by leave-one-out error."""
    gram = vectors @ vectors.T
    best: _Ridge | None = None
    for width in WIDTHS:
        values, basis = np.linalg.eigh(np.exp(width * (gram - 1.0)))
        rotated = basis.T @ one_hot
        for penalty in PENALTIES:
            inverse = 1.0 / (np.maximum(values, 0.0) + penalty)
            dual = basis @ (inverse[:, None] * rotated)
            left_out = one_hot - dual / ((basis**2) @ inverse)[:, None]
            error = float(((left_out - one_hot) ** 2).sum(1).mean())
            if best is None or error < best.error:
                best = _Ridge(width, dual, left_out, error)
    assert best is not None  # noqa: S101 - the tables above are not empty
    return best


def _fit_weights(parts: list[Array], classes: Indices) -> tuple[float, float, float]:
    """Choose the weights of leave-one-out scores: maximum a posteriori, log-normal prior."""
    from scipy.optimize import minimize

    stacked = np.stack(parts)  # (parts, examples, taught)
    rows = np.arange(len(classes))
    prior = np.log(PRIOR_WEIGHTS)

    def loss(log_weights: Array) -> float:
        logits = np.tensordot(np.exp(log_weights), stacked, axes=1)
        logits -= logits.max(axis=1, keepdims=True)
        nll = (np.log(np.exp(logits).sum(1)) - logits[rows, classes]).sum()
        return float(nll + 0.5 * (((log_weights - prior) / PRIOR_SPREAD) ** 2).sum())

    options = {"maxiter": 150, "xatol": 0.02, "fatol": 0.01}
    found = minimize(loss, prior, method="Nelder-Mead", options=options)
    text, near, regression = np.exp(found.x).tolist()
    return text, near, regression
