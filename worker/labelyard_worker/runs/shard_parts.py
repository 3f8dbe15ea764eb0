"""Parts of a worker that the shards of runs use."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from labelyard.drift.counts import Answer
from labelyard.runs.ledger import RunLedger
from labelyard_worker.classify import Classifier
from labelyard_worker.runs.requests import RunRequests
from labelyard_worker.runs.shard_storage import OpenFiles
from labelyard_worker.runs.storage import RunStorage
from labelyard_worker.settings import WorkerSettings

CountAnswers = Callable[[str, Sequence[Answer]], None]


@dataclass(frozen=True)
class ShardParts:
    """Parts of a worker that shards use.

    Attributes:
        open_files: Opens the files of a shard by its name.
        count_answers: Counts the answers of a registered label set, named by its reference.
        wake_feeder: Has the feeder begin its next round now, if this worker leads.
    """

    runs: RunLedger
    requests: RunRequests
    storage: RunStorage
    classifier: Classifier
    open_files: OpenFiles
    count_answers: CountAnswers
    settings: WorkerSettings
    wake_feeder: Callable[[], None] = lambda: None
