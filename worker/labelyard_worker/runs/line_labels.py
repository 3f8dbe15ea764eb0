"""Labels of a run's lines: those of the run, or a line's own, as matrices of text embeddings."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import partial

from labelyard.errors import (
    InvalidMessageError,
    LabelSetExamplesError,
    LabelSetOfAnotherCheckpointError,
    UnknownLabelSetError,
)
from labelyard.label_sets import LabelSetRegistry, as_label_set
from labelyard.messages import LabelSet
from labelyard.queues import Priority
from labelyard.runs.lines import ErrorLine, PlannedLine
from labelyard_worker.jobs.cancellation import Token
from labelyard_worker.vision.label_index import LabelIndex
from labelyard_worker.vision.scoring import Floats, LabelMatrix

LineLabels = tuple[str, ...] | str | None
LABEL_FAULTS = (
    UnknownLabelSetError,
    InvalidMessageError,
    LabelSetExamplesError,
    LabelSetOfAnotherCheckpointError,
)
LabelFault = (
    UnknownLabelSetError
    | InvalidMessageError
    | LabelSetExamplesError
    | LabelSetOfAnotherCheckpointError
)


@dataclass
class LabelMatrices:
    """Finds the matrices for the lines of one shard.

    Attributes:
        label_set: That of the run.
    """

    label_set: LabelSet | str
    index: LabelIndex
    registry: LabelSetRegistry
    token: Token
    _found: dict[LineLabels, LabelMatrix | LabelFault] = field(default_factory=dict)

    def of_run(self) -> LabelMatrix:
        """Return the matrix of the run's own label set.

        Raises:
            UnknownLabelSetError: It is not registered.
            LabelyardError: The token stopped the attempt, or the model failed.
        """
        return self._load(None)

    def of(self, line: PlannedLine) -> LabelMatrix | LabelFault:
        """Return the matrix of a line's labels, or the reason why they make none.

        Raises:
            LabelyardError: The token stopped the attempt, or the model failed.
        """
        labels: LineLabels = line.labels if line.labels is not None else line.label_set
        if labels not in self._found:
            try:
                self._found[labels] = self._load(labels)
            except LABEL_FAULTS as error:
                self._found[labels] = error
        return self._found[labels]

    def titles_of(
        self, lines: Iterable[PlannedLine | ErrorLine], labels: LabelMatrix
    ) -> list[Floats | None]:
        """Return the vector of each line's text; none if the labels do not read texts.

        Raises:
            LabelyardError: The token stopped the attempt, or the model failed.
        """
        if labels.titles is None:
            return []
        texts = [line.text for line in lines if isinstance(line, PlannedLine)]
        return self.index.title_vectors(texts, labels, token=self.token, priority=Priority.BULK)

    def _load(self, labels: LineLabels) -> LabelMatrix:
        if labels is None:
            wanted = self.label_set
        elif isinstance(labels, tuple):
            wanted = self._like_the_runs(labels)
        else:
            wanted = labels
        if isinstance(wanted, LabelSet):
            return self.index.matrix(wanted, token=self.token, priority=Priority.BULK)
        load = partial(self.registry.get, wanted)
        digest = wanted.rpartition("@")[2]
        return self.index.registered(digest, load, token=self.token, priority=Priority.BULK)

    def _like_the_runs(self, names: tuple[str, ...]) -> LabelSet:
        """Make a label set of a line's names, with the templates and scoring of the run."""
        run = self.label_set
        if isinstance(run, str):
            run = self.registry.get(run)
        fields = {"templates", "scoring", "abstain", "temperature"} & run.model_fields_set
        return as_label_set(names, **{name: getattr(run, name) for name in fields})
