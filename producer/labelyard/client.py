"""Client: submit jobs, wait for their results, cancel them."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import islice
from types import TracebackType
from typing import Self, Unpack

from labelyard.administration import Administration
from labelyard.arguments import (
    job_id_of,
    job_ids_of,
    jobs_of,
    prepared,
    submit_queue,
    wait_s,
    writing,
)
from labelyard.errors import JobNotFoundError
from labelyard.evaluation.adapting_calls import AdaptingCalls
from labelyard.evaluation.calls import EvaluationCalls
from labelyard.evaluation.learning_calls import LearningCalls
from labelyard.events.groups import EventGroups
from labelyard.events.options import ConsumerOptions, EventOptions
from labelyard.events.stream import EventStream
from labelyard.explaining import ExplanationCalls
from labelyard.label_sets import LabelSetRegistry
from labelyard.label_sets.aliases import read_alias_of
from labelyard.ledger import Ledger, Opened, Record, State, connect
from labelyard.ledger.completion import final_records
from labelyard.ledger.connection import PIPELINE_SIZE
from labelyard.ledger.dead_letters import DeadLetters
from labelyard.ledger.event_stream import LedgerEvents
from labelyard.ledger.listener_thread import ListenerThread
from labelyard.ledger.redis_errors import ledger_errors_as_ours
from labelyard.ledger.set_aside import SetAside
from labelyard.ledger.sightings import Sightings
from labelyard.ledger.webhooks import Webhooks
from labelyard.lifetimes import LIFETIMES
from labelyard.messages import Job, Result
from labelyard.publisher import Publisher
from labelyard.queues import Queue, SubmitQueue
from labelyard.runs.client import Runs
from labelyard.settings import ClientSettings
from labelyard.submission import BulkSubmission, Image, JobOptions, Labels, make_job
from labelyard.tenants import Tenants
from labelyard.tracing import submitting


@dataclass(frozen=True, slots=True)
class JobHandle:
    """A job that was accepted.

    Attributes:
        id: The job's id; all that another process needs to read the result.
        is_new: ``False`` if the same job had been submitted before under its idempotency
            key or its id: this handle is that job's. After a submit whose reply was lost
            the second submit returns ``False``, too; a worker publishes the job's message.
        is_published: ``False`` if the broker did not take it yet; a worker's reconciler
            sends it when the broker is back.
    """

    id: str
    is_new: bool
    is_published: bool
    _client: "Client" = field(repr=False, compare=False)

    def result(self, *, timeout_s: float = 0.0) -> Result:
        """Wait for the result; see :meth:`Client.result`."""
        return self._client.result(self.id, timeout_s=timeout_s)

    def state(self) -> State:
        """Read the job's state."""
        return self._client.status(self.id).state

    def cancel(self) -> bool:
        """Cancel the job; see :meth:`Client.cancel`."""
        return self._client.cancel(self.id)


class Client(Administration, EvaluationCalls, LearningCalls, AdaptingCalls, ExplanationCalls):
    """Submits jobs and reads their results. Safe to share between threads.

    Every method raises LedgerUnavailableError when the ledger gives no answer.

    Attributes:
        settings: What it was made with.
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
            ServiceConfigError: A variable has a value that is refused.
        """
        self.settings: ClientSettings = settings or ClientSettings.read()
        connection = connect(self.settings)
        sightings = Sightings(result_ttl_s=self.settings.result_ttl_s)
        self._ledger = Ledger(connection, self.settings, sightings=sightings)
        self._listener = ListenerThread(self.settings, sightings=sightings)
        self._publisher = Publisher(self.settings, timeout_s=self.settings.publish_timeout_s)
        namespace = self.settings.namespace
        self.label_sets: LabelSetRegistry = LabelSetRegistry(connection, namespace=namespace)
        self.dead_letters: DeadLetters = DeadLetters(self._ledger, self._publisher)
        self.set_aside: SetAside = SetAside(connection, self.settings, publisher=self._publisher)
        self.tenants: Tenants = Tenants(self._ledger, self._publisher)
        self.webhooks: Webhooks = Webhooks(self._ledger)
        self.event_groups: EventGroups = EventGroups(self._ledger)
        self.runs: Runs = Runs(self._ledger, self._publisher, self.settings)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        error_type: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close all connections."""
        self._listener.close()
        self._publisher.close()
        self._ledger.client.close()

    def prepare(
        self, images: Iterable[Image], labels: Labels, **options: Unpack[JobOptions]
    ) -> Job:
        """Make a job without submitting it; for :meth:`submit_many`.

        Args:
            images: 1 to 64 of: an address, ``(id, address)``, or an ``ImageRef``.
            labels: Names, ``Label`` objects, a ``LabelSet``, ``name@sha256:…``, or an alias,
                ``name@alias``, which is read now.
            options: See :class:`labelyard.submission.JobOptions`.

        Raises:
            InvalidMessageError: Something is not as the contract wants it.
        """
        return make_job(self.settings, images, read_alias_of(self.label_sets, labels), **options)

    def submit(
        self,
        images: Iterable[Image],
        labels: Labels,
        *,
        queue: SubmitQueue = Queue.INTERACTIVE,
        **options: Unpack[JobOptions],
    ) -> JobHandle:
        """Submit a job, and return as soon as the ledger has it.

        Args:
            images: 1 to 64 of: an address, ``(id, address)``, or an ``ImageRef``.
            labels: Names, ``Label`` objects, a ``LabelSet``, ``name@sha256:…``, or an alias,
                ``name@alias``, which is read now.
            queue: ``interactive`` work never waits behind ``bulk`` work.
            options: See :class:`labelyard.submission.JobOptions`.

        Raises:
            InvalidMessageError: Something is not as the contract wants it.
            QueueFullError: As many images wait as LABELYARD_MAX_QUEUED_IMAGES allows.
            TenantQuotaError: A quota of the job's tenant is used up; it says when to try again.
            IdempotencyConflictError: The idempotency key was used for another job.
            LedgerUnavailableError: The ledger gave no answer: the job may have been accepted.
                The error's ``job_id`` names it; to submit again without running it twice,
                use an idempotency key, or :meth:`prepare` and :meth:`submit_job`.
        """
        return self.submit_job(self.prepare(images, labels, **options), queue=queue)

    def submit_job(self, job: Job, *, queue: SubmitQueue = Queue.INTERACTIVE) -> JobHandle:
        """Submit a prepared job; see :meth:`submit`. A job is run once, however often it is."""
        queue = submit_queue(queue)
        if LIFETIMES.has(prepared(job)):
            job = LIFETIMES.resolve(job, now=self._ledger.now())
        with submitting([job], queue=queue, settings=self.settings) as spans:
            (job,) = spans.jobs
            with writing("job"):
                opened = self._ledger.open(job, queue=queue)
            spans.note([opened])
            is_published = not opened.is_new or self._publisher.publish(
                job, queue=queue, published_at=opened.at
            )
        return self._handle(job, opened, is_published=is_published)

    def submit_many(
        self, jobs: Iterable[Job], *, queue: SubmitQueue = Queue.BULK
    ) -> list[JobHandle]:
        """Submit many prepared jobs in few round trips.

        Returns:
            A handle for each job, in their order.

        Raises:
            QueueFullError: Not all were accepted. Submit the same jobs again later: what
                was accepted before is not run twice.
            TenantQuotaError: The same, because a quota of a tenant is used up.
            IdempotencyConflictError: One of them has the id or key of another job.
            LedgerUnavailableError: The same, because the ledger gave no answer. The error's
                ``job_ids`` may have been accepted.
        """
        queue = submit_queue(queue)
        bulk = BulkSubmission()
        handles: list[JobHandle] = []
        waiting = jobs_of(jobs)
        while chunk := list(islice(waiting, PIPELINE_SIZE)):
            if any(map(LIFETIMES.has, chunk)):
                now = self._ledger.now()
                chunk = [LIFETIMES.resolve(job, now=now) for job in chunk]
            with submitting(chunk, queue=queue, settings=self.settings) as spans:
                with writing("job"):
                    answers = self._ledger.open_many(spans.jobs, queue=queue)
                spans.note(answers)
                outgoing = bulk.add(spans.jobs, answers, queue=queue)
                is_published = self._publisher.publish_many(outgoing)
            bulk.raise_refusal()
            handles += [
                self._handle(job, opened, is_published=is_published or not opened.is_new)
                for job, opened in bulk.accepted[len(handles) :]
            ]
        return handles

    def _handle(self, job: Job, opened: Opened, *, is_published: bool) -> JobHandle:
        return JobHandle(job.job_id, opened.is_new, is_published, self)

    def classify(
        self,
        images: Iterable[Image],
        labels: Labels,
        *,
        timeout_s: float = 60.0,
        queue: SubmitQueue = Queue.INTERACTIVE,
        **options: Unpack[JobOptions],
    ) -> Result:
        """Submit a job and wait for its result; see :meth:`submit` and :meth:`result`."""
        return self.submit(images, labels, queue=queue, **options).result(timeout_s=timeout_s)

    def result(self, job_id: str, *, timeout_s: float = 0.0) -> Result:
        """Return the job's result, if it has one within *timeout_s* seconds.

        Raises:
            ResultTimeoutError: It is not final yet; it goes on.
            JobCancelledError: It was cancelled.
            JobExpiredError: It expired.
            JobNotFoundError: There is no such job, or its result was dropped after its TTL.
        """
        return self.wait([job_id], timeout_s=timeout_s)[0].outcome()

    def wait(self, jobs: Iterable[str | JobHandle], *, timeout_s: float) -> list[Record]:
        """Wait until all *jobs* are final.

        Returns:
            Their records, in the order given. ``record.outcome()`` is the result, or
            raises why there is none.

        Raises:
            ResultTimeoutError: Some are not final yet.
            JobNotFoundError: There is no such job.
        """
        job_ids = job_ids_of(jobs)
        final = {
            record.job_id: record for record in self.as_completed(job_ids, timeout_s=timeout_s)
        }
        return [final[job_id] for job_id in job_ids]

    def as_completed(
        self, jobs: Iterable[str | JobHandle], *, timeout_s: float
    ) -> Iterator[Record]:
        """Yield the records of *jobs* as they become final; raises as :meth:`wait` does."""
        return final_records(
            self._ledger, self._listener, job_ids_of(jobs), timeout_s=wait_s(timeout_s)
        )

    def events(self, group: str, **options: Unpack[EventOptions]) -> EventStream:
        """Read the events of jobs, runs and shards that became final, as a consumer of *group*.

        Each event goes to one consumer of each group, at least once: if it is not acknowledged,
        it is given to another consumer after a while.

        Args:
            group: Name of the group; it is made if it does not exist.
            options: See :class:`labelyard.events.options.EventOptions`.

        Returns:
            To be used in a ``for`` loop, whose exceptions are those of
            :meth:`labelyard.events.stream.EventStream.__iter__`.

        Raises:
            InvalidMessageError: An option is not as it should be.
        """
        checked = ConsumerOptions.checked(group, **options)
        return EventStream(checked, lambda: LedgerEvents(self._ledger, connect(self.settings)))

    def status(self, job_id: str) -> Record:
        """Read all that the ledger knows of a job.

        Raises:
            JobNotFoundError: There is no such job.
        """
        record = self._ledger.read(job_id_of(job_id))
        if record is None:
            raise JobNotFoundError(job_id)
        return record

    def cancel(self, job_id: str) -> bool:
        """Cancel a job at once, running or not; returns whether it is cancelled now.

        Raises:
            JobNotFoundError: There is no such job.
        """
        return self._ledger.cancel(job_id_of(job_id)) or self.status(job_id).state == "cancelled"

    def queue_lengths(self) -> dict[str, int]:
        """Count the messages that wait in each queue.

        Raises:
            BrokerUnavailableError: The broker gave no answer.
        """
        return self._publisher.depths()

    def ping(self) -> None:
        """Check that the ledger and the broker answer.

        Raises:
            BrokerUnavailableError: The broker gave none.
        """
        with ledger_errors_as_ours():
            self._ledger.client.ping()
        self._publisher.depths()
