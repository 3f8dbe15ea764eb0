"""Scores of labels that were taught with pictures, as a worker computes them for each image."""

from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

Array: TypeAlias = NDArray[np.floating[Any]]
Indices: TypeAlias = NDArray[np.intp]


@dataclass(frozen=True, eq=False)
class TaughtLabels:
    """Fitted scorer of the labels that have example pictures.

    A logit is the weighted sum of three similarities: to the label's text, to the mean of the
    label's examples, and of a kernel ridge regression over all examples.

    Attributes:
        labels: Indices of the taught labels within the set, in ascending order, shape (taught,).
        prototypes: Unit-length means of each label's examples, shape (taught, dim).
        examples: Unit-length vectors of the kernel's examples, shape (examples, dim).
        dual: Coefficients of the regression, shape (examples, taught).
        width: Width of the kernel ``exp(-width * (1 - cosine))``.
        weights: Of text, prototypes and regression; none is negative.
    """

    labels: Indices
    prototypes: Array
    examples: Array
    dual: Array
    width: float
    weights: tuple[float, float, float]

    def cosines(self, vectors: Array) -> Array:
        """Compute the cosine of each image to each example.

        Args:
            vectors: As for :meth:`logits`.

        Returns:
            Shape (images, examples). If each label has a single example, the prototypes are these.
        """
        found: Array = vectors @ (self.examples if len(self.examples) else self.prototypes).T
        return found

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
        found += near * (vectors @ self.prototypes.T)
        if regression:
            cosines = self.cosines(vectors) if to_examples is None else to_examples
            found += regression * (np.exp(self.width * (cosines - 1.0)) @ self.dual)
        return found


def divide_among_taught(logits: Array, taught_logits: Array, labels: Indices) -> Array:
    """Replace the logits of taught labels, so that the other labels keep their share.

    Text alone decides what the taught labels get together; the fitted scorer divides it among
    them. A plain mix of both kinds of logits takes half of the accuracy from labels without
    examples.

    Args:
        logits: Logits by text of all labels, before the temperature, shape (images, labels).
        taught_logits: Logits of the fitted scorer, shape (images, taught).
        labels: Indices of the taught labels, shape (taught,).

    Returns:
        Logits of the shape of *logits*. Those of the taught labels have the same sum of
        exponentials as before.
    """
    mixed = logits.astype(np.float64)
    together = log_sum_exp(mixed[:, labels])  # (images, 1)
    mixed[:, labels] = together + taught_logits - log_sum_exp(taught_logits)
    return mixed


def log_sum_exp(logits: Array) -> Array:
    """Return the logarithm of each row's sum of exponentials, shape (images, 1)."""
    largest = logits.max(axis=1, keepdims=True)
    total: Array = largest + np.log(np.exp(logits - largest).sum(axis=1, keepdims=True))
    return total
