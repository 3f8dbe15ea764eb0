"""Classification of a job's images, as the executor runs it: the result is part of the record."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from labelyard.ledger import Ledger, Pending
from labelyard.ledger.commands import job_digest
from labelyard.messages import Failure, ImageResult, Job, Result, parse_job
from labelyard.queues import Queue
from labelyard_worker.jobs.cancellation import Token
from labelyard_worker.jobs.delivery.plan import Delivery, deliveries_of
from labelyard_worker.jobs.work import ReceivedMessage, Work
from labelyard_worker.observations import observe_stage
from labelyard_worker.spans import Attributes

Classify = Callable[[Job, Queue, Token], Result]
Count = Callable[[Job, Result], None]


def count_nothing(job: Job, result: Result) -> None:
    """Count no answers."""


@dataclass(frozen=True)
class ClassifyJob(Work[Result]):
    """One job whose images are scored against its labels.

    Attributes:
        job: The job, with the expiry of its call.
        queue: The queue that brought it.
        classify: The main path, ``classify.py``.
        count_answers: Counts the answers of a job that became final.
    """

    job: Job
    queue: Queue
    classify: Classify
    count_answers: Count = count_nothing

    @classmethod
    def read(
        cls, message: ReceivedMessage, classify: Classify, count: Count = count_nothing
    ) -> "ClassifyJob":
        """Parse the job in *message*.

        Raises:
            InvalidMessageError: It does not follow the contract.
        """
        job = expiring(parse_job(message.body), message.expires_at)
        return cls(job, message.queue, classify, count)

    @property
    def job_id(self) -> str:
        """Id of the job's record."""
        return self.job.job_id

    @property
    def tenant(self) -> str:
        """Tenant of the job."""
        return self.job.tenant

    @property
    def digest(self) -> str:
        """Digest of the job, equal for the same job of any client."""
        return job_digest(self.job)

    @property
    def trace(self) -> Mapping[str, str]:
        """Trace entries of the job, with the span of its submit if there is one."""
        return self.job.trace

    def to_json(self) -> str:
        """Write the job as its message."""
        return self.job.model_dump_json()

    def adopt(self, ledger: Ledger, *, queue: Queue) -> bool:
        """Write the record of a job of which only the message came."""
        return ledger.adopt(self.job, queue=queue)

    def run(self, token: Token, *, queued_s: float) -> Result:
        """Score the images."""
        observe_stage("queued", queued_s, self.queue.rules.priority)
        result = self.classify(self.job, self.queue, token)
        timing = result.timing.model_copy(update={"queued_s": queued_s})
        return result.model_copy(update={"timing": timing})

    def retryable_code(self, result: Result) -> str | None:
        """Return the code of the first image that a later attempt may score."""
        errors = (image.error for image in result.images if image.error is not None)
        return next((error.code for error in errors if error.is_retryable), None)

    def failed(self, failure: Failure) -> Result:
        """Make a result in which each image has the job's own error."""
        images = tuple(
            ImageResult(id=image.id, uri=image.uri, error=failure) for image in self.job.images
        )
        return Result(
            job_id=self.job_id, status="failed", tenant=self.tenant, images=images, error=failure
        )

    def finish(self, ledger: Ledger, result: Result, *, pending: Pending, is_dead: bool) -> bool:
        """Write the result into the job's record."""
        return ledger.finish(self.job_id, result, pending=pending, is_dead=is_dead)

    def count(self, result: Result) -> None:
        """Count the answers, for the drift of the label set and for a canary."""
        self.count_answers(self.job, result)

    def delivery(self, result: Result) -> Delivery | None:
        """Return the deliveries to an object and a webhook that the job names."""
        names = deliveries_of(self.job, result)
        return Delivery(self.job, result, names) if names else None

    def failure_code(self, result: Result) -> str:
        """Return the code of the job's error, else of the first image, if all images failed."""
        failures = [result.error, *(image.error for image in result.images)]
        codes = (failure.code for failure in failures if failure is not None)
        return next(codes, "") if result.status == "failed" else ""

    def attributes(self, result: Result | None) -> Attributes:
        """Return queue and size of the job; of a result, its status, label set and checkpoint."""
        known: dict[str, str | int | float | bool] = {
            "messaging.destination.name": self.queue.value,
            "labelyard.images": len(self.job.images),
        }
        if result is not None:
            known["labelyard.status"] = result.status
            known["labelyard.label_set"] = result.label_set or ""
            known["labelyard.checkpoint"] = result.model.checkpoint if result.model else ""
        return known

    def image_outcomes(self, result: Result) -> Sequence[str]:
        """Return ``succeeded`` or the error's code for each image."""
        return [image.error.code if image.error else "succeeded" for image in result.images]

    def describe(self, result: Result) -> Mapping[str, object]:
        """Return status, size, trace and timing."""
        return {
            "status": result.status,
            "images": len(self.job.images),
            **({"trace": self.job.trace} if self.job.trace else {}),
            **result.timing.model_dump(),
        }


def expiring(job: Job, expires_at: float | None) -> Job:
    """Return *job* with the earlier one of its own expiry and that of its call."""
    if expires_at is None or (job.expires_at and job.expires_at.timestamp() <= expires_at):
        return job
    return job.model_copy(update={"expires_at": datetime.fromtimestamp(expires_at, UTC)})
