"""Learned parts of label sets: refused with another checkpoint, else read for scoring."""

from collections.abc import Callable
from dataclasses import dataclass

from labelyard.errors import LabelSetExamplesError, LabelSetOfAnotherCheckpointError
from labelyard.evaluation.example_file import ExampleFile, digest_of
from labelyard.evaluation.example_scores import TaughtLabels
from labelyard.messages import LabelSet
from labelyard.messages.learned import Examples
from labelyard_worker.vision.vector_layout import VectorLayout


@dataclass(frozen=True)
class LearnedSets:
    """Opens the learned parts of label sets for the worker's checkpoint.

    Attributes:
        fingerprint: Of the checkpoint.
        layout: Parts of the checkpoint's image vectors.
        read: Reads an object of examples; raises LabelSetExamplesError or a TransientError.
    """

    fingerprint: str
    layout: VectorLayout
    read: Callable[[Examples], bytes]

    def open(self, label_set: LabelSet) -> TaughtLabels | None:
        """Return the scorer of the set's taught labels; ``None`` if it has none.

        Raises:
            LabelSetOfAnotherCheckpointError: The set learned with another checkpoint.
            LabelSetExamplesError: The object is gone, or another one.
            TransientError: Storage gave no usable answer.
        """
        learned = label_set.learned
        if learned is None:
            return None
        if learned.checkpoint != self.fingerprint:
            raise LabelSetOfAnotherCheckpointError(
                f"the label set learned with {learned.checkpoint}, and this worker has "
                f"{self.fingerprint}: teach and calibrate it again"
            )
        if learned.examples is None:
            return None
        return self._open_examples(learned.examples, label_set)

    def _open_examples(self, examples: Examples, label_set: LabelSet) -> TaughtLabels:
        body = self.read(examples)
        if digest_of(body) != examples.sha256:
            raise LabelSetExamplesError(f"{examples.object_uri}: another object is there")
        try:
            file = ExampleFile.from_bytes(body)
            taught = file.placed_in(tuple(label.name for label in label_set.labels))
        except ValueError as error:
            raise LabelSetExamplesError(f"{examples.object_uri}: {error}") from error
        dim = self.layout.features_dim or self.layout.dim
        if taught.prototypes.shape[1] != dim or examples.features != self.layout.space:
            raise LabelSetExamplesError(f"{examples.object_uri}: the vectors have another length")
        return taught
