"""Clients without servers: jobs get their results by a rule, or when the test sets them."""

import time
from collections.abc import AsyncIterator, Iterable, Iterator
from dataclasses import replace
from typing import Unpack

from labelyard.async_client import AsyncClient, AsyncJobHandle
from labelyard.async_registries import (
    AsyncDeadLetters,
    AsyncEventGroups,
    AsyncSetAside,
    AsyncTenants,
    AsyncWebhooks,
)
from labelyard.client import Client, JobHandle
from labelyard.errors import (
    IdempotencyConflictError,
    ImageNotEmbeddedError,
    JobDeadLetteredError,
    JobNotFoundError,
    LabelyardError,
    ResultTimeoutError,
    UnknownLabelSetError,
)
from labelyard.events.async_stream import AsyncEventStream
from labelyard.events.options import ConsumerOptions, EventOptions
from labelyard.events.stream import EventStream
from labelyard.label_sets.async_registry import AsyncLabelSetRegistry
from labelyard.ledger import Record, State
from labelyard.ledger.commands import job_digest
from labelyard.ledger.workers import WorkerInfo
from labelyard.messages import ImageRef, Job, LabelSet, Result, status_of
from labelyard.queues import Queue, SubmitQueue
from labelyard.runs.async_client import AsyncRuns
from labelyard.settings import ClientSettings
from labelyard.testing.fake_administration import AsyncFakeAdministration, FakeAdministration
from labelyard.testing.fake_events import AsyncFakeEventLog, FakeEventGroups, FakeEventLog
from labelyard.testing.fake_label_sets import FakeLabelSets
from labelyard.testing.fake_objects import FakeObjects
from labelyard.testing.fake_runs import FakeRuns
from labelyard.testing.fake_scoring import AsyncFakeScoring, FakeScoring
from labelyard.testing.fake_stores import (
    FakeDeadLetters,
    FakeSetAside,
    FakeTenants,
    as_pending,
)
from labelyard.testing.fake_webhooks import FakeWebhooks
from labelyard.testing.samples import Answer, fail_image, fail_job, sample_result


class FakeClient(FakeObjects, FakeScoring, FakeAdministration, Client):
    """A Client without servers: a rule answers jobs at once, or the test sets their results.

    Attributes:
        jobs: What was submitted, in this order.
        fleet: The workers that :meth:`workers` lists; one that is ready, unless the test
            replaces it.
        refuse_with: Raised by the next submits, as a full queue or a lost ledger would.
        event_log: Events of the jobs that became final.
    """

    label_sets: FakeLabelSets
    dead_letters: FakeDeadLetters
    set_aside: FakeSetAside
    tenants: FakeTenants
    webhooks: FakeWebhooks
    event_groups: FakeEventGroups
    runs: FakeRuns

    def __init__(
        self,
        answer: Answer | None = lambda job: sample_result(job=job),
        *,
        settings: ClientSettings | None = None,
    ) -> None:
        """Make a client that knows no job.

        Args:
            answer: Gives each job its result as it is submitted; ``None`` leaves jobs
                pending until :meth:`finish`.
        """
        self.settings: ClientSettings = settings or ClientSettings()
        self.jobs: list[Job] = []
        self.fleet: list[WorkerInfo] = [WorkerInfo(name="fake-worker", state="ready")]
        self.refuse_with: LabelyardError | None = None
        self.label_sets = FakeLabelSets()
        self.dead_letters = FakeDeadLetters(self.status, self._run_again)
        self.set_aside = FakeSetAside()
        self.tenants = FakeTenants(self.backlog)
        self.webhooks = FakeWebhooks()
        self.event_log: FakeEventLog = FakeEventLog()
        self.event_groups = FakeEventGroups(self.event_log)
        self.runs = FakeRuns(self.settings, self.label_sets)
        self._answer = answer
        self._records: dict[str, Record] = {}
        self._known_uris: set[str] = set()
        self._examples = {}

    def close(self) -> None:
        """Do nothing: there is no connection."""

    def finish(self, job_id: str, result: Result) -> None:
        """Set the result of a pending job; the first final state stands."""
        self._settle(job_id, result.status, result)

    def expire(self, job_id: str) -> None:
        """Make a pending job expire."""
        self._settle(job_id, "expired")

    def bury(self, job_id: str) -> None:
        """Make a pending job a dead letter, as if it had killed its workers."""
        record = self.status(job_id)
        error = JobDeadLetteredError(f"{job_id} killed its workers")
        self._settle(job_id, "failed", fail_job(record.job(), error))
        self.dead_letters.buried.append(job_id)

    def submit_job(self, job: Job, *, queue: SubmitQueue = Queue.INTERACTIVE) -> JobHandle:
        """Note the job and answer it."""
        if self.refuse_with is not None:
            raise self.refuse_with
        is_new = job.job_id not in self._records
        if not is_new and job_digest(self._records[job.job_id].job()) != job_digest(job):
            raise IdempotencyConflictError(f"{job.job_id}: another job was submitted under this id")
        if is_new:
            self.jobs.append(job)
            self._records[job.job_id] = _pending(job, queue)
            self._run(job)
        return JobHandle(job.job_id, is_new, True, self)

    def submit_many(
        self, jobs: Iterable[Job], *, queue: SubmitQueue = Queue.BULK
    ) -> list[JobHandle]:
        """Note the jobs and answer them."""
        return [self.submit_job(job, queue=queue) for job in jobs]

    def as_completed(
        self, jobs: Iterable[str | JobHandle], *, timeout_s: float
    ) -> Iterator[Record]:
        """Yield the records of final jobs; a pending job cannot become final: it times out at once."""
        for job in jobs:
            record = self.status(job if isinstance(job, str) else job.id)
            if not record.is_final:
                raise ResultTimeoutError(f"{record.job_id}: not final after {timeout_s:g} s")
            yield record

    def events(self, group: str, **options: Unpack[EventOptions]) -> EventStream:
        """Read the events of final jobs; the loop ends when there are no more."""
        checked = ConsumerOptions.checked(group, **options)
        return EventStream(replace(checked, timeout_s=0.0), lambda: self.event_log)

    def status(self, job_id: str) -> Record:
        """Read a job's record."""
        if job_id not in self._records:
            raise JobNotFoundError(job_id)
        return self._records[job_id]

    def cancel(self, job_id: str) -> bool:
        """Cancel a job that is not final."""
        self._settle(job_id, "cancelled")
        return self.status(job_id).state == "cancelled"

    def queue_lengths(self) -> dict[str, int]:
        """Return 0 for each queue."""
        return {queue.value: 0 for queue in Queue}

    def ping(self) -> None:
        """Answer."""

    def _run_again(self, job_id: str) -> None:
        self._records[job_id] = as_pending(self.status(job_id))
        self._run(self.status(job_id).job())

    def _run(self, job: Job) -> None:
        """Answer a job at once, as a worker would; a registered label set is looked up."""
        if self._answer is None:
            return
        try:
            self.finish(job.job_id, self._result(self._with_label_set(job)))
        except UnknownLabelSetError as error:
            self.finish(job.job_id, fail_job(job, error))

    def _with_label_set(self, job: Job) -> Job:
        if isinstance(job.label_set, LabelSet):
            return job
        return job.model_copy(update={"label_set": self.label_sets.get(job.label_set)})

    def _result(self, job: Job) -> Result:
        """Apply the rule; a re-scoring job has labels only for pictures classified before."""
        result = self._answer(job) if self._answer is not None else sample_result(job=job)
        if not job.rescore:
            self._known_uris.update(image.uri for image in job.images)
            return result
        images = tuple(
            image
            if image.error is not None or image.uri in self._known_uris
            else fail_image(ImageRef(id=image.id, uri=image.uri), ImageNotEmbeddedError(image.uri))
            for image in result.images
        )
        return result.model_copy(update={"images": images, "status": status_of(images)})

    def _settle(self, job_id: str, state: State, result: Result | None = None) -> None:
        record = self.status(job_id)
        if not record.is_final:
            final = replace(record, state=state, result=result, finished_at=time.time())
            self._records[job_id] = final
            self.event_log.add(final)


class AsyncFakeClient(FakeObjects, AsyncFakeScoring, AsyncFakeAdministration, AsyncClient):
    """An AsyncClient without servers; see :class:`FakeClient`, which is its ``fake``."""

    def __init__(self, fake: FakeClient | None = None) -> None:
        """Answer as *fake* does."""
        self.fake: FakeClient = fake or FakeClient()
        self.settings: ClientSettings = self.fake.settings
        self.label_sets: AsyncLabelSetRegistry = AsyncLabelSetRegistry(self.fake.label_sets)
        self.dead_letters: AsyncDeadLetters = AsyncDeadLetters(self.fake.dead_letters)
        self.set_aside: AsyncSetAside = AsyncSetAside(self.fake.set_aside)
        self.tenants: AsyncTenants = AsyncTenants(self.fake.tenants)
        self.webhooks: AsyncWebhooks = AsyncWebhooks(self.fake.webhooks)
        self.event_groups: AsyncEventGroups = AsyncEventGroups(self.fake.event_groups)
        self.runs: AsyncRuns = AsyncRuns(self.fake.runs)
        self._examples = self.fake._examples  # noqa: SLF001 - its twin

    async def close(self) -> None:
        """Do nothing: there is no connection."""

    async def submit_job(
        self, job: Job, *, queue: SubmitQueue = Queue.INTERACTIVE
    ) -> AsyncJobHandle:
        """Note the job and answer it."""
        handle = self.fake.submit_job(job, queue=queue)
        return AsyncJobHandle(handle.id, handle.is_new, handle.is_published, self)

    async def submit_many(
        self, jobs: Iterable[Job], *, queue: SubmitQueue = Queue.BULK
    ) -> list[AsyncJobHandle]:
        """Note the jobs and answer them."""
        return [await self.submit_job(job, queue=queue) for job in jobs]

    async def as_completed(
        self, jobs: Iterable[str | AsyncJobHandle], *, timeout_s: float
    ) -> AsyncIterator[Record]:
        """Yield the records of final jobs; a pending job times out at once."""
        job_ids = [job if isinstance(job, str) else job.id for job in jobs]
        for record in self.fake.as_completed(job_ids, timeout_s=timeout_s):
            yield record

    def events(self, group: str, **options: Unpack[EventOptions]) -> AsyncEventStream:
        """Read the events of final jobs; the loop ends when there are no more."""
        checked = replace(ConsumerOptions.checked(group, **options), timeout_s=0.0)
        return AsyncEventStream(checked, self._open_events)

    async def _open_events(self) -> AsyncFakeEventLog:  # type: ignore[override]
        return AsyncFakeEventLog(self.fake.event_log)

    async def status(self, job_id: str) -> Record:
        """Read a job's record."""
        return self.fake.status(job_id)

    async def cancel(self, job_id: str) -> bool:
        """Cancel a job that is not final."""
        return self.fake.cancel(job_id)

    async def queue_lengths(self) -> dict[str, int]:
        """Return 0 for each queue."""
        return self.fake.queue_lengths()

    async def ping(self) -> None:
        """Answer."""


def _pending(job: Job, queue: SubmitQueue) -> Record:
    now = time.time()
    return Record(
        job_id=job.job_id,
        state="pending",
        tenant=job.tenant,
        queue=str(queue),
        images=job.count_images(),
        submitted_at=now,
        published_at=now,
        finished_at=None,
        attempts=0,
        deaths=0,
        deaths_alone=0,
        last_death="",
        runner="",
        message=job.model_dump_json(),
        undelivered=(),
        expires_at=job.expires_at.timestamp() if job.expires_at else None,
        result=None,
    )
