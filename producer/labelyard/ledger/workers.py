"""Workers of a namespace, as their presence threads describe them in the ledger."""

import json
from typing import Any, Final, Literal, get_args

from pydantic import ValidationError, field_validator

from labelyard.errors import InvalidMessageError
from labelyard.ledger.connection import LedgerConnection
from labelyard.ledger.redis_errors import ledger_errors_as_ours
from labelyard.messages.models import Report

WorkerState = Literal["starting", "ready", "draining", "lost", "unknown"]
#: Most workers that are listed, those with the newest sign of life.
MAX_WORKERS: Final = 1_000
#: Open jobs that are looked at for workers of an earlier version.
JOBS_LOOKED_AT: Final = 100
#: Most circuit breakers that a worker names.
MAX_NAMED_BREAKERS: Final = 5


class WorkerInfo(Report):
    """A worker as it describes itself; a worker of an earlier version has a name and jobs alone.

    Attributes:
        name: Name of the process, new at each start.
        host: Name of its machine or container.
        device: What the model computes on, such as ``cpu`` or ``cuda:0``.
        device_name: Product name of the device.
        device_memory_bytes: Memory of a GPU; ``None`` on a CPU.
        checkpoint: Checkpoint that it serves.
        fingerprint: Digest of the checkpoint's weights and files.
        dtype: Number format that the image tower computes in.
        version: Version of labelyard.
        started_at: When the process began, by the ledger's clock.
        queues: Queues that it consumes, without the namespace; empty until it is ready.
        concurrency: Jobs that it runs at once.
        health_address: ``host:port`` of its probes; empty if they are switched off.
        state: ``starting`` until it takes jobs, ``ready``, ``draining`` while it shuts down;
            ``lost`` if it has shown no sign of life and did not shut down; ``unknown`` for a
            worker of another version.
        has_atomic_claim: Whether it claims messages from Redis without the risk of losing one;
            ``None`` on RabbitMQ, or if it is not known.
        open_breakers: Buckets and hosts that it does not call now because they fail: the
            first few names.
        open_breaker_count: Number of these buckets and hosts.
        running: Ids of its running jobs.
        last_seen_at: Time of its last sign of life, by the ledger's clock.
        last_seen_s: Seconds since then.
    """

    name: str
    host: str = ""
    device: str = ""
    device_name: str = ""
    device_memory_bytes: int | None = None
    checkpoint: str = ""
    fingerprint: str = ""
    dtype: str = ""
    version: str = ""
    started_at: float | None = None
    queues: tuple[str, ...] = ()
    concurrency: int | None = None
    health_address: str = ""
    state: WorkerState = "unknown"
    has_atomic_claim: bool | None = None
    open_breakers: tuple[str, ...] = ()
    open_breaker_count: int = 0
    running: tuple[str, ...] = ()
    last_seen_at: float | None = None
    last_seen_s: float | None = None

    @field_validator("state", mode="before")
    @classmethod
    def _known_state(cls, state: object) -> object:
        """Read a state of a later version as ``unknown``."""
        return state if state in get_args(WorkerState) else "unknown"


def read_workers(ledger: LedgerConnection, *, lost_within_s: float = 0.0) -> list[WorkerInfo]:
    """Read all live workers, by name; two round trips, or three beside earlier versions.

    A worker of an earlier version is not in the index. It is found as the leader, or as the
    worker that runs one of the jobs that began last: a namespace with live workers has a leader,
    so the list is empty only if no worker lives.

    Args:
        lost_within_s: Also list workers that ended without a clean shutdown within this time;
            an hour at most.

    Raises:
        LedgerUnavailableError: Redis gave no answer.
        InvalidMessageError: *lost_within_s* is negative.
    """
    if not lost_within_s >= 0:
        raise InvalidMessageError(f"lost_within_s: {lost_within_s} is not a number of seconds")
    keys = ledger.keys
    with ledger_errors_as_ours():
        with ledger.client.pipeline(transaction=False) as pipeline:
            pipeline.time()
            pipeline.zrevrange(keys.workers, 0, MAX_WORKERS - 1, withscores=True)
            pipeline.get(keys.leader)
            pipeline.zrevrange(keys.open, 0, JOBS_LOOKED_AT - 1)
            clock, indexed, leader, job_ids = pipeline.execute()
        seen_at: dict[str, float] = dict(indexed)
        with ledger.client.pipeline(transaction=False) as pipeline:
            for name in seen_at:
                pipeline.get(keys.worker(name))
                pipeline.get(keys.worker_details(name))
            for job_id in job_ids:
                pipeline.hget(keys.job(job_id), "runner")
            answers: list[Any] = pipeline.execute()
        presences = dict(zip(seen_at, answers[: 2 * len(seen_at) : 2], strict=True))
        details = dict(zip(seen_at, answers[1 : 2 * len(seen_at) : 2], strict=True))
        unlisted = sorted({leader, *answers[2 * len(seen_at) :]} - {None, "", *seen_at})
        if unlisted:
            found: list[Any] = ledger.client.mget([keys.worker(name) for name in unlisted])
            presences |= zip(unlisted, found, strict=True)
    now = clock[0] + clock[1] / 1_000_000
    workers = []
    for name, presence in sorted(presences.items()):
        age_s = max(0.0, now - seen_at[name]) if name in seen_at else None
        if presence is None and (age_s is None or age_s > lost_within_s):
            continue
        seen = {"last_seen_at": seen_at.get(name), "last_seen_s": age_s}
        info = _read_details(name, details.get(name)).model_copy(update=seen)
        gone = {"running": _ids_in(presence)} if presence is not None else {"state": "lost"}
        workers.append(info.model_copy(update=gone))
    return workers


def _read_details(name: str, details: str | None) -> WorkerInfo:
    """Read a worker's details; unreadable ones are unknown."""
    try:
        return WorkerInfo.model_validate({**json.loads(details or "{}"), "name": name})
    except (ValueError, TypeError, RecursionError, ValidationError):
        return WorkerInfo(name=name)


def _ids_in(presence: str) -> tuple[str, ...]:
    try:
        return tuple(map(str, json.loads(presence)))
    except (ValueError, TypeError, RecursionError):
        return ()
