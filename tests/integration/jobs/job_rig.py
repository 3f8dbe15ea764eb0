"""One worker's executor on a real ledger, for tests that deliver messages of jobs."""

from collections.abc import Callable
from typing import Any

from labelyard.errors import LabelyardError
from labelyard.ledger import Isolation, Ledger, Record, connect
from labelyard.messages import Job, Result
from labelyard.queues import Queue
from labelyard.testing import sample_job, sample_result
from labelyard.testing.samples import fail_image, score_image
from labelyard_worker.jobs.cancellation import RunningJobs, Token
from labelyard_worker.jobs.classify_job import Classify, ClassifyJob
from labelyard_worker.jobs.delivery.pool import DeliveryPool
from labelyard_worker.jobs.delivery.senders import senders_of
from labelyard_worker.jobs.executor import Executor
from labelyard_worker.jobs.watchdog import Watchdog
from labelyard_worker.jobs.work import ReceivedMessage
from labelyard_worker.settings import WorkerSettings

Answer = Callable[[Job], Result]


def succeed(job: Job) -> Result:
    return sample_result(job=job)


def fail_with(error: BaseException) -> Answer:
    def answer(job: Job) -> Result:
        raise error

    return answer


def half(error: LabelyardError) -> Answer:
    """Score the first image, and fail the second."""

    def answer(job: Job) -> Result:
        first, second = job.images
        images = (score_image(first, job), fail_image(second, error))
        return sample_result("partial", job=job).model_copy(update={"images": images})

    return answer


class JobRig:
    """Test rig: one worker's executor, and the ledger to inspect its jobs."""

    def __init__(self, settings: WorkerSettings, *, worker: str = "w1") -> None:
        self.settings = settings
        self.client = connect(settings)
        self.ledger = Ledger(self.client, settings)
        self.running = RunningJobs()
        self.worker = worker
        self.live(worker)
        self.deliveries = DeliveryPool(
            worker=worker, ledger=self.ledger, senders=senders_of(settings), poll_every_s=0.05
        )
        self.executor = Executor(
            worker=worker,
            ledger=self.ledger,
            delivery=self.deliveries,
            watchdog=Watchdog(model_busy_s=lambda: 0.0, model_timeout_s=60.0, is_on=False),
            running=self.running,
            settings=settings,
        )
        self.seen: list[str] = []

    def close(self) -> None:
        self.deliveries.close()
        self.client.close()

    def live(self, worker: str) -> None:
        """Write the presence key of *worker*."""
        self.client.set(self.ledger.keys.worker(worker), "[]", ex=60)

    def submit(self, queue: Queue = Queue.INTERACTIVE, **changes: Any) -> Job:
        job = sample_job(**changes)
        self.ledger.open(job, queue=queue)
        return job

    def run(self, job: Job, answer: Answer = succeed, *, queue: Queue = Queue.INTERACTIVE) -> None:
        """Deliver the job's message."""
        self.run_message(job.model_dump(mode="json"), answer, queue=queue)

    def run_message(
        self, message: Any, answer: Answer = succeed, *, queue: Queue = Queue.INTERACTIVE
    ) -> None:
        def classify(job: Job, queue: Queue, token: Token) -> Result:
            self.seen.append(job.job_id)
            return answer(job)

        self.receive(ReceivedMessage(message, queue), classify)

    def receive(self, message: ReceivedMessage, classify: Classify) -> str:
        """Execute the job in a message with further fields in its envelope."""
        return self.executor.run(message, lambda one: ClassifyJob.read(one, classify))

    def record(self, job_id: str) -> Record:
        record = self.ledger.read(job_id)
        assert record is not None
        return record

    def due_in_s(self, job: Job) -> float | None:
        """Return the seconds until the job is to be sent again."""
        due = self.client.zscore(self.ledger.keys.due, job.job_id)
        seconds, microseconds = self.client.time()
        return None if due is None else float(due) - seconds - microseconds / 1_000_000

    def die_with(self, job: Job, *, times: int, isolation: Isolation = "none") -> None:
        """Have workers begin the job and vanish."""
        for number in range(times):
            self.ledger.start(
                job.job_id,
                worker=f"gone-{isolation}-{number}",
                isolation=isolation,
                quarantine_after=99,
                dead_after=99,
            )


def rig_settings(ledger_url: str, **changes: Any) -> WorkerSettings:
    return WorkerSettings(
        **{"ledger_url": ledger_url, "namespace": "test", "max_attempts": 3, **changes}
    )
