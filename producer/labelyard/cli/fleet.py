"""The command that lists the workers of a namespace."""

from typing import Annotated, Any, Final

import typer

from labelyard.cli.inputs import AsJson
from labelyard.cli.output import instant, print_json
from labelyard.cli.tables import Column, print_columns
from labelyard.cli.words import ago, gibibytes
from labelyard.client import Client
from labelyard.diagnosis.phrases import START_WORKER
from labelyard.ledger.limits import WORKER_DETAILS_TTL_S
from labelyard.ledger.workers import WorkerInfo

COLUMNS: Final = (
    Column("worker"),
    Column("state"),
    Column("jobs", is_right=True),
    Column("last sign"),
    Column("checkpoint", rank=2, is_sentence=True),
    Column("dtype", rank=6),
    Column("device", rank=3),
    Column("version", rank=5),
    Column("started", rank=7),
    Column("health", rank=8),
    Column("failing", rank=1),
)
Live = Annotated[bool, typer.Option("--live", help="Only the workers that are alive")]


def workers(live: Live = False, as_json: AsJson = False) -> None:
    """List the workers, and those that ended without a shutdown in the last hour."""
    with Client() as client:
        found = client.workers(lost_within_s=0.0 if live else WORKER_DETAILS_TTL_S)
    if as_json:
        for one in found:
            print_json(worker_fields(one))
    elif found:
        print_columns(COLUMNS, map(worker_row, found))
    if all(one.state == "lost" for one in found):
        typer.echo(START_WORKER, err=True)


def worker_fields(worker: WorkerInfo) -> dict[str, Any]:
    """Describe a worker, with its times as programs and people read them."""
    age_s = worker.last_seen_s
    return {
        **worker.model_dump(mode="json"),
        "started_at": instant(worker.started_at),
        "last_seen_at": instant(worker.last_seen_at),
        "last_seen_s": None if age_s is None else round(age_s, 3),
    }


def worker_row(worker: WorkerInfo) -> tuple[object, ...]:
    """Describe a worker in the columns of its table."""
    running_for_s = None
    if worker.started_at is not None and worker.last_seen_at is not None:
        running_for_s = worker.last_seen_at - worker.started_at
    slots = f"/{worker.concurrency}" if worker.concurrency else ""
    return (
        worker.name,
        worker.state,
        f"{len(worker.running)}{slots}",
        ago(worker.last_seen_s),
        worker.checkpoint,
        worker.dtype,
        device_of(worker),
        worker.version,
        "" if running_for_s is None else ago(running_for_s),
        worker.health_address,
        breakers_of(worker),
    )


def device_of(worker: WorkerInfo) -> str:
    """Name a worker's device with its memory."""
    memory = gibibytes(worker.device_memory_bytes)
    return " ".join(filter(None, (worker.device, worker.device_name, memory)))


def breakers_of(worker: WorkerInfo) -> str:
    """Name the buckets and hosts that a worker does not call now."""
    more = worker.open_breaker_count - len(worker.open_breakers)
    return ", ".join(worker.open_breakers) + (f" and {more} more" if more > 0 else "")
