"""Changes of a job's record, by producers and workers that use threads."""

import math
from collections.abc import Sequence

from labelyard.errors import LabelyardError
from labelyard.ledger.commands import NO_RECEIPT, NOTHING_PENDING, Isolation, Pending, Receipt
from labelyard.ledger.reading import LedgerReader
from labelyard.ledger.redis_errors import as_ours, naming_jobs
from labelyard.ledger.script_answers import (
    Opened,
    Started,
    read_opened,
    read_opened_many,
    read_started,
)
from labelyard.messages import Failure, Job, Result
from labelyard.queues import Queue


class Ledger(LedgerReader):
    """The ledger for threads: producers open, read and cancel; workers do the rest.

    Every method raises LedgerUnavailableError when Redis gives no answer.
    """

    def open(self, job: Job, *, queue: Queue) -> Opened:
        """Write the record of *job*, unless there is one under its id.

        Raises:
            QueueFullError: As many images wait as are allowed.
            TenantQuotaError: A quota of the job's tenant is used up.
            IdempotencyConflictError: The id is that of another job.
        """
        self.check_durability()
        command = self.commands.open(job, queue=queue, is_limited=True)
        with naming_jobs([job.job_id]):
            answer = self.run(command, is_durable=True)
        opened = read_opened(job.job_id, answer, limit=self.commands.max_queued_images)
        self.sightings.note_opened([job], [opened])
        return opened

    def adopt(self, job: Job, *, queue: Queue) -> bool:
        """Write the record of a *job* whose message came without one.

        Returns:
            ``False`` if the job was final before, and only its record is gone.

        Raises:
            IdempotencyConflictError: The id is that of another job.
        """
        command = self.commands.open(job, queue=queue, is_limited=False, source="adopt")
        answer = self.run(command)
        read_opened(job.job_id, answer, limit=self.commands.max_queued_images)
        return bool(answer[0] != "ended")

    def open_many(self, jobs: Sequence[Job], *, queue: Queue) -> list[Opened | LabelyardError]:
        """Write the records of *jobs* in few round trips.

        Returns:
            For each job what :meth:`open` would return or raise, in their order.
        """
        self.check_durability()
        commands = (self.commands.open(job, queue=queue, is_limited=True) for job in jobs)
        with naming_jobs([job.job_id for job in jobs]):
            answers = self.run_many(commands, is_durable=True)
        opened = read_opened_many(jobs, answers, limit=self.commands.max_queued_images)
        self.sightings.note_opened(jobs, opened)
        return opened

    def start(
        self,
        job_id: str,
        *,
        worker: str,
        isolation: Isolation = "none",
        quarantine_after: int,
        dead_after: int,
        receipt: Receipt = NO_RECEIPT,
    ) -> Started:
        """Begin an attempt, or return why not. Counts a death if the last one never ended.

        Args:
            isolation: What runs beside the job in its worker.
            quarantine_after: Deaths that make a job a suspect.
            dead_after: Deaths as a suspect, one of them alone, that bury it.
        """
        command = self.commands.start(
            job_id,
            worker=worker,
            isolation=isolation,
            quarantine_after=quarantine_after,
            dead_after=dead_after,
            receipt=receipt,
        )
        started = read_started(self.run(command))
        if started.verdict == "final":
            self.wait_until_durable()  # its message is acknowledged because of it
        return started

    def crowd(self, job_id: str, *, worker: str) -> None:
        """Note that other jobs begin beside a suspect that had *worker* to itself until now."""
        self.run(self.commands.crowd(job_id, worker=worker))

    def hand_back(self, job_id: str, *, worker: str, start: int | None = None) -> None:
        """End an attempt that did not count: the broker brings the message again.

        Args:
            start: Number of the attempt, from :class:`Started`; a call that is repeated
                with it changes nothing.
        """
        command = self.commands.release(job_id, worker=worker, delay_s=None, start=start)
        self.run(command, is_durable=True)

    def postpone(
        self, job_id: str, *, worker: str, delay_s: float, start: int | None = None
    ) -> None:
        """End an attempt that does not count, and have the job sent again in *delay_s* seconds.

        Args:
            start: As for :meth:`hand_back`.
        """
        command = self.commands.release(
            job_id, worker=worker, delay_s=delay_s, start=start, is_counted=False
        )
        self.run(command, is_durable=True)

    def retry(
        self,
        job_id: str,
        *,
        worker: str,
        delay_s: float,
        death: str = "",
        start: int | None = None,
    ) -> None:
        """End an attempt, and have the job sent again in *delay_s* seconds.

        Args:
            death: What broke the worker's thread, if that is why it ended.
            start: As for :meth:`hand_back`: one death is counted once.
        """
        command = self.commands.release(
            job_id, worker=worker, delay_s=delay_s, death=death, start=start
        )
        self.run(command, is_durable=True)

    def finish(
        self,
        job_id: str,
        result: Result,
        *,
        pending: Pending = NOTHING_PENDING,
        is_dead: bool = False,
    ) -> bool:
        """Write the result; ``False`` if the job was final before: the first one stands."""
        command = self.commands.finish(
            job_id,
            state=result.status,
            result=result.model_dump_json(),
            pending=pending,
            is_dead=is_dead,
        )
        return bool(self.run(command, is_durable=True)[0] == "finished")

    def refuse(self, job_id: str, message: str, failure: Failure) -> bool:
        """Fail a *message* that is no job where its sender looks: under its id.

        Returns:
            ``False`` if the record under this id is final, or is that of a real job, which
            somebody else's bad message must not end.
        """
        self.run(self.commands.open_refused(job_id, message))
        record = self.read(job_id)
        if record is None or record.is_job:
            return False
        result = Result(job_id=job_id, status="failed", tenant=record.tenant, error=failure)
        return self.finish(job_id, result)

    def cancel(self, job_id: str) -> bool:
        """Make the job ``cancelled`` at once, running or not; ``False`` if it was final."""
        command = self.commands.finish(job_id, state="cancelled")
        return bool(self.run(command, is_durable=True)[0] == "finished")

    def cancel_many(self, job_ids: Sequence[str]) -> list[bool]:
        """Cancel jobs in few round trips; returns for each job the answer of :meth:`cancel`."""
        commands = (self.commands.finish(job_id, state="cancelled") for job_id in job_ids)
        answers = self.run_many(commands, is_durable=True)
        for answer in answers:
            if isinstance(answer, Exception):
                raise as_ours(answer) from answer
        return [answer[0] == "finished" for answer in answers]

    def expire(self, job_id: str) -> bool:
        """Make the job ``expired`` if its ``expires_at`` has passed."""
        command = self.commands.finish(job_id, state="expired")
        return bool(self.run(command, is_durable=True)[0] == "finished")

    def sent(self, job_id: str, *, due: float | None = None) -> None:
        """Note that the job's message was sent just now.

        Args:
            due: When the job was due, or its lease, if it was taken from the due ones.
        """
        self.run(self.commands.sent(job_id, due=due))

    def replay(self, job_id: str) -> float | None:
        """Reopen a dead letter, so that its job is run again.

        Returns:
            When its message is due, by the ledger's clock; ``None`` if it is not a dead letter.
        """
        answer = self.run(self.commands.replay(job_id), is_durable=True)
        return float(answer[2]) if answer[0] == "opened" else None

    def purge(self, job_id: str) -> bool:
        """Drop a dead letter for good; its failed result stays readable for its TTL."""
        return bool(self.run(self.commands.purge(job_id), is_durable=True)[0] == "purged")


def backoff_s(attempt: int, *, base_s: float = 2.0, cap_s: float = 32.0) -> float:
    """Return the longest delay before the attempt after *attempt*; jitter picks 0 to that."""
    return min(cap_s, base_s * math.pow(2, max(0, attempt - 1)))
