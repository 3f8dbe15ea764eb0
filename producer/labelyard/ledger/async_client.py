"""Ledger operations of a producer, for asyncio."""

import time
from collections.abc import Sequence
from typing import Any, Literal, cast

import redis.asyncio

from labelyard.errors import LabelyardError
from labelyard.ledger.clock import LedgerClock
from labelyard.ledger.commands import Command, Commands
from labelyard.ledger.connection import PIPELINE_SIZE
from labelyard.ledger.durable_writes import (
    Barrier,
    run_durably_async,
    strip_barrier,
    wait_until_durable_async,
)
from labelyard.ledger.keys import LedgerKeys
from labelyard.ledger.records import Glance, Record, read_glance, read_record
from labelyard.ledger.redis_errors import (
    ledger_errors_as_ours,
    ledger_timeout_s,
    naming_jobs,
)
from labelyard.ledger.script_answers import Opened, read_opened, read_opened_many
from labelyard.ledger.scripts import SCRIPTS
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
        self.commands: Commands = Commands(settings)
        self.keys: LedgerKeys = self.commands.keys
        self.clock: LedgerClock = LedgerClock()
        self._scripts: dict[str, Any] = {
            name: client.register_script(text) for name, text in SCRIPTS.items()
        }

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

    async def _run(self, command: Command) -> list[str]:
        name, keys, args = command
        script = self._scripts[name]
        with ledger_errors_as_ours():
            if self._barrier.is_on:
                answer = await run_durably_async(self.client, self._barrier, script, keys, args)
            else:
                answer = await script(keys=keys, args=args)
        return cast("list[str]", answer)

    async def run(self, command: Command) -> Any:
        """Run a script and return its answer, without waiting until its writes are safe."""
        name, keys, args = command
        with ledger_errors_as_ours():
            return await self._scripts[name](keys=keys, args=args)

    async def run_many(self, commands: Sequence[Command]) -> list[list[str]]:
        """Run scripts in few round trips and return their answers, in their order."""
        answers: list[Any] = []
        with ledger_errors_as_ours():
            for start in range(0, len(commands), PIPELINE_SIZE):
                async with self.client.pipeline(transaction=False) as pipeline:
                    for name, keys, args in commands[start : start + PIPELINE_SIZE]:
                        await self._scripts[name](keys=keys, args=args, client=pipeline)
                    answers += await pipeline.execute()
        return answers

    async def open(self, job: Job, *, queue: Queue) -> Opened:
        """Write the record of *job*, unless there is one under its id.

        Raises:
            QueueFullError: As many images wait as are allowed.
            TenantQuotaError: A quota of the job's tenant is used up.
            IdempotencyConflictError: The id is that of another job.
        """
        await self.check_durability()
        command = self.commands.open(job, queue=queue, is_limited=True)
        with naming_jobs([job.job_id]):
            answer = await self._run(command)
        opened = read_opened(job.job_id, answer, limit=self.commands.max_queued_images)
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
                        name, keys, args = self.commands.open(job, queue=queue, is_limited=True)
                        await self._scripts[name](keys=keys, args=args, client=pipeline)
                    if self._barrier.is_on:
                        self._barrier.add_to(pipeline)
                    got = await pipeline.execute(raise_on_error=False)
                    answers += strip_barrier(self._barrier, got)
        opened = read_opened_many(jobs, answers, limit=self.commands.max_queued_images)
        self.sightings.note_opened(jobs, opened)
        return opened

    async def _finish_as(self, job_id: str, state: Literal["cancelled", "expired"]) -> bool:
        return (await self._run(self.commands.finish(job_id, state=state)))[0] == "finished"

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
        await self._forget_ended(job_ids, glances)
        return self.sightings.fill_in(job_ids, glances)

    async def _forget_ended(
        self, job_ids: Sequence[str], found: Sequence[Record | Glance | None]
    ) -> None:
        """Drop jobs from the sightings whose record is gone because they were erased."""
        missing = self.sightings.missing_of(job_ids, found)
        if missing:
            with ledger_errors_as_ours():
                ended: Any = await self.client.mget(list(map(self.keys.tombstone, missing)))
            self.sightings.forget(one for one, state in zip(missing, ended, strict=True) if state)

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
        await self._forget_ended(job_ids, records)
        self.sightings.check(job_ids, records)
        return records
