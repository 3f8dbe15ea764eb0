"""Commands for webhooks that have not arrived, and a receiver for development."""

import os
from typing import Annotated, Any, Final

import typer

from labelyard.cli.inputs import AsJson
from labelyard.cli.listing import MOST, OfTenant, Since
from labelyard.cli.output import instant, print_json
from labelyard.cli.tables import Column, print_columns
from labelyard.cli.webhook_listening import listen_for_webhooks
from labelyard.cli.words import count, read_since
from labelyard.client import Client
from labelyard.diagnosis.phrases import count_of
from labelyard.errors import InvalidMessageError
from labelyard.ledger.undelivered import (
    DeliveryKind,
    UndeliveredList,
    UndeliveredResult,
    UndeliveredState,
)
from labelyard.webhooks.listener import ListenerOptions

app: typer.Typer = typer.Typer(
    help="Webhooks that have not arrived, and a receiver for development.",
    no_args_is_help=True,
    rich_markup_mode=None,
)

COLUMNS: Final = (
    Column("job"),
    Column("state"),
    Column("host", rank=1),
    Column("tenant", rank=3),
    Column("attempts", is_right=True, rank=2),
    Column("finished", rank=5),
    Column("next try", rank=4),
    Column("reason", is_sentence=True),
)
OfState = Annotated[
    UndeliveredState | None,
    typer.Option("--state", help="pending (not tried yet), failed (tried again) or dead"),
]
OfHost = Annotated[
    str | None, typer.Option("--host", help="Only this receiver's, or s3://bucket of an object")
]
OfKind = Annotated[DeliveryKind, typer.Option("--kind", help="Webhooks, or objects")]
SomeIds = Annotated[list[str] | None, typer.Argument(metavar="[JOB_ID...]")]


@app.command("list")
def list_webhooks(
    state: OfState = None,
    tenant: OfTenant = None,
    host: OfHost = None,
    since: Since = None,
    kind: OfKind = "webhook",
    limit: Annotated[int, typer.Option("--limit", min=1, max=MOST, help="Most to list")] = 100,
    as_json: AsJson = False,
) -> None:
    """List webhooks that have not arrived.

    The newest dead letters come first, then those that are due soonest. --since selects those
    whose job finished since then.
    """
    earliest = None if since is None else read_since(since)
    with Client() as client:
        found = client.webhooks.list(
            state=state, tenant=tenant, host=host, since=earliest, kind=kind, limit=limit
        )
    if as_json:
        for one in found.deliveries:
            print_json(webhook_fields(one))
    elif found.deliveries:
        print_columns(COLUMNS, map(_row, found.deliveries))
    if note := note_on(found, limit=limit):
        typer.echo(note, err=True)


@app.command()
def replay(
    job_id: SomeIds = None,
    every: Annotated[bool, typer.Option("--all", help="All in --state that match")] = False,
    state: OfState = None,
    tenant: OfTenant = None,
    host: OfHost = None,
    since: Since = None,
    kind: OfKind = "webhook",
) -> None:
    """Have webhooks called now.

    They are retried for another day, as those of new results. --all takes the dead letters; with --state failed, those that wait for their next try.
    """
    conditions = {"state": state, "tenant": tenant, "host": host, "since": since}
    _check_choice(job_id, every=every, conditions=conditions)
    earliest = None if since is None else read_since(since)
    with Client() as client:
        for one in job_id or ():
            client.webhooks.replay(one, kind=kind)
            typer.echo(f"{one} pending")
        if every:
            number = client.webhooks.replay_all(
                state=state or "dead", tenant=tenant, host=host, since=earliest, kind=kind
            )
            typer.echo(f"{count_of(number, kind)} pending")


@app.command()
def purge(
    job_id: SomeIds = None,
    every: Annotated[bool, typer.Option("--all", help="All dead letters that match")] = False,
    tenant: OfTenant = None,
    host: OfHost = None,
    since: Since = None,
    kind: OfKind = "webhook",
) -> None:
    """Drop dead letters for good.

    The results of their jobs stay readable for LABELYARD_RESULT_TTL_S.
    """
    _check_choice(job_id, every=every, conditions={"tenant": tenant, "host": host, "since": since})
    earliest = None if since is None else read_since(since)
    with Client() as client:
        for one in job_id or ():
            client.webhooks.purge(one)
            typer.echo(f"{one} purged")
        if every:
            number = client.webhooks.purge_all(tenant=tenant, host=host, since=earliest, kind=kind)
            typer.echo(f"{count_of(number, kind)} purged")


@app.command()
def listen(
    port: Annotated[
        int, typer.Option("--port", min=0, max=65535, help="Port; 0 takes a free one")
    ] = 8400,
    host: Annotated[str, typer.Option("--host", help="Address to listen on")] = "127.0.0.1",
    secret: Annotated[
        str | None,
        typer.Option(
            "--secret",
            help="whsec_…; better in LABELYARD_WEBHOOK_SECRET, since other users of the machine "
            "see arguments. Without either a new one is drawn and printed.",
        ),
    ] = None,
    forward: Annotated[
        str | None,
        typer.Option(
            "--forward", metavar="URL", help="Pass verified webhooks on, and its answer back"
        ),
    ] = None,
    fail: Annotated[
        int, typer.Option("--fail", min=0, metavar="N", help="Answer the first N with --status")
    ] = 0,
    status: Annotated[
        int,
        typer.Option("--status", min=300, max=599, help="Status of answers that fail on purpose"),
    ] = 503,
    as_json: AsJson = False,
) -> None:
    """Receive webhooks on this machine.

    Each is verified and printed as a line, until Ctrl-C. What is not verified is answered with 400.
    """
    options = ListenerOptions(
        host=host, port=port, forward=forward, failures=fail, failure_status=status
    )
    listen_for_webhooks(
        options,
        secret=secret or os.environ.get("LABELYARD_WEBHOOK_SECRET") or None,
        as_json=as_json,
    )


def note_on(found: UndeliveredList, *, limit: int) -> str:
    """Return a sentence on deliveries that the list may lack; empty if it is complete."""
    if found.is_cut:
        return (
            f"The search ended after {count(found.examined)} jobs, and others may match: narrow it "
            "with --state, or look again with other conditions."
        )
    if len(found.deliveries) == limit:
        return f"These are the first {count(limit)}; --limit shows more."
    return "" if found.deliveries else "No delivery matches."


def webhook_fields(one: UndeliveredResult) -> dict[str, Any]:
    """Describe a delivery for programs."""
    return {
        "job_id": one.job_id,
        "kind": one.kind,
        "state": one.state,
        "tenant": one.tenant,
        "host": one.host,
        "attempts": one.attempts,
        "reason": one.reason,
        "finished_at": instant(one.finished_at),
        "next_try_at": instant(one.next_try_at),
        "died_at": instant(one.died_at),
        "webhook_id": one.webhook_id,
    }


def _check_choice(job_ids: list[str] | None, *, every: bool, conditions: dict[str, Any]) -> None:
    if bool(job_ids) == every:
        raise InvalidMessageError("name the jobs, or add --all")
    if job_ids and (given := [name for name, value in conditions.items() if value is not None]):
        raise InvalidMessageError(f"--{given[0]} goes with --all, not with the ids of jobs")


def _row(one: UndeliveredResult) -> tuple[object, ...]:
    finished, next_try = instant(one.finished_at), instant(one.next_try_at)
    return (
        one.job_id,
        one.state,
        one.host,
        one.tenant,
        one.attempts,
        finished,
        next_try or "",
        one.reason,
    )
