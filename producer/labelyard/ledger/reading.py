"""Records and counts of a ledger, read by threads."""

import time
from collections.abc import Mapping, Sequence
from typing import Any, cast

import redis

from labelyard.ledger.backlog import Backlog, BacklogKey, read_backlog, read_oldest_open
from labelyard.ledger.connection import PIPELINE_SIZE, LedgerConnection
from labelyard.ledger.records import Glance, Record, State, read_glance, read_record
from labelyard.ledger.redis_errors import ledger_errors_as_ours, read_count
from labelyard.ledger.sightings import NO_SIGHTINGS, Sightings
from labelyard.settings import ConnectionSettings

# Ways in which a delivery can end, and dead letters that were dropped for newer ones.
DELIVERY_ENDS = ("delivered", "refused", "given_up", "dropped")


class LedgerReader(LedgerConnection):
    """Reads the records and the counts of a ledger.

    Args:
        sightings: Jobs that this process knows to exist; for producers. A missing record of
            such a job is an outage, not an unknown job.
    """

    def __init__(
        self,
        client: "redis.Redis",
        settings: ConnectionSettings,
        *,
        sightings: Sightings | None = None,
    ) -> None:
        super().__init__(client, settings)
        self.sightings: Sightings = sightings or NO_SIGHTINGS

    def state(self, job_id: str) -> State | None:
        """Read the state alone; ``None`` if there is no record."""
        with ledger_errors_as_ours():
            return cast("State | None", self.client.hget(self.keys.job(job_id), "state"))

    def read(self, job_id: str) -> Record | None:
        """Read the whole record; ``None`` if there is none."""
        return self.read_many([job_id])[0]

    def read_many(self, job_ids: Sequence[str]) -> list[Record | None]:
        """Read whole records, in the order of *job_ids*."""
        answers: list[Any] = []
        with ledger_errors_as_ours():
            for start in range(0, len(job_ids), PIPELINE_SIZE):
                with self.client.pipeline(transaction=False) as pipeline:
                    for job_id in job_ids[start : start + PIPELINE_SIZE]:
                        pipeline.hgetall(self.keys.job(job_id))
                    answers += pipeline.execute()
        records = [read_record(*pair) for pair in zip(job_ids, answers, strict=True)]
        if any(record is not None and record.is_final for record in records):
            self.wait_until_durable()  # else a reader could learn of an end that is lost
        self._forget_ended(job_ids, records)
        self.sightings.check(job_ids, records)
        return records

    def glance_many(self, job_ids: Sequence[str]) -> list[Glance | None]:
        """Read as much of each record as waiting for it needs."""
        answers: list[Any] = []
        with ledger_errors_as_ours():
            for start in range(0, len(job_ids), PIPELINE_SIZE):
                with self.client.pipeline(transaction=False) as pipeline:
                    for job_id in job_ids[start : start + PIPELINE_SIZE]:
                        pipeline.hmget(self.keys.job(job_id), "state", "expires_at")
                    pipeline.time()
                    asked_at = time.monotonic()
                    *glances, clock = pipeline.execute()
                    self.clock.note(clock, asked_at=asked_at)
                    answers += glances
        glances = [read_glance(answer, clock=self.clock) for answer in answers]
        self._forget_ended(job_ids, glances)
        return self.sightings.fill_in(job_ids, glances)

    def _forget_ended(
        self, job_ids: Sequence[str], found: Sequence[Record | Glance | None]
    ) -> None:
        """Drop jobs from the sightings whose record is gone because they were erased."""
        missing = self.sightings.missing_of(job_ids, found)
        if missing:
            with ledger_errors_as_ours():
                ended: Any = self.client.mget(list(map(self.keys.tombstone, missing)))
            self.sightings.forget(one for one, state in zip(missing, ended, strict=True) if state)

    def deliveries(self) -> dict[str, int]:
        """Count jobs with ``pending`` and ``dead`` deliveries now, and how many ever ended how."""
        with ledger_errors_as_ours(), self.client.pipeline(transaction=False) as pipeline:
            pipeline.zcard(self.keys.pending_deliveries)
            pipeline.zcard(self.keys.dead_deliveries)
            pipeline.hgetall(self.keys.delivery_totals)
            pending, dead, ended = pipeline.execute()
        return {
            "pending": int(pending),
            "dead": int(dead),
            **{name: read_count(ended.get(name)) for name in DELIVERY_ENDS},
        }

    def open_images(self) -> int:
        """Count the images of all jobs that are not final: queued, unacked or in work."""
        with ledger_errors_as_ours():
            return read_count(self.client.get(self.keys.open_images))

    def backlog(self) -> Mapping[BacklogKey, Backlog]:
        """Count the open jobs and their images, by queue and tenant."""
        return read_backlog(self)

    def oldest_open(self) -> Mapping[str, float]:
        """Read the age in seconds of the oldest open job, by queue; an empty queue is left out."""
        return read_oldest_open(self)

    def totals(self) -> dict[str, int]:
        """Count the jobs that came to each final state."""
        with ledger_errors_as_ours():
            totals = cast("dict[str, str]", self.client.hgetall(self.keys.totals))
        return {state: read_count(count) for state, count in totals.items()}

    def image_totals(self) -> dict[str, int]:
        """Count the images of the jobs that came to each final state."""
        with ledger_errors_as_ours():
            totals = cast("dict[str, str]", self.client.hgetall(self.keys.image_totals))
        return {state: read_count(count) for state, count in totals.items()}

    def count_dead(self) -> int:
        """Count the dead letters."""
        with ledger_errors_as_ours():
            return self.client.zcard(self.keys.dead_letters)

    def dead(self, *, limit: int = 1000) -> list[str]:
        """List the ids of dead letters, oldest first."""
        with ledger_errors_as_ours():
            ids = self.client.zrange(self.keys.dead_letters, 0, limit - 1)
        return cast("list[str]", ids)
