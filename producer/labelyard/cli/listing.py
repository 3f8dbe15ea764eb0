"""The command that lists jobs by the time of their submission."""

import time
from typing import Annotated, Any, Final

import typer

from labelyard.cli.inputs import AsJson
from labelyard.cli.output import instant, print_json
from labelyard.cli.tables import Column, print_columns
from labelyard.cli.words import ago, count, lasted, read_since
from labelyard.client import Client
from labelyard.ledger import State
from labelyard.ledger.listing import JobList, JobSummary
from labelyard.queues import JobQueueName

COLUMNS: Final = (
    Column("job"),
    Column("state"),
    Column("images", is_right=True, rank=3),
    Column("submitted", rank=1),
    Column("took", is_right=True, rank=4),
    Column("tenant", rank=2),
    Column("queue", rank=5),
    Column("attempts", is_right=True, rank=7),
    Column("deaths", is_right=True, rank=6),
    Column("worker", rank=8),
)
MOST: Final = 100_000
OfState = Annotated[State | None, typer.Option("--state", help="Only jobs in this state")]
OfTenant = Annotated[str | None, typer.Option("--tenant", help="Only this tenant's jobs")]
OfQueue = Annotated[
    JobQueueName | None,
    typer.Option("--queue", help="Only jobs of this queue"),
]
Since = Annotated[
    str | None,
    typer.Option("--since", metavar="AGE|TIME", help="10m, 2h, 3d or 2026-03-01T09:30:00Z"),
]
Limit = Annotated[int, typer.Option("--limit", min=1, max=MOST, help="Most jobs to list")]


def list_jobs(
    state: OfState = None,
    tenant: OfTenant = None,
    since: Since = None,
    queue: OfQueue = None,
    limit: Limit = 100,
    as_json: AsJson = False,
) -> None:
    """List jobs, the newest first."""
    earliest = None if since is None else read_since(since)
    with Client() as client:
        found = client.list_jobs(
            state=state, tenant=tenant, since=earliest, queue=queue, limit=limit
        )
    if as_json:
        for job in found.jobs:
            print_json(job_fields(job))
    elif found.jobs:
        now = time.time()
        print_columns(COLUMNS, (job_row(job, now=now) for job in found.jobs))
    if note := note_on(found, limit=limit):
        typer.echo(note, err=True)


def note_on(found: JobList, *, limit: int) -> str:
    """Return a sentence on jobs that the list may lack; empty if it is complete."""
    if found.is_cut:
        return (
            f"The search ended after {count(found.examined)} jobs, and older ones may match: "
            "narrow it with --since, or look again with other conditions."
        )
    if len(found.jobs) == limit:
        newest = "This is the newest job" if limit == 1 else f"These are the newest {count(limit)}"
        return f"{newest}; --limit shows more."
    return "" if found.jobs else "No job matches."


def job_fields(job: JobSummary) -> dict[str, Any]:
    """Describe a job for programs."""
    return {
        "job_id": job.job_id,
        "state": job.state,
        "tenant": job.tenant,
        "queue": job.queue,
        "images": job.images,
        "submitted_at": instant(job.submitted_at),
        "finished_at": instant(job.finished_at),
        "expires_at": instant(job.expires_at),
        "attempts": job.attempts,
        "deaths": job.deaths,
        "runner": job.runner,
    }


def job_row(job: JobSummary, *, now: float) -> tuple[object, ...]:
    """Describe a job in the columns of the table."""
    took = "" if job.finished_at is None else lasted(job.finished_at - job.submitted_at)
    return (
        job.job_id,
        job.state,
        job.images,
        ago(max(0.0, now - job.submitted_at)),
        took,
        job.tenant,
        job.queue,
        job.attempts,
        job.deaths or "",
        job.runner,
    )
