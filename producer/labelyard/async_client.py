"""AsyncClient: the methods of Client, for asyncio."""

import asyncio
from collections.abc import AsyncIterator, Iterable
from contextlib import aclosing
from dataclasses import dataclass, field
from itertools import islice
from types import TracebackType
from typing import Self, Unpack

from labelyard.administration import AsyncAdministration
from labelyard.arguments import (
    job_id_of,
    job_ids_of,
    jobs_of,
    prepared,
    submit_queue,
    wait_s,
    writing,
)
from labelyard.async_registries import (
    AsyncDeadLetters,
    AsyncEventGroups,
    AsyncSetAside,
    AsyncTenants,
    AsyncWebhooks,
)
from labelyard.errors import JobNotFoundError
from labelyard.evaluation.adapting_calls import AsyncAdaptingCalls
from labelyard.evaluation.calls import AsyncEvaluationCalls
from labelyard.evaluation.learning_calls import AsyncLearningCalls
from labelyard.events.async_stream import AsyncEventStream
from labelyard.events.groups import EventGroups
from labelyard.events.options import ConsumerOptions, EventOptions
from labelyard.explaining import AsyncExplanationCalls
from labelyard.label_sets import LabelSetRegistry
from labelyard.label_sets.async_registry import AsyncLabelSetRegistry
from labelyard.label_sets.versions import is_alias
from labelyard.ledger import AsyncLedger, Ledger, Opened, Record, State, connect
from labelyard.ledger.async_client import connect_async
from labelyard.ledger.completion import final_records_async
from labelyard.ledger.connection import PIPELINE_SIZE
from labelyard.ledger.dead_letters import DeadLetters
from labelyard.ledger.event_stream import AsyncLedgerEvents
from labelyard.ledger.redis_errors import ledger_errors_as_ours
from labelyard.ledger.set_aside import SetAside
from labelyard.ledger.webhooks import Webhooks
from labelyard.lifetimes import LIFETIMES
from labelyard.loops import ConnectionsByLoop
from labelyard.messages import Job, Result
from labelyard.publisher import Publisher
from labelyard.queues import Queue, SubmitQueue
from labelyard.runs.async_client import AsyncRuns
from labelyard.runs.client import Runs
from labelyard.settings import ClientSettings
from labelyard.submission import BulkSubmission, Image, JobOptions, Labels, make_job
from labelyard.tenants import Tenants
from labelyard.tracing import submitting


@dataclass(frozen=True, slots=True)
class AsyncJobHandle:
    """A job that was accepted; see :class:`labelyard.client.JobHandle`."""

    id: str
    is_new: bool
    is_published: bool
    _client: "AsyncClient" = field(repr=False, compare=False)

    async def result(self, *, timeout_s: float = 0.0) -> Result:
        """Wait for the result; see :meth:`AsyncClient.result`."""
        return await self._client.result(self.id, timeout_s=timeout_s)

    async def state(self) -> State:
        """Read the job's state."""
        return (await self._client.status(self.id)).state

    async def cancel(self) -> bool:
        """Cancel the job; see :meth:`AsyncClient.cancel`."""
        return await self._client.cancel(self.id)


class AsyncClient(
    AsyncAdministration,
    AsyncEvaluationCalls,
    AsyncLearningCalls,
    AsyncAdaptingCalls,
    AsyncExplanationCalls,
):
    """Submits jobs and reads their results, in any number of event loops.

    The methods mean, return and raise what those of :class:`labelyard.Client` do. Each loop
    gets connections of its own at its first call, which are closed with the loop.

    Attributes:
        settings: Settings of the client.
        label_sets: Named label sets, to refer to from jobs.
        dead_letters: Jobs that killed or hung their workers.
        set_aside: Messages that no worker could run.
        tenants: Weights and quotas of those who share the installation.
        webhooks: Webhooks that have not arrived, to list and to replay.
        event_groups: Groups that read the event stream.
        runs: Bulk work over manifests and prefixes.
    """

    def __init__(self, settings: ClientSettings | None = None) -> None:
        """Connect when there is something to do.

        Args:
            settings: Read from ``LABELYARD_*`` if not given.

        Raises:
            ServiceConfigError: A setting has a value that is refused.
        """
        self.settings: ClientSettings = settings or ClientSettings.read()
        self._connections = ConnectionsByLoop(self.settings)
        self._publisher = Publisher(self.settings, timeout_s=self.settings.publish_timeout_s)
        self._threads_connection = connect(self.settings)
        ledger = self._threads_ledger = Ledger(self._threads_connection, self.settings)
        sets = LabelSetRegistry(self._threads_connection, namespace=self.settings.namespace)
        self.label_sets: AsyncLabelSetRegistry = AsyncLabelSetRegistry(sets)
        letters = DeadLetters(ledger, self._publisher)
        self.dead_letters: AsyncDeadLetters = AsyncDeadLetters(letters)
        set_aside = SetAside(self._threads_connection, self.settings, publisher=self._publisher)
        self.set_aside: AsyncSetAside = AsyncSetAside(set_aside)
        self.tenants: AsyncTenants = AsyncTenants(Tenants(ledger, self._publisher))
        self.webhooks: AsyncWebhooks = AsyncWebhooks(Webhooks(ledger))
        self.event_groups: AsyncEventGroups = AsyncEventGroups(EventGroups(ledger))
        self.runs: AsyncRuns = AsyncRuns(Runs(ledger, self._publisher, self.settings))

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        error_type: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Close the connections of this event loop, and those to the broker."""
        await asyncio.to_thread(self._publisher.close)
        await asyncio.to_thread(self._threads_connection.close)
        await self._connections.close_here()

    async def _ledger(self) -> AsyncLedger:
        return (await self._connections.here()).ledger

    def prepare(
        self, images: Iterable[Image], labels: Labels, **options: Unpack[JobOptions]
    ) -> Job:
        """Make a job without submitting it; for :meth:`submit_many`.

        It reads no alias: pass what ``await client.label_sets.alias(…)`` returns.
        """
        return make_job(self.settings, images, labels, **options)

    async def submit(
        self,
        images: Iterable[Image],
        labels: Labels,
        *,
        queue: SubmitQueue = Queue.INTERACTIVE,
        **options: Unpack[JobOptions],
    ) -> AsyncJobHandle:
        """Submit a job, and return as soon as the ledger has it."""
        if is_alias(labels):
            labels = await self.label_sets.alias(labels)
        return await self.submit_job(self.prepare(images, labels, **options), queue=queue)

    async def submit_job(
        self, job: Job, *, queue: SubmitQueue = Queue.INTERACTIVE
    ) -> AsyncJobHandle:
        """Submit a prepared job."""
        queue = submit_queue(queue)
        ledger = await self._ledger()
        if LIFETIMES.has(prepared(job)):
            job = LIFETIMES.resolve(job, now=await ledger.now())
        with submitting([job], queue=queue, settings=self.settings) as spans:
            (job,) = spans.jobs
            with writing("job"):
                opened = await ledger.open(job, queue=queue)
            spans.note([opened])
            is_published = not opened.is_new or await asyncio.to_thread(
                self._publisher.publish, job, queue=queue, published_at=opened.at
            )
        return self._handle(job, opened, is_published=is_published)

    async def submit_many(
        self, jobs: Iterable[Job], *, queue: SubmitQueue = Queue.BULK
    ) -> list[AsyncJobHandle]:
        """Submit many prepared jobs in few round trips."""
        queue = submit_queue(queue)
        ledger = await self._ledger()
        bulk = BulkSubmission()
        handles: list[AsyncJobHandle] = []
        waiting = jobs_of(jobs)
        while chunk := list(islice(waiting, PIPELINE_SIZE)):
            if any(map(LIFETIMES.has, chunk)):
                now = await ledger.now()
                chunk = [LIFETIMES.resolve(job, now=now) for job in chunk]
            with submitting(chunk, queue=queue, settings=self.settings) as spans:
                with writing("job"):
                    answers = await ledger.open_many(spans.jobs, queue=queue)
                spans.note(answers)
                outgoing = bulk.add(spans.jobs, answers, queue=queue)
                is_published = await asyncio.to_thread(self._publisher.publish_many, outgoing)
            bulk.raise_refusal()
            handles += [
                self._handle(job, opened, is_published=is_published or not opened.is_new)
                for job, opened in bulk.accepted[len(handles) :]
            ]
        return handles

    def _handle(self, job: Job, opened: Opened, *, is_published: bool) -> AsyncJobHandle:
        return AsyncJobHandle(job.job_id, opened.is_new, is_published, self)

    async def classify(
        self,
        images: Iterable[Image],
        labels: Labels,
        *,
        timeout_s: float = 60.0,
        queue: SubmitQueue = Queue.INTERACTIVE,
        **options: Unpack[JobOptions],
    ) -> Result:
        """Submit a job and wait for its result."""
        job = await self.submit(images, labels, queue=queue, **options)
        return await job.result(timeout_s=timeout_s)

    async def result(self, job_id: str, *, timeout_s: float = 0.0) -> Result:
        """Return the job's result, if it has one within *timeout_s* seconds."""
        return (await self.wait([job_id], timeout_s=timeout_s))[0].outcome()

    async def wait(self, jobs: Iterable[str | AsyncJobHandle], *, timeout_s: float) -> list[Record]:
        """Wait until all *jobs* are final; returns their records in the order given."""
        job_ids = job_ids_of(jobs)
        completed = self.as_completed(job_ids, timeout_s=timeout_s)
        final = {record.job_id: record async for record in completed}
        return [final[job_id] for job_id in job_ids]

    def as_completed(
        self, jobs: Iterable[str | AsyncJobHandle], *, timeout_s: float
    ) -> AsyncIterator[Record]:
        """Yield the records of *jobs* as they become final."""
        return self._final_records(job_ids_of(jobs), timeout_s=wait_s(timeout_s))

    async def _final_records(
        self, job_ids: list[str], *, timeout_s: float
    ) -> AsyncIterator[Record]:
        here = await self._connections.here()
        records = final_records_async(here.ledger, here.listener, job_ids, timeout_s=timeout_s)
        async with aclosing(records):
            async for record in records:
                yield record

    def events(self, group: str, **options: Unpack[EventOptions]) -> AsyncEventStream:
        """Read the events of records that became final, as a consumer of *group*.

        To be used in an ``async for`` loop; see :meth:`labelyard.Client.events`.
        """
        return AsyncEventStream(ConsumerOptions.checked(group, **options), self._open_events)

    async def _open_events(self) -> AsyncLedgerEvents:
        here = await self._connections.here()
        return AsyncLedgerEvents(here.ledger, connect_async(self.settings))

    async def status(self, job_id: str) -> Record:
        """Read all that the ledger knows of a job."""
        record = await (await self._ledger()).read(job_id_of(job_id))
        if record is None:
            raise JobNotFoundError(job_id)
        return record

    async def cancel(self, job_id: str) -> bool:
        """Cancel a job at once, running or not; returns whether it is cancelled now."""
        if await (await self._ledger()).cancel(job_id_of(job_id)):
            return True
        return (await self.status(job_id)).state == "cancelled"

    async def queue_lengths(self) -> dict[str, int]:
        """Count the messages that wait in each queue."""
        return await asyncio.to_thread(self._publisher.depths)

    async def ping(self) -> None:
        """Check that the ledger and the broker answer."""
        ledger = await self._ledger()
        with ledger_errors_as_ours():
            await ledger.client.ping()
        await asyncio.to_thread(self._publisher.depths)
