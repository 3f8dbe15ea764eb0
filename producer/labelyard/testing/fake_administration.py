"""Administration of jobs in memory: the calls of the fakes that list and count jobs."""

import time
from abc import abstractmethod
from collections import Counter
from collections.abc import Mapping
from datetime import datetime

from labelyard.administration import Administration, AsyncAdministration
from labelyard.arguments import counted
from labelyard.events.models import EventContent
from labelyard.ledger import Backlog, BacklogKey, Record, State
from labelyard.ledger.erasure import Erasure, maps_of
from labelyard.ledger.listing import JobFilter, JobList, JobSummary
from labelyard.ledger.reading import DELIVERY_ENDS
from labelyard.ledger.workers import WorkerInfo
from labelyard.queues import JobQueue
from labelyard.testing.fake_events import FakeEventLog
from labelyard.testing.fake_stores import FakeDeadLetters


class FakeAdministration(Administration):
    """Calls of :class:`labelyard.testing.FakeClient` that concern many jobs."""

    _records: dict[str, Record]
    fleet: list[WorkerInfo]
    dead_letters: FakeDeadLetters
    event_log: FakeEventLog

    @abstractmethod
    def status(self, job_id: str) -> Record:
        """Read a job's record."""

    @abstractmethod
    def cancel(self, job_id: str) -> bool:
        """Cancel a job that is not final."""

    def open_images(self) -> int:
        """Count the images of pending jobs."""
        return sum(record.images for record in self._open_records())

    def backlog(self) -> Mapping[BacklogKey, Backlog]:
        """Count the pending jobs and their images, by queue and tenant."""
        jobs: Counter[BacklogKey] = Counter()
        images: Counter[BacklogKey] = Counter()
        for record in self._open_records():
            key = BacklogKey(record.queue, record.tenant)
            jobs[key] += 1
            images[key] += record.images
        return {key: Backlog(images=images[key], jobs=jobs[key]) for key in jobs}

    def oldest_open(self) -> Mapping[str, float]:
        """Read the age of the oldest pending job, by queue."""
        oldest: dict[str, float] = {}
        for record in self._open_records():
            age_s = max(0.0, time.time() - record.submitted_at)
            oldest[record.queue] = max(age_s, oldest.get(record.queue, 0.0))
        return oldest

    def totals(self) -> dict[str, int]:
        """Count the jobs that came to each final state."""
        states = [record.state for record in self._records.values() if record.is_final]
        return {state: states.count(state) for state in states}

    def image_totals(self) -> dict[str, int]:
        """Count the images of the jobs that came to each final state."""
        images: Counter[str] = Counter()
        for record in self._records.values():
            if record.is_final:
                images[record.state] += record.images
        return dict(images)

    def deliveries(self) -> dict[str, int]:
        """Count deliveries of results; a fake makes none."""
        return dict.fromkeys(("pending", "dead", *DELIVERY_ENDS), 0)

    def workers(self, *, lost_within_s: float = 0.0) -> list[WorkerInfo]:
        """Return the workers that the test has put into :attr:`fleet`."""
        alive = [worker for worker in self.fleet if worker.state != "lost"]
        lost = [worker for worker in self.fleet if worker.state == "lost"]
        return alive + [one for one in lost if (one.last_seen_s or 0.0) < lost_within_s]

    def list_jobs(
        self,
        *,
        state: State | None = None,
        tenant: str | None = None,
        since: datetime | None = None,
        queue: JobQueue | None = None,
        limit: int = 100,
    ) -> JobList:
        """List jobs, the newest first, without their messages and results."""
        wanted = JobFilter.checked(state=state, tenant=tenant, since=since, queue=queue)
        earliest = since.timestamp() if since else 0.0
        found = [
            job
            for job in map(_summary, reversed(self._records.values()))
            if job.submitted_at >= earliest and wanted.matches(job)
        ]
        return JobList(tuple(found[: counted(limit)]), examined=len(self._records), is_cut=False)

    def cancel_all(self, *, tenant: str | None = None, queue: JobQueue | None = None) -> int:
        """Cancel all pending jobs."""
        wanted = JobFilter.checked(tenant=tenant, queue=queue)
        chosen = [one for one in self._open_records() if wanted.matches(_summary(one))]
        return sum(self.cancel(record.job_id) for record in chosen)

    def recent_events(self, *, limit: int = 100) -> list[EventContent]:
        """Read the newest events, the newest last."""
        return self.event_log.recent(limit=counted(limit))

    def forget(self, job_id: str) -> Erasure:
        """Erase a job."""
        record = self.status(job_id)
        deliver, maps = record.job().deliver, maps_of(record)
        self.cancel(job_id)
        self.event_log.erase(job_id)
        del self._records[job_id]
        if job_id in self.dead_letters.buried:
            self.dead_letters.purge(job_id)
        return Erasure(job_id, deliver.object_uri or "", deliver.webhook or "", maps=maps)

    def _open_records(self) -> list[Record]:
        return [record for record in self._records.values() if not record.is_final]


class AsyncFakeAdministration(AsyncAdministration):
    """Calls of :class:`labelyard.testing.AsyncFakeClient` that concern many jobs."""

    fake: FakeAdministration

    async def open_images(self) -> int:
        """Count the images of pending jobs."""
        return self.fake.open_images()

    async def backlog(self) -> Mapping[BacklogKey, Backlog]:
        """Count the pending jobs and their images, by queue and tenant."""
        return self.fake.backlog()

    async def oldest_open(self) -> Mapping[str, float]:
        """Read the age of the oldest pending job, by queue."""
        return self.fake.oldest_open()

    async def totals(self) -> dict[str, int]:
        """Count the jobs that came to each final state."""
        return self.fake.totals()

    async def image_totals(self) -> dict[str, int]:
        """Count the images of the jobs that came to each final state."""
        return self.fake.image_totals()

    async def deliveries(self) -> dict[str, int]:
        """Return 0: a fake delivers nothing."""
        return self.fake.deliveries()

    async def workers(self, *, lost_within_s: float = 0.0) -> list[WorkerInfo]:
        """Return the workers that the test has put into the fake's ``fleet``."""
        return self.fake.workers(lost_within_s=lost_within_s)

    async def list_jobs(
        self,
        *,
        state: State | None = None,
        tenant: str | None = None,
        since: datetime | None = None,
        queue: JobQueue | None = None,
        limit: int = 100,
    ) -> JobList:
        """List jobs, the newest first, without their messages and results."""
        return self.fake.list_jobs(
            state=state, tenant=tenant, since=since, queue=queue, limit=limit
        )

    async def cancel_all(self, *, tenant: str | None = None, queue: JobQueue | None = None) -> int:
        """Cancel all pending jobs."""
        return self.fake.cancel_all(tenant=tenant, queue=queue)

    async def recent_events(self, *, limit: int = 100) -> list[EventContent]:
        """Read the newest events, the newest last."""
        return self.fake.recent_events(limit=limit)

    async def forget(self, job_id: str) -> Erasure:
        """Erase a job."""
        return self.fake.forget(job_id)


def _summary(record: Record) -> JobSummary:
    return JobSummary(
        job_id=record.job_id,
        state=record.state,
        tenant=record.tenant,
        queue=record.queue,
        images=record.images,
        submitted_at=record.submitted_at,
        finished_at=record.finished_at,
        attempts=record.attempts,
        deaths=record.deaths,
        runner=record.runner,
        expires_at=record.expires_at,
    )
