"""Operations of a ledger for the maintenance threads of workers: presence, leader, reconciler."""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, NamedTuple, cast

import redis

from labelyard.ledger.limits import PRESENCE_S, WORKER_DETAILS_TTL_S
from labelyard.ledger.records import Record
from labelyard.ledger.redis_errors import ledger_errors_as_ours

if TYPE_CHECKING:
    from labelyard.ledger.client import Ledger


class DueJobs(NamedTuple):
    """Jobs that are due to be sent again.

    Attributes:
        lease: When they become due again unless :meth:`MaintenanceLedger.sent_many` is called
            with it, by the ledger's clock.
    """

    lease: float
    job_ids: list[str]


class PassedJobs(NamedTuple):
    """Open jobs whose message must have left its queue.

    Attributes:
        looked_at: How many jobs were looked at.
        others: How many of these belong to other queues than the one asked for.
    """

    looked_at: int
    others: int
    job_ids: list[str]


class FleetCounts(NamedTuple):
    """Counts of one moment for the metrics of a fleet.

    Attributes:
        open_jobs: Jobs that are not final.
        dead_letters: Dead letters that are kept.
        set_aside: Messages that are set aside.
        pending_deliveries: Jobs with a result that is not delivered yet.
        dead_deliveries: Jobs with a delivery that was refused or given up.
        workers: Workers that have renewed their presence in time.
    """

    open_jobs: int
    dead_letters: int
    set_aside: int
    pending_deliveries: int
    dead_deliveries: int
    workers: int


class MaintenanceLedger:
    """The ledger for maintenance threads.

    Every method raises LedgerUnavailableError when Redis gives no answer.
    """

    def __init__(self, ledger: "Ledger") -> None:
        self._ledger = ledger
        self._client = ledger.client
        self._commands = ledger.commands
        self._keys = ledger.keys

    def read_clock(self) -> float:
        """Query the ledger's time, in seconds since the epoch."""
        with ledger_errors_as_ours():
            seconds, microseconds = self._client.time()
        return seconds + microseconds / 1_000_000

    def renew_presence(
        self, worker: str, running: Iterable[str], *, ttl_s: float, details: str = ""
    ) -> None:
        """Write the presence key of *worker*, with the ids of its *running* jobs.

        Args:
            details: Details of the worker as JSON, to be written as well; empty leaves those
                that were written before.
        """
        now = self._ledger.now()
        keys = self._keys
        with ledger_errors_as_ours(), self._client.pipeline(transaction=False) as pipeline:
            pipeline.set(keys.worker(worker), json.dumps(list(running)), px=int(ttl_s * 1000))
            pipeline.zadd(keys.workers, {worker: now})
            pipeline.expire(keys.workers, WORKER_DETAILS_TTL_S)
            if details:
                pipeline.set(keys.worker_details(worker), details, ex=WORKER_DETAILS_TTL_S)
                pipeline.zremrangebyscore(keys.workers, "-inf", now - WORKER_DETAILS_TTL_S)
            pipeline.execute()

    def end_presence(self, worker: str) -> None:
        """Delete the presence key and the details of *worker*."""
        keys = self._keys
        with ledger_errors_as_ours(), self._client.pipeline(transaction=False) as pipeline:
            pipeline.delete(keys.worker(worker), keys.worker_details(worker))
            pipeline.zrem(keys.workers, worker)
            pipeline.execute()

    @contextmanager
    def subscribe_stopped(self) -> Iterator["redis.client.PubSub"]:
        """Subscribe to the ids of jobs that were cancelled or have expired.

        Raises:
            redis.RedisError: Redis gave no answer; reading from the subscription raises it, too.
        """
        with self._client.pubsub(  # type: ignore[no-untyped-call]
            ignore_subscribe_messages=True
        ) as pubsub:
            pubsub.subscribe(self._keys.stopped_channel)
            yield pubsub

    def lead(self, worker: str, *, ttl_s: float) -> bool:
        """Make *worker* the leader for *ttl_s* seconds, unless another worker is."""
        return bool(self._ledger.run(self._commands.lead(worker=worker, ttl_s=ttl_s)))

    def resign(self, worker: str) -> None:
        """Let another worker lead at once, if *worker* is the leader."""
        with ledger_errors_as_ours():
            if self._client.get(self._keys.leader) == worker:
                self._client.delete(self._keys.leader)

    def take_due(self, *, lease_s: float, limit: int) -> DueJobs:
        """Take a lease on up to *limit* jobs that are due to be sent again."""
        lease, *job_ids = self._ledger.run(self._commands.take_due(lease_s=lease_s, limit=limit))
        return DueJobs(float(lease), job_ids)

    def sent_many(self, sent: Sequence[tuple[str, float | None]]) -> None:
        """Note that messages were sent just now.

        Args:
            sent: Ids of jobs, each with the lease under which it was taken, if it was due.
        """
        self._ledger.run_many(self._commands.sent(job_id, due=due) for job_id, due in sent)

    def list_overdue(self, *, limit: int) -> list[str]:
        """List up to *limit* jobs whose ``expires_at`` has passed, the oldest first."""
        return cast("list[str]", self._ledger.run(self._commands.list_overdue(limit=limit)))

    def expire_many(self, job_ids: Sequence[str]) -> list[bool]:
        """Make those jobs ``expired`` whose ``expires_at`` has passed; return which ones did."""
        answers = self._ledger.run_many(
            self._commands.finish(job_id, state="expired") for job_id in job_ids
        )
        return [answer[0] == "finished" for answer in answers]

    def forget_expiry(self, job_ids: Sequence[str]) -> None:
        """Drop jobs that need not expire any more from the expiring ones."""
        with ledger_errors_as_ours():
            self._client.zrem(self._keys.expiring, *job_ids)

    def take_passed(
        self,
        passed: Mapping[str, float],
        *,
        only: str = "",
        earliest: str = "-inf",
        latest: float,
        offset: int = 0,
        limit: int,
    ) -> PassedJobs:
        """Find open jobs that their queue has passed on; the others are looked at again later.

        Args:
            passed: For each queue the time before which it has passed on what was published.
            only: The queue whose jobs are looked for; empty means all queues.
            earliest: The jobs were sent, started or looked at since, as a bound of ZRANGEBYSCORE.
            latest: They were before, by the ledger's clock.
            offset: Jobs to skip.
        """
        command = self._commands.take_passed(
            passed, only=only, earliest=earliest, latest=latest, offset=offset, limit=limit
        )
        looked_at, others, *job_ids = self._ledger.run(command)
        return PassedJobs(int(looked_at), int(others), [str(job_id) for job_id in job_ids])

    def touch(self, job_ids: Sequence[str]) -> None:
        """Note that open jobs were looked at just now: they are looked at again after a while."""
        now = self.read_clock()
        with ledger_errors_as_ours():
            self._client.zadd(self._keys.open, dict.fromkeys(job_ids, now), xx=True)

    def running_or_due(self, records: Sequence[Record]) -> set[str]:
        """Find the jobs that a live worker's presence key names, or that wait for their retry."""
        runners = sorted({record.runner for record in records if record.runner})
        with ledger_errors_as_ours(), self._client.pipeline(transaction=False) as pipeline:
            for runner in runners:
                pipeline.get(self._keys.worker(runner))
            for record in records:
                pipeline.zscore(self._keys.due, record.job_id)
            answers: list[Any] = pipeline.execute()
        running = {
            runner: frozenset(json.loads(answer) if answer else ())
            for runner, answer in zip(runners, answers[: len(runners)], strict=True)
        }
        return {
            record.job_id
            for record, due in zip(records, answers[len(runners) :], strict=True)
            if due is not None or record.job_id in running.get(record.runner, ())
        }

    def note_passed(self, queue: str, published_at: float) -> None:
        """Share when the newest message was published that *queue* has passed on."""
        with ledger_errors_as_ours(), self._client.pipeline(transaction=False) as pipeline:
            pipeline.zadd(self._keys.passed, {queue: published_at}, gt=True)
            pipeline.expire(self._keys.passed, self._commands.open_ttl_s)
            pipeline.execute()

    def count_fleet(self) -> FleetCounts:
        """Count the ledger's entries for the metrics of a fleet, in two round trips."""
        keys, now = self._keys, self.read_clock()
        with ledger_errors_as_ours(), self._client.pipeline(transaction=False) as pipeline:
            for key in (keys.open, keys.dead_letters, keys.set_aside_index):
                pipeline.zcard(key)
            pipeline.zcard(keys.pending_deliveries)
            pipeline.zcard(keys.dead_deliveries)
            pipeline.zcount(keys.workers, now - PRESENCE_S, "+inf")
            return FleetCounts(*(int(count) for count in pipeline.execute()))

    def passed(self) -> dict[str, float]:
        """Read the times that :meth:`note_passed` has shared, by queue."""
        with ledger_errors_as_ours():
            shared: Any = self._client.zrange(self._keys.passed, 0, -1, withscores=True)
        return dict(shared)
