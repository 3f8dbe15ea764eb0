"""What a producer needs of the ledger, for asyncio."""

from collections.abc import Sequence
from typing import Any, Literal

import redis.asyncio

from labelyard import ledger_scripts
from labelyard.errors import LabelyardError
from labelyard.ledger_calls import (
    PIPELINE_SIZE,
    LedgerCalls,
    ledger_errors_as_ours,
    new_call_id,
)
from labelyard.ledger_records import Glance, Opened, Queue, Record, read_glance, read_record
from labelyard.messages import Job
from labelyard.redis_connections import RETRIES, connect_redis_async
from labelyard.settings import ConnectionSettings


def connect_async(settings: ConnectionSettings, *, retries: int = RETRIES) -> "redis.asyncio.Redis":
    """Connect to the ledger's Redis for asyncio, with bounded waits and a few quick retries.

    Raises:
        ServiceConfigError: LABELYARD_LEDGER_URL is not the address of a Redis.
    """
    return connect_redis_async(settings.ledger_url, setting="LABELYARD_LEDGER_URL", retries=retries)


class AsyncLedger:
    """What a producer needs of the ledger, for asyncio; see :class:`labelyard.ledger.Ledger`."""

    def __init__(self, client: "redis.asyncio.Redis", settings: ConnectionSettings) -> None:
        self.client = client
        self.calls = LedgerCalls(settings)
        self._open = client.register_script(ledger_scripts.OPEN)
        self._finish = client.register_script(ledger_scripts.FINISH)

    async def open(self, job: Job, *, queue: Queue) -> Opened:
        """Write the record of *job*, unless there is one under its id.

        Raises:
            QueueFullError: As many images wait as are allowed.
            IdempotencyConflictError: The id is that of another job.
        """
        args = self.calls.open_args(job, queue=queue, is_limited=True)
        with ledger_errors_as_ours(opening=[job.job_id]):
            answer = await self._open(keys=list(self.calls.keys(job.job_id)), args=args)
        return self.calls.read_opened(job.job_id, answer)

    async def open_many(
        self, jobs: Sequence[Job], *, queue: Queue
    ) -> list[Opened | LabelyardError]:
        """Write the records of *jobs* in few round trips; refusals stand in their places."""
        answers: list[Any] = []
        with ledger_errors_as_ours(opening=[job.job_id for job in jobs]):
            for start in range(0, len(jobs), PIPELINE_SIZE):
                async with self.client.pipeline(transaction=False) as pipeline:
                    for job in jobs[start : start + PIPELINE_SIZE]:
                        await self._open(
                            keys=list(self.calls.keys(job.job_id)),
                            args=self.calls.open_args(job, queue=queue, is_limited=True),
                            client=pipeline,
                        )
                    answers += await pipeline.execute(raise_on_error=False)
        return self.calls.read_opened_many(jobs, answers)

    async def _finish_as(self, job_id: str, state: Literal["cancelled", "expired"]) -> bool:
        args = self.calls.args(job_id, state, "", "", 0, new_call_id())
        with ledger_errors_as_ours():
            answer = await self._finish(keys=list(self.calls.keys(job_id)), args=args)
        return bool(answer[0] == "finished")

    async def cancel(self, job_id: str) -> bool:
        """Make the job ``cancelled`` at once; ``False`` if it was final."""
        return await self._finish_as(job_id, "cancelled")

    async def expire(self, job_id: str) -> bool:
        """Make the job ``expired`` if its ``expires_at`` has passed."""
        return await self._finish_as(job_id, "expired")

    async def read(self, job_id: str) -> Record | None:
        """Read the whole record; ``None`` if there is none."""
        return (await self.read_many([job_id]))[0]

    async def glance_many(self, job_ids: Sequence[str]) -> list[Glance | None]:
        """Read as much of each record as waiting for it needs."""
        answers: list[Any] = []
        with ledger_errors_as_ours():
            for start in range(0, len(job_ids), PIPELINE_SIZE):
                async with self.client.pipeline(transaction=False) as pipeline:
                    for job_id in job_ids[start : start + PIPELINE_SIZE]:
                        pipeline.hmget(self.calls.keys(job_id).job, "state", "expires_at")
                    answers += await pipeline.execute()
        return [read_glance(answer) for answer in answers]

    async def read_many(self, job_ids: Sequence[str]) -> list[Record | None]:
        """Read whole records, in the order of *job_ids*."""
        answers: list[Any] = []
        with ledger_errors_as_ours():
            for start in range(0, len(job_ids), PIPELINE_SIZE):
                async with self.client.pipeline(transaction=False) as pipeline:
                    for job_id in job_ids[start : start + PIPELINE_SIZE]:
                        pipeline.hgetall(self.calls.keys(job_id).job)
                    answers += await pipeline.execute()
        return [read_record(*pair) for pair in zip(job_ids, answers, strict=True)]

    async def open_images(self) -> int:
        """Count the images of all jobs that are not final: queued, unacked or in work."""
        with ledger_errors_as_ours():
            return int(await self.client.get(self.calls.key("open_images")) or 0)

    async def totals(self) -> dict[str, int]:
        """Count the jobs that came to each final state."""
        with ledger_errors_as_ours():
            totals: Any = await self.client.hgetall(self.calls.key("totals"))
        return {state: int(count) for state, count in totals.items()}
