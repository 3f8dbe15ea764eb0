"""Clients without servers: jobs get their results by a rule, or when the test sets them."""

import hashlib
import time
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Unpack

from labelyard.async_client import AsyncClient, AsyncJobHandle
from labelyard.async_label_sets import AsyncLabelSetRegistry
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
from labelyard.testing.fake_runs import FakeRuns
from labelyard.testing.fake_stores import (
    FakeDeadLetters,
    FakeSetAside,
    FakeTenants,
    as_pending,
)
from labelyard.testing.fake_webhooks import FakeWebhooks
from labelyard.testing.samples import SAMPLE_MAP, Answer, fail_image, fail_job, sample_result


class FakeClient(FakeAdministration, Client):
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
        self._examples: dict[str, bytes] = {}

    def close(self) -> None:
        """Do nothing: there is no connection."""

    def _upload(self, files: Sequence[Path]) -> Mapping[Path, str]:
        """Upload nothing; a file gets an address of its name."""
        return {file: f"s3://{self.settings.upload_bucket}/{file.name}" for file in files}

    def _read_map(self, uri: str) -> bytes:  # noqa: ARG002 - as of the client
        """Return a picture of one pixel."""
        return SAMPLE_MAP

    def _store_examples(self, body: bytes) -> None:
        """Keep the object with the examples in memory."""
        self._examples[hashlib.sha256(body).hexdigest()] = body

    def _read_example_digests(self, label_set: LabelSet) -> frozenset[str]:
        """Read the digests of the pictures that taught a set of this client."""
        from labelyard.evaluation.example_file import ExampleFile

        examples = None if label_set.learned is None else label_set.learned.examples
        if examples is None:
            return frozenset()
        return frozenset(ExampleFile.from_bytes(self._examples[examples.sha256]).sha256)

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


class AsyncFakeClient(AsyncFakeAdministration, AsyncClient):
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

    async def close(self) -> None:
        """Do nothing: there is no connection."""

    def _upload(self, files: Sequence[Path]) -> Mapping[Path, str]:
        """Upload nothing; a file gets an address of its name."""
        return self.fake._upload(files)  # noqa: SLF001 - its twin

    def _read_map(self, uri: str) -> bytes:
        """Return a picture of one pixel."""
        return self.fake._read_map(uri)  # noqa: SLF001 - its twin

    def _store_examples(self, body: bytes) -> None:
        """Keep the object with the examples in memory."""
        self.fake._store_examples(body)  # noqa: SLF001 - its twin

    def _read_example_digests(self, label_set: LabelSet) -> frozenset[str]:
        """Read the digests of the pictures that taught a set of this client."""
        return self.fake._read_example_digests(label_set)  # noqa: SLF001 - its twin

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
