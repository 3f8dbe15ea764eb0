"""Files of a run's shards as the run's request and label set want them."""

from dataclasses import dataclass

from labelyard.errors import InvalidMessageError, UnknownLabelSetError
from labelyard.label_sets import LabelSetRegistry
from labelyard.messages import LabelSet, TitleWeights
from labelyard.runs.request import RunRequest
from labelyard_worker.runs.files.shard_files import ShardFiles
from labelyard_worker.runs.files.shard_output import ShardOutput


@dataclass(frozen=True)
class ResultFiles:
    """Opens the files of shards; all shards of a run have the same columns."""

    label_sets: LabelSetRegistry

    def open(self, request: RunRequest, name: str) -> ShardFiles:
        """Open the files of a shard by its name."""
        return ShardOutput(
            name,
            form=request.output_format,
            has_embeddings=request.embeddings,
            has_titles=request.output_format == "parquet" and self._has_titles(request),
        )

    def _has_titles(self, request: RunRequest) -> bool:
        if request.source_format == "embeddings":
            return False
        try:
            label_set = label_set_of(request, self.label_sets)
        except (UnknownLabelSetError, InvalidMessageError):
            return False  # every shard fails
        return title_weights(label_set) is not None


def label_set_of(request: RunRequest, label_sets: LabelSetRegistry) -> LabelSet:
    """Return the label set of a run.

    Raises:
        UnknownLabelSetError: It is not registered.
        InvalidMessageError: It was registered under a contract that allowed more.
    """
    wanted = request.label_set
    return wanted if isinstance(wanted, LabelSet) else label_sets.get(wanted)


def title_weights(label_set: LabelSet) -> TitleWeights | None:
    """Return the weights of texts beside pictures; ``None`` if the set does not read them."""
    return None if label_set.learned is None else label_set.learned.titles
