"""Read all facts of the ledger about one job at one moment, to diagnose why it is stuck."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from labelyard.ledger.client import Ledger
from labelyard.ledger.records import Record, read_record
from labelyard.ledger.redis_errors import ledger_errors_as_ours
from labelyard.ledger.set_aside import SetAsideMessage, messages_naming


@dataclass(frozen=True, slots=True)
class WorkerSign:
    """Presence of the worker that a record names.

    Attributes:
        expires_in_s: Seconds until its presence key expires unless it is renewed; ``None`` if
            the key is gone: the worker ended, or has hung for so long.
        names_job: Whether the worker's presence key names the job.
        is_suspect: Whether the job is the one that is blamed if the worker dies.
    """

    name: str
    expires_in_s: float | None
    names_job: bool
    is_suspect: bool

    @property
    def is_alive(self) -> bool:
        """Whether the worker has renewed its presence key in time."""
        return self.expires_in_s is not None


@dataclass(frozen=True, slots=True)
class Inspection:
    """Everything that the ledger knows about one job. Times are the ledger's, in seconds.

    Attributes:
        now: The ledger's time when it was read.
        record: ``None`` if there is no record under the id.
        record_ttl_s: Seconds until the record is dropped.
        tombstone: Final state of a job whose record may be gone; empty if there is none.
        due_at: When the job's message is published again; ``None`` if nothing is planned.
        started_at: When the last attempt began; ``None`` if none ever did.
        is_dead_letter: Whether the job can be replayed as a dead letter.
        deliverer: Worker that delivers the result now; empty if none does.
        deliveries_due_at: When a worker takes up the pending deliveries.
        worker: Presence of the worker that runs the job; ``None`` if the record names none.
        leader: Worker whose reconciler is at work; empty if there is none.
        set_aside: Set-aside messages that name the job, newest first.
        is_set_aside_cut: Whether there are more set-aside messages than were searched.
    """

    now: float
    record: Record | None
    record_ttl_s: float | None
    tombstone: str
    due_at: float | None
    started_at: float | None
    is_dead_letter: bool
    deliverer: str
    deliveries_due_at: float | None
    worker: WorkerSign | None
    leader: str
    set_aside: tuple[SetAsideMessage, ...]
    is_set_aside_cut: bool


def inspect_job(ledger: Ledger, job_id: str) -> Inspection:
    """Read the ledger's facts about a job, in a few bounded calls.

    Raises:
        LedgerUnavailableError: Redis gave no answer.
    """
    keys = ledger.keys
    with ledger_errors_as_ours(), ledger.client.pipeline(transaction=True) as pipeline:
        pipeline.time()
        pipeline.hgetall(keys.job(job_id))
        pipeline.pttl(keys.job(job_id))
        pipeline.get(keys.tombstone(job_id))
        pipeline.zscore(keys.due, job_id)
        pipeline.zscore(keys.dead_letters, job_id)
        pipeline.zscore(keys.pending_deliveries, job_id)
        pipeline.get(keys.leader)
        clock, fields, ttl_ms, tombstone, due_at, died_at, owed_at, leader = pipeline.execute()
    named, is_cut = messages_naming(ledger, job_id)
    return Inspection(
        now=clock[0] + clock[1] / 1_000_000,
        record=read_record(job_id, fields),
        record_ttl_s=_seconds(ttl_ms),
        tombstone=tombstone or "",
        due_at=due_at,
        started_at=_time_in(fields, "started_at"),
        is_dead_letter=died_at is not None,
        deliverer=fields.get("deliverer", ""),
        deliveries_due_at=owed_at,
        worker=_sign_of(ledger, fields.get("runner", ""), job_id),
        leader=leader or "",
        set_aside=named,
        is_set_aside_cut=is_cut,
    )


def _sign_of(ledger: Ledger, worker: str, job_id: str) -> WorkerSign | None:
    if not worker:
        return None
    with ledger_errors_as_ours(), ledger.client.pipeline(transaction=True) as pipeline:
        pipeline.get(ledger.keys.worker(worker))
        pipeline.pttl(ledger.keys.worker(worker))
        pipeline.get(ledger.keys.suspect(worker))
        running, ttl_ms, suspect = pipeline.execute()
    return WorkerSign(
        name=worker,
        expires_in_s=_seconds(ttl_ms) if running is not None else None,
        names_job=running is not None and job_id in json.loads(running),
        is_suspect=suspect == job_id,
    )


def _seconds(ttl_ms: int) -> float | None:
    return ttl_ms / 1000 if ttl_ms >= 0 else None


def _time_in(fields: Mapping[str, Any], name: str) -> float | None:
    try:
        return float(fields[name])
    except (KeyError, ValueError):
        return None
