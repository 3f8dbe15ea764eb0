"""Services of runs in a worker: built once, and used by each part that a message brings."""

from dataclasses import dataclass
from typing import Any

from labelyard.outgoing import PLAN_TASK, SHARD_TASK
from labelyard.publisher import Publisher
from labelyard.runs.ledger import RunLedger
from labelyard_worker.classify import Classifier
from labelyard_worker.jobs.work import ReceivedMessage, Work
from labelyard_worker.runs.end_work import EndParts, EndWork
from labelyard_worker.runs.feeder import RunFeeder
from labelyard_worker.runs.plan_sources import PlanSources
from labelyard_worker.runs.plan_work import PlanParts, PlanWork
from labelyard_worker.runs.requests import RunRequests
from labelyard_worker.runs.result_files import ResultFiles
from labelyard_worker.runs.shard_parts import CountAnswers, ShardParts
from labelyard_worker.runs.shard_work import ShardWork
from labelyard_worker.runs.storage import RunStorage
from labelyard_worker.settings import WorkerSettings


@dataclass(frozen=True)
class RunServices:
    """Parts of a worker that do the work of runs.

    Attributes:
        feeder: Opens the jobs of runs while this worker leads.
    """

    plans: PlanParts
    shards: ShardParts
    ends: EndParts
    feeder: RunFeeder

    @classmethod
    def of(
        cls,
        settings: WorkerSettings,
        *,
        runs: RunLedger,
        publisher: Publisher,
        classifier: Classifier,
        count_answers: CountAnswers,
    ) -> "RunServices":
        """Build the parts.

        Args:
            count_answers: Counts answers of registered label sets for their drift.

        Raises:
            ServiceConfigError: LABELYARD_RESULT_BUCKETS has another form.
        """
        storage = RunStorage.of(settings)
        open_source = PlanSources(storage).open
        open_files = ResultFiles(classifier.label_sets).open
        feeder = RunFeeder(runs, publisher, settings)
        wake = feeder.woken.set
        requests = RunRequests(runs)
        return cls(
            plans=PlanParts(runs, storage, classifier, open_source, settings, wake),
            shards=ShardParts(
                runs, requests, storage, classifier, open_files, count_answers, settings, wake
            ),
            ends=EndParts(runs, storage, open_files, settings),
            feeder=feeder,
        )

    def read(self, task: str, message: ReceivedMessage) -> Work[Any]:
        """Read the work in a message of one of the tasks of runs.

        Raises:
            InvalidMessageError: It is not such a part.
        """
        if task == PLAN_TASK:
            return PlanWork.read(message, self.plans)
        if task == SHARD_TASK:
            return ShardWork.read(message, self.shards)
        return EndWork.read(message, self.ends)
