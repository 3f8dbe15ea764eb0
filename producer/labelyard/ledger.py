"""A job's record in Redis: the truth about the job, whatever happens to its message."""

import math
from collections.abc import Awaitable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final, Literal, cast

import redis
import redis.asyncio
from redis.backoff import ExponentialBackoff
from redis.exceptions import RedisError
from redis.retry import Retry

from labelyard import ledger_scripts
from labelyard.errors import LedgerUnavailableError, QueueFullError
from labelyard.ledger_scripts import LedgerKeys
from labelyard.messages import Job, Result
from labelyard.settings import ConnectionSettings

Queue = Literal["interactive", "bulk", "quarantine"]
State = Literal["pending", "running", "succeeded", "partial", "failed", "cancelled", "expired"]
FINAL_STATES: Final[frozenset[str]] = frozenset(
    {"succeeded", "partial", "failed", "cancelled", "expired"}
)

# A half-open connection must not hang a caller for ever (redis-py waits without end).
SOCKET_OPTIONS: Final[Mapping[str, Any]] = {
    "socket_timeout": 10,
    "socket_connect_timeout": 3,
    "socket_keepalive": True,
    "health_check_interval": 10,
}


@dataclass(frozen=True, slots=True)
class Record:
    """What the ledger knows of a job. Times are seconds since the epoch, Redis' clock.

    Attributes:
        attempts: How often a worker began it.
        deaths: How often its worker died, hung or broke while it ran.
        deaths_alone: The same, while nothing else ran beside it.
        undelivered: Deliveries that are still owed: ``object``, ``webhook``.
        result: ``None`` until succeeded, partial or failed.
    """

    job_id: str
    state: State
    tenant: str
    queue: Queue
    images: int
    submitted_at: float
    published_at: float
    finished_at: float | None
    attempts: int
    deaths: int
    deaths_alone: int
    last_death: str
    runner: str
    message: str
    undelivered: tuple[str, ...]
    result: Result | None

    @property
    def is_final(self) -> bool:
        """Whether the state can change no more."""
        return self.state in FINAL_STATES

    def job(self) -> Job:
        """Read the job as it was submitted."""
        return Job.model_validate_json(self.message)


@dataclass(frozen=True, slots=True)
class Opened:
    """What became of a submit: a new record, or the one that was there."""

    is_new: bool
    state: State
    at: float


@dataclass(frozen=True, slots=True)
class Started:
    """What a worker should do with a delivered job.

    Attributes:
        verdict: ``run`` it; drop it because it is ``final`` or ``missing``; move it to
            ``quarantine``; or bury it because it is ``dead``.
        state: Its final state, if it is final.
        attempt: Which attempt this is, from 1.
        queued_s: Seconds from submission to this start.
        reason: What killed it, if it is dead.
    """

    verdict: Literal["run", "final", "missing", "quarantine", "dead"]
    state: str = ""
    attempt: int = 0
    deaths: int = 0
    queued_s: float = 0.0
    reason: str = ""


def connect(settings: ConnectionSettings) -> "redis.Redis":
    """Connect to the ledger's Redis with bounded waits and a few quick retries."""
    return redis.Redis.from_url(
        settings.ledger_url,
        decode_responses=True,
        retry=Retry(ExponentialBackoff(cap=0.5, base=0.05), 3),
        **SOCKET_OPTIONS,
    )


def connect_async(settings: ConnectionSettings) -> "redis.asyncio.Redis":
    """Connect to the ledger's Redis for asyncio, with the same bounds."""
    from redis.asyncio.retry import Retry as AsyncRetry

    return redis.asyncio.Redis.from_url(
        settings.ledger_url,
        decode_responses=True,
        retry=AsyncRetry(ExponentialBackoff(cap=0.5, base=0.05), 3),
        **SOCKET_OPTIONS,
    )


@contextmanager
def ledger_errors_as_ours() -> Iterator[None]:
    """Turn what redis-py raises inside the block into our error.

    Raises:
        LedgerUnavailableError: No answer, or a refusal such as being out of memory.
    """
    try:
        yield
    except (RedisError, OSError) as error:
        raise LedgerUnavailableError(f"{type(error).__name__}: {error}") from error


class LedgerCalls:
    """How each call to the ledger is written and read; the same for both clients."""

    def __init__(self, settings: ConnectionSettings) -> None:
        self.namespace = settings.namespace
        self._open_ttl_s = settings.open_ttl_s
        self.result_ttl_s = settings.result_ttl_s
        self._max_queued_images = settings.max_queued_images

    def keys(self, job_id: str) -> LedgerKeys:
        """Name the keys of a job's record."""
        return LedgerKeys.of(self.namespace, job_id)

    def key(self, name: str) -> str:
        """Name a key of the ledger that belongs to no single job."""
        return f"{self.namespace}:{name}"

    def done_channel(self, job_id: str) -> str:
        """Name the channel that says when the job is final."""
        return f"{self.namespace}:done:{job_id}"

    def args(self, job_id: str, *values: object) -> list[str]:
        """Put the script's own arguments behind those that all scripts share."""
        shared = (job_id, self._open_ttl_s, self.result_ttl_s, self.namespace)
        return [str(value) for value in (*shared, *values)]

    def open_args(self, job: Job, *, queue: Queue, is_limited: bool) -> list[str]:
        """Write the arguments that open the record of *job*."""
        return self.args(
            job.job_id,
            job.model_dump_json(),
            len(job.images),
            job.tenant,
            queue,
            job.expires_at.timestamp() if job.expires_at else "",
            job.deliver.stream or "",
            self._max_queued_images if is_limited else 0,
        )

    def read_opened(self, answer: list[str]) -> Opened:
        """Read what opening a record came to.

        Raises:
            QueueFullError: As many images wait as are allowed.
        """
        verdict, state, at = answer
        if verdict == "full":
            raise QueueFullError(f"{state} images wait, limit {self._max_queued_images}")
        return Opened(is_new=verdict == "opened", state=cast("State", state), at=float(at))


def read_started(answer: list[str]) -> Started:
    """Read what the start script decided."""
    match answer:
        case ["run", attempt, deaths, submitted_at, now]:
            queued_s = max(0.0, float(now) - float(submitted_at))
            return Started("run", attempt=int(attempt), deaths=int(deaths), queued_s=queued_s)
        case ["dead", deaths, reason]:
            return Started("dead", deaths=int(deaths), reason=reason)
        case ["quarantine", deaths]:
            return Started("quarantine", deaths=int(deaths))
        case ["final", state]:
            return Started("final", state=state)
        case _:
            return Started("missing")


def read_record(job_id: str, fields: Mapping[str, str]) -> Record | None:
    """Read a record's hash; ``None`` when there is none."""
    if "state" not in fields:
        return None
    result = fields.get("result")
    finished_at = fields.get("finished_at")
    return Record(
        job_id=job_id,
        state=cast("State", fields["state"]),
        tenant=fields["tenant"],
        queue=cast("Queue", fields["queue"]),
        images=int(fields["images"]),
        submitted_at=float(fields["submitted_at"]),
        published_at=float(fields["published_at"]),
        finished_at=float(finished_at) if finished_at else None,
        attempts=int(fields["attempts"]),
        deaths=int(fields["deaths"]),
        deaths_alone=int(fields["deaths_alone"]),
        last_death=fields.get("last_death", ""),
        runner=fields.get("runner", ""),
        message=fields["message"],
        undelivered=tuple(filter(None, fields.get("undelivered", "").split(","))),
        result=Result.model_validate_json(result) if result else None,
    )


class Ledger:
    """The ledger for threads: producers open, read and cancel; workers do the rest.

    Every method raises LedgerUnavailableError when Redis gives no answer.
    """

    def __init__(self, client: "redis.Redis", settings: ConnectionSettings) -> None:
        self.client = client
        self.calls = LedgerCalls(settings)
        self._scripts = {
            name: client.register_script(getattr(ledger_scripts, name))
            for name in ("OPEN", "START", "RELEASE", "FINISH", "REPLAY", "SENT")
        }

    def _run(self, name: str, job_id: str, args: list[str]) -> list[str]:
        with ledger_errors_as_ours():
            answer = self._scripts[name](keys=list(self.calls.keys(job_id)), args=args)
        return cast("list[str]", answer)

    def open(self, job: Job, *, queue: Queue, is_limited: bool = True) -> Opened:
        """Write the record of *job*, unless there is one under its id.

        Args:
            is_limited: Whether LABELYARD_MAX_QUEUED_IMAGES may refuse it.

        Raises:
            QueueFullError: As many images wait as are allowed.
        """
        args = self.calls.open_args(job, queue=queue, is_limited=is_limited)
        return self.calls.read_opened(self._run("OPEN", job.job_id, args))

    def start(
        self, job_id: str, *, worker: str, is_alone: bool, quarantine_after: int, dead_after: int
    ) -> Started:
        """Begin an attempt, or say why not. Counts a death if the last one never ended."""
        args = self.calls.args(job_id, worker, int(is_alone), quarantine_after, dead_after)
        return read_started(self._run("START", job_id, args))

    def hand_back(self, job_id: str, *, worker: str) -> None:
        """End an attempt that did not count: the broker brings the message again."""
        self._run("RELEASE", job_id, self.calls.args(job_id, worker, "", ""))

    def retry(self, job_id: str, *, worker: str, delay_s: float, death: str = "") -> None:
        """End an attempt, and have the job sent again in *delay_s* seconds.

        Args:
            death: What broke the worker's thread, if that is why it ended.
        """
        self._run("RELEASE", job_id, self.calls.args(job_id, worker, delay_s, death))

    def finish(
        self,
        job_id: str,
        result: Result,
        *,
        undelivered: tuple[str, ...] = (),
        is_dead: bool = False,
    ) -> bool:
        """Write the result; ``False`` if the job was final before: the first one stands."""
        args = self.calls.args(
            job_id, result.status, result.model_dump_json(), ",".join(undelivered), int(is_dead)
        )
        return self._run("FINISH", job_id, args)[0] == "finished"

    def cancel(self, job_id: str) -> bool:
        """Make the job ``cancelled`` at once, running or not; ``False`` if it was final."""
        args = self.calls.args(job_id, "cancelled", "", "", 0)
        return self._run("FINISH", job_id, args)[0] == "finished"

    def expire(self, job_id: str) -> bool:
        """Make the job ``expired`` if its ``expires_at`` has passed."""
        return self._run("FINISH", job_id, self.calls.args(job_id, "expired", "", "", 0))[0] == (
            "finished"
        )

    def replay(self, job_id: str) -> bool:
        """Give a dead letter another life; ``False`` if it is none."""
        return self._run("REPLAY", job_id, self.calls.args(job_id))[0] == "opened"

    def sent(self, job_id: str) -> None:
        """Note that the job's message was sent just now."""
        self._run("SENT", job_id, self.calls.args(job_id))

    def state(self, job_id: str) -> State | None:
        """Read the state alone; ``None`` if there is no record."""
        with ledger_errors_as_ours():
            return cast("State | None", self.client.hget(self.calls.keys(job_id).job, "state"))

    def read(self, job_id: str) -> Record | None:
        """Read the whole record; ``None`` if there is none."""
        with ledger_errors_as_ours():
            fields = cast("dict[str, str]", self.client.hgetall(self.calls.keys(job_id).job))
        return read_record(job_id, fields)

    def delivered(self, job_id: str, *, undelivered: tuple[str, ...]) -> None:
        """Note which deliveries are still owed."""
        job_key = self.calls.keys(job_id).job
        with ledger_errors_as_ours():
            if self.client.exists(job_key):
                self.client.hset(job_key, "undelivered", ",".join(undelivered))

    def open_images(self) -> int:
        """Count the images of all jobs that are not final: queued, unacked or in work."""
        with ledger_errors_as_ours():
            return int(cast("str | None", self.client.get(self.calls.key("open_images"))) or 0)

    def totals(self) -> dict[str, int]:
        """Count the jobs that came to each final state."""
        with ledger_errors_as_ours():
            totals = cast("dict[str, str]", self.client.hgetall(self.calls.key("totals")))
        return {state: int(count) for state, count in totals.items()}

    def dead(self, *, limit: int = 1000) -> list[str]:
        """List the ids of dead letters, oldest first."""
        with ledger_errors_as_ours():
            ids = self.client.zrange(self.calls.key("dead"), 0, limit - 1)
        return cast("list[str]", ids)

    def purge(self, job_id: str) -> bool:
        """Drop a dead letter for good; its failed result stays readable for its TTL."""
        with ledger_errors_as_ours():
            was_dead = bool(self.client.zrem(self.calls.key("dead"), job_id))
            if was_dead:
                self.client.expire(self.calls.keys(job_id).job, self.calls.result_ttl_s)
        return was_dead


class AsyncLedger:
    """What a producer needs of the ledger, for asyncio."""

    def __init__(self, client: "redis.asyncio.Redis", settings: ConnectionSettings) -> None:
        self.client = client
        self.calls = LedgerCalls(settings)
        self._open = client.register_script(ledger_scripts.OPEN)
        self._finish = client.register_script(ledger_scripts.FINISH)

    async def open(self, job: Job, *, queue: Queue) -> Opened:
        """Write the record of *job*, unless there is one; see :meth:`Ledger.open`."""
        args = self.calls.open_args(job, queue=queue, is_limited=True)
        with ledger_errors_as_ours():
            answer = await self._open(keys=list(self.calls.keys(job.job_id)), args=args)
        return self.calls.read_opened(answer)

    async def _finish_as(self, job_id: str, state: Literal["cancelled", "expired"]) -> bool:
        args = self.calls.args(job_id, state, "", "", 0)
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
        with ledger_errors_as_ours():
            call = cast(
                "Awaitable[dict[str, str]]", self.client.hgetall(self.calls.keys(job_id).job)
            )
            return read_record(job_id, await call)


def backoff_s(attempt: int, *, base_s: float = 2.0, cap_s: float = 32.0) -> float:
    """Give the longest delay before the attempt after *attempt*; jitter picks 0 to that."""
    return min(cap_s, base_s * math.pow(2, max(0, attempt - 1)))
