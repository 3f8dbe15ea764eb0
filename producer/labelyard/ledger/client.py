"""A job's record in Redis: the truth about the job, whatever happens to its message."""

import math
import time
from collections.abc import Mapping, Sequence
from typing import Any, Final, cast

import redis

from labelyard.errors import LabelyardError
from labelyard.ledger import scripts as ledger_scripts
from labelyard.ledger import upkeep_scripts as ledger_upkeep_scripts
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
from labelyard.ledger.durable_writes import Barrier, run_durably, strip_barrier, wait_until_durable
from labelyard.ledger.keys import LedgerKeys
from labelyard.ledger.records import (
    Glance,
    Isolation,
    Opened,
    Pending,
    Receipt,
    Record,
    Started,
    State,
    read_glance,
    read_record,
    read_started,
)
from labelyard.ledger.sightings import NO_SIGHTINGS, Sightings
from labelyard.messages import Failure, Job, Result
from labelyard.queues import Queue
from labelyard.redis_connections import connect_redis
from labelyard.settings import ConnectionSettings

NO_RECEIPT: Final = Receipt()
NOTHING_PENDING: Final = Pending()
SCRIPTS: Final[Mapping[str, str]] = {
    "OPEN": ledger_scripts.OPEN,
    "START": ledger_scripts.START,
    "RELEASE": ledger_scripts.RELEASE,
    "FINISH": ledger_scripts.FINISH,
    "REPLAY": ledger_upkeep_scripts.REPLAY,
    "PURGE": ledger_upkeep_scripts.PURGE,
    "SENT": ledger_upkeep_scripts.SENT,
    "CROWD": ledger_upkeep_scripts.CROWD,
}


def connect(settings: ConnectionSettings) -> "redis.Redis":
    """Connect to the ledger's Redis with bounded waits and a few quick retries.

    Raises:
        ServiceConfigError: LABELYARD_LEDGER_URL is not the address of a Redis.
    """
    timeout_s = ledger_timeout_s(settings)
    return connect_redis(settings.ledger_url, setting="LABELYARD_LEDGER_URL", timeout_s=timeout_s)


class Ledger:
    """The ledger for threads: producers open, read and cancel; workers do the rest.

    Every method raises LedgerUnavailableError when Redis gives no answer.

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
        self.client = client
        self.sightings: Sightings = sightings or NO_SIGHTINGS
        self._barrier = Barrier(settings)
        self._is_barrier_checked = False
        self.calls: LedgerCalls = LedgerCalls(settings)
        self.keys: LedgerKeys = LedgerKeys(settings.namespace)
        self.clock: LedgerClock = LedgerClock()
        self._scripts = {name: client.register_script(text) for name, text in SCRIPTS.items()}

    def now(self) -> float:
        """Return the ledger's time, in seconds since the epoch; Redis is queried once a minute."""
        if not self.clock.is_fresh:
            asked_at = time.monotonic()
            with ledger_errors_as_ours():
                self.clock.note(self.client.time(), asked_at=asked_at)
        return self.clock.now()

    def check_durability(self) -> None:
        """Try a barrier once, if LABELYARD_DURABLE_WRITES needs one.

        Raises:
            ServiceConfigError: The server cannot do what the setting asks for.
        """
        if self._barrier.is_on and not self._is_barrier_checked:
            self._wait_until_durable()
            self._is_barrier_checked = True

    def _wait_until_durable(self) -> None:
        if self._barrier.is_on:
            with ledger_errors_as_ours():
                wait_until_durable(self.client, self._barrier)

    def _run(
        self, name: str, job_id: str, args: list[str], *, is_durable: bool = False
    ) -> list[str]:
        keys, script = self.keys.of_record(job_id), self._scripts[name]
        with ledger_errors_as_ours():
            if is_durable and self._barrier.is_on:
                answer = run_durably(self.client, self._barrier, script, keys, args)
            else:
                answer = script(keys=keys, args=args)
        return cast("list[str]", answer)

    def open(self, job: Job, *, queue: Queue) -> Opened:
        """Write the record of *job*, unless there is one under its id.

        Raises:
            QueueFullError: As many images wait as are allowed.
            IdempotencyConflictError: The id is that of another job.
        """
        self.check_durability()
        args = self.calls.open_args(job, queue=queue, is_limited=True)
        with naming_jobs([job.job_id]):
            answer = self._run("OPEN", job.job_id, args, is_durable=True)
        opened = self.calls.read_opened(job.job_id, answer)
        self.sightings.note_opened([job], [opened])
        return opened

    def adopt(self, job: Job, *, queue: Queue) -> bool:
        """Write the record of a *job* whose message came without one.

        Returns:
            ``False`` if the job was final before, and only its record is gone.

        Raises:
            IdempotencyConflictError: The id is that of another job.
        """
        args = self.calls.open_args(job, queue=queue, is_limited=False, source="adopt")
        answer = self._run("OPEN", job.job_id, args)
        self.calls.read_opened(job.job_id, answer)
        return answer[0] != "ended"

    def open_many(self, jobs: Sequence[Job], *, queue: Queue) -> list[Opened | LabelyardError]:
        """Write the records of *jobs* in few round trips.

        Returns:
            For each job what :meth:`open` would return or raise, in their order.
        """
        self.check_durability()
        answers: list[Any] = []
        job_ids = [job.job_id for job in jobs]
        with naming_jobs(job_ids), ledger_errors_as_ours():
            for start in range(0, len(jobs), PIPELINE_SIZE):
                with self.client.pipeline(transaction=False) as pipeline:
                    for job in jobs[start : start + PIPELINE_SIZE]:
                        self._scripts["OPEN"](
                            keys=self.keys.of_record(job.job_id),
                            args=self.calls.open_args(job, queue=queue, is_limited=True),
                            client=pipeline,
                        )
                    if self._barrier.is_on:
                        self._barrier.add_to(pipeline)
                    answers += strip_barrier(self._barrier, pipeline.execute(raise_on_error=False))
        opened = self.calls.read_opened_many(jobs, answers)
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
        args = self.calls.start_args(
            job_id,
            worker=worker,
            isolation=isolation,
            limits=(quarantine_after, dead_after),
            receipt=receipt,
        )
        started = read_started(self._run("START", job_id, args))
        if started.verdict == "final":
            self._wait_until_durable()  # its message is acknowledged because of it
        return started

    def crowd(self, job_id: str, *, worker: str) -> None:
        """Note that other jobs begin beside a suspect that had *worker* to itself until now."""
        self._run("CROWD", job_id, self.calls.args(job_id, worker))

    def hand_back(self, job_id: str, *, worker: str, start: int | None = None) -> None:
        """End an attempt that did not count: the broker brings the message again.

        Args:
            start: Number of the attempt, from :class:`Started`; a call that is repeated
                with it changes nothing.
        """
        self._release(job_id, worker, "", "", start)

    def postpone(
        self, job_id: str, *, worker: str, delay_s: float, start: int | None = None
    ) -> None:
        """End an attempt that does not count, and have the job sent again in *delay_s* seconds.

        Args:
            start: As for :meth:`hand_back`.
        """
        self._release(job_id, worker, delay_s, "", start, "uncounted")

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
        self._release(job_id, worker, delay_s, death, start)

    def _release(
        self,
        job_id: str,
        worker: str,
        delay_s: float | str,
        death: str,
        start: int | None,
        counting: str = "",
    ) -> None:
        number = "" if start is None else start
        args = self.calls.args(job_id, worker, delay_s, death, number, counting)
        self._run("RELEASE", job_id, args, is_durable=True)

    def finish(
        self,
        job_id: str,
        result: Result,
        *,
        pending: Pending = NOTHING_PENDING,
        is_dead: bool = False,
    ) -> bool:
        """Write the result; ``False`` if the job was final before: the first one stands."""
        text, names = result.model_dump_json(), ",".join(pending.names)
        return self._end(job_id, result.status, text, names, int(is_dead), pending=pending)

    def _end(
        self, job_id: str, state: str, *rest: object, pending: Pending = NOTHING_PENDING
    ) -> bool:
        lease = (pending.deliverer, pending.due_in_s)
        args = self.calls.args(job_id, state, *rest, new_call_id(), *lease)
        return self._run("FINISH", job_id, args, is_durable=True)[0] == "finished"

    def refuse(self, job_id: str, message: str, failure: Failure) -> bool:
        """Fail a *message* that is no job where its sender looks: under its id.

        Returns:
            ``False`` if the record under this id is final, or is that of a real job, which
            somebody else's bad message must not end.
        """
        self._run("OPEN", job_id, self.calls.refused_args(job_id, message))
        record = self.read(job_id)
        if record is None or record.is_job:
            return False
        result = Result(job_id=job_id, status="failed", tenant=record.tenant, error=failure)
        return self.finish(job_id, result)

    def cancel(self, job_id: str) -> bool:
        """Make the job ``cancelled`` at once, running or not; ``False`` if it was final."""
        return self._end(job_id, "cancelled", "", "", 0)

    def expire(self, job_id: str) -> bool:
        """Make the job ``expired`` if its ``expires_at`` has passed."""
        return self._end(job_id, "expired", "", "", 0)

    def expire_many(self, job_ids: Sequence[str]) -> list[bool]:
        """Make those jobs ``expired`` whose ``expires_at`` has passed; see :meth:`expire`."""
        script, answers = self._scripts["FINISH"], []
        with ledger_errors_as_ours():
            for first in range(0, len(job_ids), PIPELINE_SIZE):
                with self.client.pipeline(transaction=False) as pipeline:
                    for job_id in job_ids[first : first + PIPELINE_SIZE]:
                        args = self.calls.args(job_id, "expired", "", "", 0, new_call_id())
                        script(keys=self.keys.of_record(job_id), args=args, client=pipeline)
                    answers += pipeline.execute()
        return [answer[0] == "finished" for answer in answers]

    def replay(self, job_id: str) -> float | None:
        """Reopen a dead letter, so that its job is run again.

        Returns:
            When its message is due, by the ledger's clock; ``None`` if it is not a dead letter.
        """
        args = self.calls.args(job_id, new_call_id())
        answer = self._run("REPLAY", job_id, args, is_durable=True)
        return float(answer[2]) if answer[0] == "opened" else None

    def sent(self, job_id: str, *, due: float | None = None) -> None:
        """Note that the job's message was sent just now.

        Args:
            due: When the job was due, or its lease, if it was taken from the due ones.
        """
        self.sent_many([(job_id, due)])

    def sent_many(self, sent: Sequence[tuple[str, float | None]]) -> None:
        """Note that messages were sent just now; pairs of a job's id and as for :meth:`sent`."""
        script = self._scripts["SENT"]
        with ledger_errors_as_ours():
            for first in range(0, len(sent), PIPELINE_SIZE):
                with self.client.pipeline(transaction=False) as pipeline:
                    for job_id, due in sent[first : first + PIPELINE_SIZE]:
                        args = self.calls.args(job_id, "" if due is None else f"{due:.6f}")
                        script(keys=self.keys.of_record(job_id), args=args, client=pipeline)
                    pipeline.execute()

    def state(self, job_id: str) -> State | None:
        """Read the state alone; ``None`` if there is no record."""
        with ledger_errors_as_ours():
            return cast("State | None", self.client.hget(self.keys.job(job_id), "state"))

    def read(self, job_id: str) -> Record | None:
        """Read the whole record; ``None`` if there is none."""
        return self.read_many([job_id])[0]

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
        return self.sightings.fill_in(job_ids, glances)

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
            self._wait_until_durable()  # else a reader could learn of an end that is lost
        self.sightings.check(job_ids, records)
        return records

    def deliveries(self) -> dict[str, int]:
        """Count deliveries: ``pending`` jobs now, and how many ever ended in each way."""
        with ledger_errors_as_ours(), self.client.pipeline(transaction=False) as pipeline:
            pipeline.zcard(self.keys.pending_deliveries)
            pipeline.hgetall(self.keys.delivery_totals)
            pending, ended = pipeline.execute()
        counts = {
            name: read_count(ended.get(name)) for name in ("delivered", "refused", "given_up")
        }
        return {"pending": int(pending), **counts}

    def open_images(self) -> int:
        """Count the images of all jobs that are not final: queued, unacked or in work."""
        with ledger_errors_as_ours():
            return read_count(self.client.get(self.keys.open_images))

    def totals(self) -> dict[str, int]:
        """Count the jobs that came to each final state."""
        with ledger_errors_as_ours():
            totals = cast("dict[str, str]", self.client.hgetall(self.keys.totals))
        return {state: read_count(count) for state, count in totals.items()}

    def dead(self, *, limit: int = 1000) -> list[str]:
        """List the ids of dead letters, oldest first."""
        with ledger_errors_as_ours():
            ids = self.client.zrange(self.keys.dead_letters, 0, limit - 1)
        return cast("list[str]", ids)

    def purge(self, job_id: str) -> bool:
        """Drop a dead letter for good; its failed result stays readable for its TTL."""
        args = self.calls.args(job_id, new_call_id())
        return self._run("PURGE", job_id, args, is_durable=True)[0] == "purged"


def backoff_s(attempt: int, *, base_s: float = 2.0, cap_s: float = 32.0) -> float:
    """Return the longest delay before the attempt after *attempt*; jitter picks 0 to that."""
    return min(cap_s, base_s * math.pow(2, max(0, attempt - 1)))
