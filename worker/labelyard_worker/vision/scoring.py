"""Matrix of a label set, and arithmetic of scores: cosines to logits, and logits to scores.

``to_logits`` and ``to_scores`` take arrays of numpy and of torch, and are the only place that knows
how a score is computed: the host and the GPU both call them.
"""

import math
import sys
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from labelyard.evaluation.example_scores import TaughtLabels
from labelyard.hierarchy import Hierarchy
from labelyard.messages import LabelSet
from labelyard_worker.vision.title_scores import TitleLabels
from labelyard_worker.vision.tree_scores import LabelTree

Floats: TypeAlias = NDArray[np.float32]
Indices: TypeAlias = NDArray[np.intp]

# Threshold of a label that has none of its own, if each label is judged by itself.
SIGMOID_THRESHOLD = 0.5
# The difference of two logits is finite, too.
MAX_LOGIT = 1e300
# Above it no logit of float32 weights, at most 1e39, leaves that range.
TINY_TEMPERATURE = 1e-200
# Of a matrix's Python objects, besides its numbers and names.
OBJECT_BYTES = 2_048


@dataclass(frozen=True)
class Scaling:
    """Scale and bias by which a checkpoint turns cosines into logits.

    Attributes:
        scale: Inverse temperature, no unit.
        bias: 0 if the checkpoint has none.
    """

    scale: float
    bias: float = 0.0

    def over(self, temperature: float) -> "Scaling":
        """Return the scaling whose logits are divided by *temperature*."""
        if temperature == 1.0:
            return self
        return Scaling(self.scale / temperature, self.bias / temperature)


@dataclass(frozen=True, eq=False)
class LabelMatrix:
    """Text embeddings of a label set, with all that scoring needs to know of the set.

    Attributes:
        digest: Identity of the label set.
        names: Of the labels, in the order of the set.
        thresholds: Score from which a label is matched; NaN if it is matched when it is the
            best label. Shape (labels,).
        text_embeds: Unit-length vectors of the labels, then of the *abstain* prompts,
            shape (labels + abstain, dim).
        scoring: The label set's scoring; the checkpoint's own for ``auto``.
        temperature: Divides the logits.
        taught: Scorer of the labels that pictures taught, or ``None``.
        bias: Added to the logits before the temperature, shape (labels + abstain,), or ``None``.
        is_best_only: Whether only the best label may be matched: what is certified of a softmax
            set are its best labels.
        titles: Labels as texts beside pictures are compared with them, or ``None``.
        tree: The hierarchy of the labels, or ``None``.
        tree_temperature: Divides the checkpoint's logits, before bias and temperature.
        least_fit: Fit below which an image shows none of the labels; -inf without a limit.
    """

    digest: str
    names: tuple[str, ...]
    thresholds: NDArray[np.float64]
    text_embeds: Floats
    scoring: Literal["softmax", "sigmoid"]
    temperature: float
    taught: TaughtLabels | None = None
    is_best_only: bool = False
    bias: NDArray[np.float64] | None = None
    titles: TitleLabels | None = None
    tree: LabelTree | None = None
    tree_temperature: float = 1.0
    least_fit: float = -np.inf

    @classmethod
    def of(
        cls,
        label_set: LabelSet,
        text_embeds: Floats,
        *,
        digest: str,
        trained_scoring: Literal["softmax", "sigmoid"],
        taught: TaughtLabels | None = None,
        tree_temperature: float = 1.0,
        titles: TitleLabels | None = None,
    ) -> "LabelMatrix":
        """Build the matrix of a label set from the vectors of its labels.

        Args:
            tree_temperature: Divides the logits as well, if the set is a tree without examples,
                scored with softmax.
        """
        scoring = trained_scoring if label_set.scoring == "auto" else label_set.scoring
        default = SIGMOID_THRESHOLD if scoring == "sigmoid" else np.nan
        thresholds = [
            default if label.threshold is None else label.threshold for label in label_set.labels
        ]
        learned = label_set.learned
        limit = None if learned is None else learned.none_of_these
        tree = LabelTree.of(Hierarchy.of(label_set), scoring)
        is_softened = tree is not None and taught is None and scoring == "softmax"
        return cls(
            digest=digest,
            names=tuple(label.name for label in label_set.labels),
            thresholds=np.asarray(thresholds, dtype=np.float64),
            text_embeds=np.ascontiguousarray(text_embeds, dtype=np.float32),
            scoring=scoring,
            temperature=label_set.temperature,
            taught=taught,
            is_best_only=scoring == "softmax"
            and learned is not None
            and learned.certified is not None,
            bias=_bias_of(label_set),
            titles=titles,
            tree=tree,
            tree_temperature=tree_temperature if is_softened else 1.0,
            least_fit=-np.inf if limit is None else limit.limit,
        )

    @property
    def n_labels(self) -> int:
        """Count the labels, without *abstain* prompts."""
        return len(self.names)

    @cached_property
    def held_bytes(self) -> int:
        """Bytes of memory that the matrix takes, names included."""
        names = sum(map(sys.getsizeof, self.names)) + sys.getsizeof(self.names)
        taught = 0
        if self.taught is not None:
            arrays = (self.taught.prototypes, self.taught.examples, self.taught.dual)
            taught = sum(array.nbytes for array in arrays)
        bias = 0 if self.bias is None else self.bias.nbytes
        tree = 0 if self.tree is None else self.tree.held_bytes
        tree += 0 if self.titles is None else self.titles.embeds.nbytes
        arrays_bytes = self.text_embeds.nbytes + self.thresholds.nbytes + bias
        return OBJECT_BYTES + arrays_bytes + names + taught + tree


def _bias_of(label_set: LabelSet) -> NDArray[np.float64] | None:
    """Return the bias of each label, and 0 for *abstain* prompts; ``None`` if there is none."""
    learned = label_set.learned
    if learned is None or learned.bias is None:
        return None
    labels = [learned.bias.get(label.name, 0.0) for label in label_set.labels]
    return np.array(labels + [0.0] * len(label_set.abstain))


def to_logits(cosines: Any, scaling: Scaling, *, temperature: float) -> Any:
    """Scale cosines by the checkpoint, and divide them by the label set's temperature.

    A tiny temperature would give infinite logits, all of them equal, and no scores. The
    smallest one that fits keeps their order, and gives the limit of smaller ones: 1 for
    the best label.

    Args:
        cosines: float64, shape (images, labels + abstain); an array of numpy or torch.
    """
    logits = cosines * scaling.scale + scaling.bias
    if temperature < TINY_TEMPERATURE:
        largest = float(abs(logits).max())
        if math.isfinite(largest) and largest > MAX_LOGIT * temperature:
            temperature = largest / MAX_LOGIT
    return logits / temperature


def to_scores(logits: Any, scoring: Literal["softmax", "sigmoid"], xp: Any = np) -> Any:
    """Turn logits into scores by the label set's scoring.

    Args:
        logits: float64, shape (images, labels + abstain); an array of *xp*.
        xp: The module ``numpy`` or ``torch``.

    Returns:
        Scores from 0 to 1, of the same shape.
    """
    return sigmoid(logits, xp) if scoring == "sigmoid" else softmax(logits, xp)


def softmax(logits: Any, xp: Any = np) -> Any:
    """Share 1 among the labels of each row.

    Args:
        logits: Scaled cosines, shape (images, labels).

    Returns:
        Shape (images, labels); each row sums to 1.

    Source:
        Radford et al. 2021, arXiv:2103.00020, section 3.1.2: the image and text
        encoders as a softmax classifier over cosine similarities.
    """
    # Without the largest, exp() would overflow.
    weights = xp.exp(logits - xp.amax(logits, axis=1, keepdims=True))
    return weights / weights.sum(axis=1, keepdims=True)


def sigmoid(logits: Any, xp: Any = np) -> Any:
    """Score each label by itself.

    Args:
        logits: Scaled and biased cosines, shape (images, labels).

    Returns:
        Shape (images, labels), each between 0 and 1.

    Source:
        Zhai et al. 2023, arXiv:2303.15343, algorithm 1. As a tanh it cannot overflow.
    """
    return 0.5 * (1.0 + xp.tanh(0.5 * logits))
