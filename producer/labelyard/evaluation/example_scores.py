"""Scores of labels that were taught with pictures, as a worker computes them for each image."""

from dataclasses import dataclass
from typing import Any, Final, TypeAlias

import numpy as np
from numpy.typing import NDArray

Array: TypeAlias = NDArray[np.floating[Any]]
Indices: TypeAlias = NDArray[np.intp]

#: Part of what nearness to the examples says of the taught labels together: text has judged the
#: same picture.
NEARNESS_COUNTS: Final = 0.5
#: Largest logarithm of odds by nearness alone.
MOST_ODDS: Final = 4.0


@dataclass(frozen=True, eq=False)
class TaughtLabels:
    """Fitted scorer of the labels that have example pictures.

    A logit is the weighted sum of three similarities: to the label's text, to the mean of the
    label's examples, and of a kernel ridge regression over all examples. A label whose examples
    have nothing in common, such as "something else", has no mean: a constant stands for it, which
    an image reaches with no other label unless it is near that label's examples.

    Attributes:
        labels: Indices of the taught labels within the set, in ascending order, shape (taught,).
        prototypes: Unit-length means of each label's examples, shape (taught, dim); zeros for a
            label that has no mean.
        examples: Unit-length vectors of the kernel's examples, shape (examples, dim).
        dual: Coefficients of the regression, shape (examples, taught).
        width: Width of the kernel ``exp(-width * (1 - cosine))``.
        weights: Of text, prototypes and regression; none is negative.
        levels: What stands for the similarity to a mean that a label does not have, shape
            (taught,); 0 for all others.
        nearness: Slope and intercept of the logarithm of the odds that an image shows one of the
            taught labels, by its largest cosine to an example; zeros if nothing is known of it.
    """

    labels: Indices
    prototypes: Array
    examples: Array
    dual: Array
    width: float
    weights: tuple[float, float, float]
    levels: Array
    nearness: tuple[float, float] = (0.0, 0.0)

    def cosines(self, vectors: Array) -> Array:
        """Compute the cosine of each image to each example.

        Args:
            vectors: As for :meth:`logits`.

        Returns:
            Shape (images, examples). A file of an earlier version has no examples if each label
            has a single one, which its prototypes then are.
        """
        found: Array = vectors @ (self.examples if len(self.examples) else self.prototypes).T
        return found

    def odds(self, to_examples: Array) -> Array:
        """Compute the odds of the taught labels together, against all others, from nearness.

        Args:
            to_examples: What :meth:`cosines` returns.

        Returns:
            Logarithm of the odds, to be added to that by text, shape (images, 1).
        """
        slope, intercept = self.nearness
        found = slope * to_examples.max(axis=1, keepdims=True) + intercept
        bounded: Array = NEARNESS_COUNTS * np.clip(found, -MOST_ODDS, MOST_ODDS)
        return bounded

    def logits(self, text_logits: Array, vectors: Array, to_examples: Array | None = None) -> Array:
        """Compute one logit for each image and taught label.

        Args:
            text_logits: Logits of the images by the texts of the taught labels, before the
                temperature, shape (images, taught).
            vectors: Unit-length vectors of the images, shape (images, dim).
            to_examples: What :meth:`cosines` returns for them, if it is known already.

        Returns:
            Shape (images, taught), float64.
        """
        text, near, regression = self.weights
        found = text * text_logits.astype(np.float64)
        found += near * (vectors @ self.prototypes.T + self.levels)
        if regression:
            cosines = self.cosines(vectors) if to_examples is None else to_examples
            found += regression * (np.exp(self.width * (cosines - 1.0)) @ self.dual)
        return found


def logits_with_examples(
    by_text: Array, vectors: Array, taught: TaughtLabels, *, labels: int
) -> tuple[NDArray[np.float64], Array]:
    """Compute the logits of all labels of a set of which some are taught.

    Args:
        by_text: Logits by text, before the temperature, shape (images, labels + abstain).
        vectors: Unit-length vectors of the images that are compared with examples, shape
            (images, dim).
        taught: Scorer of the taught labels.
        labels: Number of labels of the set.

    Returns:
        The logits, of the shape of *by_text*, and the cosines to the examples.
    """
    to_examples = taught.cosines(vectors)
    by_examples = taught.logits(by_text[:, taught.labels], vectors, to_examples)
    odds = taught.odds(to_examples) if len(taught.labels) < labels else 0.0
    return divide_among_taught(by_text, by_examples, taught.labels, odds=odds), to_examples


def divide_among_taught(
    logits: Array, taught_logits: Array, labels: Indices, *, odds: Array | float = 0.0
) -> NDArray[np.float64]:
    """Replace the logits of taught labels; those of the others stay as they are.

    Text decides what the taught labels get together, and *odds* moves it; the fitted scorer
    divides it among them. A plain mix of both kinds of logits takes half of the accuracy from
    labels without examples.

    Args:
        logits: Logits by text of all labels, before the temperature, shape (images, labels).
        taught_logits: Logits of the fitted scorer, shape (images, taught).
        labels: Indices of the taught labels, shape (taught,).
        odds: Added to the logarithm of what the taught labels have together, shape (images, 1).

    Returns:
        Logits of the shape of *logits*. Without *odds*, those of the taught labels have the same
        sum of exponentials as before.
    """
    mixed = logits.astype(np.float64)
    together = log_sum_exp(mixed[:, labels]) + odds  # (images, 1)
    mixed[:, labels] = together + taught_logits - log_sum_exp(taught_logits)
    return mixed


def log_sum_exp(logits: Array) -> Array:
    """Return the logarithm of each row's sum of exponentials, shape (images, 1)."""
    largest = logits.max(axis=1, keepdims=True)
    total: Array = largest + np.log(np.exp(logits - largest).sum(axis=1, keepdims=True))
    return total
