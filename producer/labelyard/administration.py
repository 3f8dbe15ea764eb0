"""Administration: the calls of a client that concern many jobs, for threads and for asyncio."""

import asyncio
from collections.abc import Mapping
from datetime import datetime

from labelyard.arguments import counted, job_id_of, span_s
from labelyard.events.models import EventContent
from labelyard.events.recent import read_recent
from labelyard.ledger import Backlog, BacklogKey, Ledger, State
from labelyard.ledger.cancellation import cancel_open
from labelyard.ledger.erasure import Erasure, erase_job
from labelyard.ledger.listing import JobFilter, JobList, list_jobs
from labelyard.ledger.workers import WorkerInfo, read_workers
from labelyard.queues import JobQueue


class Administration:
    """Calls of :class:`labelyard.Client` that list, count, cancel and erase jobs."""

    _ledger: Ledger

    def open_images(self) -> int:
        """Count the images of all jobs that are not final."""
        return self._ledger.open_images()

    def backlog(self) -> Mapping[BacklogKey, Backlog]:
        """Count the jobs that are not final and their images, by queue and tenant."""
        return self._ledger.backlog()

    def oldest_open(self) -> Mapping[str, float]:
        """Read the age of the oldest job that is not final, by queue.

        Returns:
            Seconds since its submission or its replay; a queue without such a job is left out.
        """
        return self._ledger.oldest_open()

    def totals(self) -> dict[str, int]:
        """Count the jobs that came to each final state; a replayed one counts again."""
        return self._ledger.totals()

    def image_totals(self) -> dict[str, int]:
        """Count the images of the jobs that came to each final state."""
        return self._ledger.image_totals()

    def deliveries(self) -> dict[str, int]:
        """Count deliveries of results: ``pending`` jobs now, and how the ended ones went."""
        return self._ledger.deliveries()

    def workers(self, *, lost_within_s: float = 0.0) -> list[WorkerInfo]:
        """List the live workers, by name; none is alive if the list is empty.

        Args:
            lost_within_s: Also list workers, with the state ``lost``, that ended without a
                clean shutdown within this time; an hour at most.

        Raises:
            InvalidMessageError: *lost_within_s* is negative.
        """
        span = span_s(lost_within_s, name="lost_within_s")
        return read_workers(self._ledger, lost_within_s=span)

    def list_jobs(
        self,
        *,
        state: State | None = None,
        tenant: str | None = None,
        since: datetime | None = None,
        queue: JobQueue | None = None,
        limit: int = 100,
    ) -> JobList:
        """List jobs, the newest first, without their messages and results.

        Args:
            since: Time of submission from which jobs are listed, with an offset.
            limit: Most jobs to list.

        Returns:
            The jobs among the newest 200,000 whose record is still there. A search ends after
            20,000 of them; ``is_cut`` is true then.

        Raises:
            InvalidMessageError: An argument has a value that no job can have.
        """
        wanted = JobFilter.checked(state=state, tenant=tenant, since=since, queue=queue)
        return list_jobs(self._ledger, wanted, limit=counted(limit))

    def cancel_all(self, *, tenant: str | None = None, queue: JobQueue | None = None) -> int:
        """Cancel all jobs that are not final and were submitted before this call.

        Args:
            tenant: Only this tenant's jobs.
            queue: Only jobs of this queue.

        Returns:
            Number of jobs that were cancelled.

        Raises:
            InvalidMessageError: There is no such queue.
            LedgerUnavailableError: The ledger gave no answer; some jobs may be cancelled.
        """
        wanted = JobFilter.checked(tenant=tenant, queue=queue)
        return cancel_open(self._ledger, tenant=wanted.tenant, queue=wanted.queue)

    def recent_events(self, *, limit: int = 100) -> list[EventContent]:
        """Read the newest events, the newest last, without a group: nothing is acknowledged."""
        return read_recent(self._ledger, limit=counted(limit))

    def forget(self, job_id: str) -> Erasure:
        """Erase a job: its message, its result, and every entry of the ledger that names it.

        A job that is not final is cancelled first. Its final state alone stays as a tombstone
        for a while, so that a message in the broker does not bring the job back. A repeated
        call does no harm.

        Returns:
            What is left outside the ledger: objects and webhooks that got the result.

        Raises:
            JobNotFoundError: There is no such job.
        """
        return erase_job(self._ledger, job_id_of(job_id))


class AsyncAdministration:
    """Calls of :class:`labelyard.AsyncClient` that list, count, cancel and erase jobs, in threads."""

    _threads_ledger: Ledger

    async def open_images(self) -> int:
        """Count the images of all jobs that are not final."""
        return await asyncio.to_thread(self._threads_ledger.open_images)

    async def backlog(self) -> Mapping[BacklogKey, Backlog]:
        """Count the jobs that are not final and their images, by queue and tenant."""
        return await asyncio.to_thread(self._threads_ledger.backlog)

    async def oldest_open(self) -> Mapping[str, float]:
        """Read the age of the oldest job that is not final, by queue."""
        return await asyncio.to_thread(self._threads_ledger.oldest_open)

    async def totals(self) -> dict[str, int]:
        """Count the jobs that came to each final state; a replayed one counts again."""
        return await asyncio.to_thread(self._threads_ledger.totals)

    async def image_totals(self) -> dict[str, int]:
        """Count the images of the jobs that came to each final state."""
        return await asyncio.to_thread(self._threads_ledger.image_totals)

    async def deliveries(self) -> dict[str, int]:
        """Count deliveries of results: ``pending`` jobs now, and how the ended ones went."""
        return await asyncio.to_thread(self._threads_ledger.deliveries)

    async def workers(self, *, lost_within_s: float = 0.0) -> list[WorkerInfo]:
        """List the live workers, by name; none is alive if the list is empty."""
        span = span_s(lost_within_s, name="lost_within_s")
        return await asyncio.to_thread(read_workers, self._threads_ledger, lost_within_s=span)

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
        wanted = JobFilter.checked(state=state, tenant=tenant, since=since, queue=queue)
        return await asyncio.to_thread(
            list_jobs, self._threads_ledger, wanted, limit=counted(limit)
        )

    async def cancel_all(self, *, tenant: str | None = None, queue: JobQueue | None = None) -> int:
        """Cancel all jobs that are not final and were submitted before this call."""
        wanted = JobFilter.checked(tenant=tenant, queue=queue)
        return await asyncio.to_thread(
            cancel_open, self._threads_ledger, tenant=wanted.tenant, queue=wanted.queue
        )

    async def recent_events(self, *, limit: int = 100) -> list[EventContent]:
        """Read the newest events, the newest last, without a group: nothing is acknowledged."""
        return await asyncio.to_thread(read_recent, self._threads_ledger, limit=counted(limit))

    async def forget(self, job_id: str) -> Erasure:
        """Erase a job: its message, its result, and every entry of the ledger that names it."""
        return await asyncio.to_thread(erase_job, self._threads_ledger, job_id_of(job_id))
