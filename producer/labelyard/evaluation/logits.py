"""Logits of scores: their logarithm, for scores that may be 0."""

from typing import Final

import numpy as np
from numpy.typing import ArrayLike, NDArray

#: Least probability whose logarithm is taken.
TINY: Final = 1e-300


def logits_of(scores: ArrayLike) -> NDArray[np.float64]:
    """Return the logarithm of each score; of softmax shares it is a logit, but for a constant.

    The logits are in units of the temperature by which the scores were made.
    """
    logits: NDArray[np.float64] = np.log(np.maximum(scores, TINY))
    return logits
