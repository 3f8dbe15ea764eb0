"""Commands for dead letters: jobs that killed or hung their workers."""

import json
from typing import Annotated, Final

import typer

from labelyard.cli.inputs import AsJson
from labelyard.cli.output import instant, print_fields, print_json, record_fields
from labelyard.cli.tables import Column, print_columns
from labelyard.client import Client
from labelyard.errors import InvalidMessageError, JobNotFoundError
from labelyard.ledger import Record

app: typer.Typer = typer.Typer(
    help="Jobs that killed or hung their workers.", no_args_is_help=True, rich_markup_mode=None
)

COLUMNS: Final = (
    Column("job"),
    Column("died", rank=2),
    Column("deaths", is_right=True, rank=3),
    Column("images", is_right=True, rank=4),
    Column("tenant", rank=1),
    Column("reason", is_sentence=True),
)
SomeIds = Annotated[list[str] | None, typer.Argument(metavar="[JOB_ID...]")]
All = Annotated[bool, typer.Option("--all", help="All dead letters")]


@app.command("list")
def list_letters(
    limit: Annotated[int, typer.Option(min=1, help="Most to list, oldest first")] = 100,
    as_json: AsJson = False,
) -> None:
    """List dead letters, those that died first at the top."""
    with Client() as client:
        records = client.dead_letters.records(limit=limit)
    if as_json:
        for record in records:
            print_json(record_fields(record))
    else:
        print_columns(COLUMNS, map(_row, records))


@app.command()
def show(job_id: str, as_json: AsJson = False) -> None:
    """Show all that is known of a dead letter, its message included."""
    with Client() as client:
        if job_id not in client.dead_letters.ids(limit=1_000_000):
            raise JobNotFoundError(f"{job_id} is not a dead letter")
        record = client.status(job_id)
    fields = record_fields(record)
    if as_json:
        print_json({**fields, "message": json.loads(record.message)})
    else:
        print_fields({**fields, "message": record.message})


@app.command()
def replay(job_id: SomeIds = None, every: All = False) -> None:
    """Run dead letters again, as if they had never run."""
    with Client() as client:
        for one in _chosen(client, job_id, every=every):
            client.dead_letters.replay(one)
            typer.echo(f"{one} pending")


@app.command()
def purge(job_id: SomeIds = None, every: All = False) -> None:
    """Drop dead letters for good."""
    with Client() as client:
        for one in _chosen(client, job_id, every=every):
            client.dead_letters.purge(one)
            typer.echo(f"{one} purged")


def _chosen(client: Client, job_ids: list[str] | None, *, every: bool) -> list[str]:
    if bool(job_ids) == every:
        raise InvalidMessageError("name the jobs, or add --all")
    return job_ids or client.dead_letters.ids(limit=1_000_000)


def _row(record: Record) -> tuple[object, ...]:
    died = instant(record.finished_at)
    reason = record.last_death
    return record.job_id, died, record.deaths, record.images, record.tenant, reason
