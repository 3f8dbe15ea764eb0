"""Ledger operations of a producer, for asyncio."""

import time
from collections.abc import Sequence
from typing import Any, Literal, cast

import redis.asyncio

from labelyard.errors import LabelyardError
from labelyard.ledger import scripts as ledger_scripts
from labelyard.ledger.clock import LedgerClock
from labelyard.ledger.commands import (
    PIPELINE_SIZE,
    LedgerCalls,
    ledger_errors_as_ours,
    ledger_timeout_s,
    naming_jobs,
    new_call_id,
    read_count,
)
from labelyard.ledger.durable_writes import (
    Barrier,
    run_durably_async,
    strip_barrier,
    wait_until_durable_async,
)
from labelyard.ledger.keys import LedgerKeys
from labelyard.ledger.records import Glance, Opened, Record, read_glance, read_record
from labelyard.ledger.sightings import NO_SIGHTINGS, Sightings
from labelyard.messages import Job
from labelyard.queues import Queue
from labelyard.redis_connections import RETRIES, connect_redis_async
from labelyard.settings import ConnectionSettings


def connect_async(settings: ConnectionSettings, *, retries: int = RETRIES) -> "redis.asyncio.Redis":
    """Connect to the ledger's Redis for asyncio, with bounded waits and a few quick retries.

    Raises:
        ServiceConfigError: LABELYARD_LEDGER_URL is not the address of a Redis.
    """
    return connect_redis_async(
        settings.ledger_url,
        setting="LABELYARD_LEDGER_URL",
        timeout_s=ledger_timeout_s(settings),
        retries=retries,
    )


class AsyncLedger:
    """Ledger operations of a producer, for asyncio; see :class:`labelyard.ledger.Ledger`."""

    def __init__(
        self,
        client: "redis.asyncio.Redis",
        settings: ConnectionSettings,
        *,
        sightings: Sightings | None = None,
    ) -> None:
        self.client = client
        self.sightings: Sightings = sightings or NO_SIGHTINGS
        self._barrier = Barrier(settings)
        self._is_barrier_checked = False
        self.calls: LedgerCalls = LedgerCalls(settings)
        self.keys: LedgerKeys = LedgerKeys(settings.namespace)
        self.clock: LedgerClock = LedgerClock()
        self._open = client.register_script(ledger_scripts.OPEN)
        self._finish = client.register_script(ledger_scripts.FINISH)

    async def now(self) -> float:
        """Return the ledger's time, in seconds since the epoch; Redis is queried once a minute."""
        if not self.clock.is_fresh:
            asked_at = time.monotonic()
            with ledger_errors_as_ours():
                self.clock.note(await self.client.time(), asked_at=asked_at)
        return self.clock.now()

    async def check_durability(self) -> None:
        """Try a barrier once; see :meth:`labelyard.ledger.Ledger.check_durability`."""
        if self._barrier.is_on and not self._is_barrier_checked:
            await self._wait_until_durable()
            self._is_barrier_checked = True

    async def _wait_until_durable(self) -> None:
        if self._barrier.is_on:
            with ledger_errors_as_ours():
                await wait_until_durable_async(self.client, self._barrier)

    async def _run(self, script: Any, job_id: str, args: list[str]) -> list[str]:
        keys = self.keys.of_record(job_id)
        with ledger_errors_as_ours():
            if self._barrier.is_on:
                answer = await run_durably_async(self.client, self._barrier, script, keys, args)
            else:
                answer = await script(keys=keys, args=args)
        return cast("list[str]", answer)

    async def open(self, job: Job, *, queue: Queue) -> Opened:
        """Write the record of *job*, unless there is one under its id.

        Raises:
            QueueFullError: As many images wait as are allowed.
            IdempotencyConflictError: The id is that of another job.
        """
        await self.check_durability()
        args = self.calls.open_args(job, queue=queue, is_limited=True)
        with naming_jobs([job.job_id]):
            answer = await self._run(self._open, job.job_id, args)
        opened = self.calls.read_opened(job.job_id, answer)
        self.sightings.note_opened([job], [opened])
        return opened

    async def open_many(
        self, jobs: Sequence[Job], *, queue: Queue
    ) -> list[Opened | LabelyardError]:
        """Write the records of *jobs* in few round trips; refusals stand in their places."""
        await self.check_durability()
        answers: list[Any] = []
        job_ids = [job.job_id for job in jobs]
        with naming_jobs(job_ids), ledger_errors_as_ours():
            for start in range(0, len(jobs), PIPELINE_SIZE):
                async with self.client.pipeline(transaction=False) as pipeline:
                    for job in jobs[start : start + PIPELINE_SIZE]:
                        await self._open(
                            keys=self.keys.of_record(job.job_id),
                            args=self.calls.open_args(job, queue=queue, is_limited=True),
                            client=pipeline,
                        )
                    if self._barrier.is_on:
                        self._barrier.add_to(pipeline)
                    got = await pipeline.execute(raise_on_error=False)
                    answers += strip_barrier(self._barrier, got)
        opened = self.calls.read_opened_many(jobs, answers)
        self.sightings.note_opened(jobs, opened)
        return opened

    async def _finish_as(self, job_id: str, state: Literal["cancelled", "expired"]) -> bool:
        args = self.calls.args(job_id, state, "", "", 0, new_call_id())
        return (await self._run(self._finish, job_id, args))[0] == "finished"

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
                        pipeline.hmget(self.keys.job(job_id), "state", "expires_at")
                    pipeline.time()
                    asked_at = time.monotonic()
                    *glances, clock = await pipeline.execute()
                    self.clock.note(clock, asked_at=asked_at)
                    answers += glances
        glances = [read_glance(answer, clock=self.clock) for answer in answers]
        return self.sightings.fill_in(job_ids, glances)

    async def read_many(self, job_ids: Sequence[str]) -> list[Record | None]:
        """Read whole records, in the order of *job_ids*."""
        answers: list[Any] = []
        with ledger_errors_as_ours():
            for start in range(0, len(job_ids), PIPELINE_SIZE):
                async with self.client.pipeline(transaction=False) as pipeline:
                    for job_id in job_ids[start : start + PIPELINE_SIZE]:
                        pipeline.hgetall(self.keys.job(job_id))
                    answers += await pipeline.execute()
        records = [read_record(*pair) for pair in zip(job_ids, answers, strict=True)]
        if any(record is not None and record.is_final for record in records):
            await self._wait_until_durable()  # else a reader could learn of an end that is lost
        self.sightings.check(job_ids, records)
        return records

    async def open_images(self) -> int:
        """Count the images of all jobs that are not final: queued, unacked or in work."""
        with ledger_errors_as_ours():
            return read_count(await self.client.get(self.keys.open_images))

    async def totals(self) -> dict[str, int]:
        """Count the jobs that came to each final state."""
        with ledger_errors_as_ours():
            totals: Any = await self.client.hgetall(self.keys.totals)
        return {state: read_count(count) for state, count in totals.items()}
