"""Commands for groups that read the event stream."""

import time
from typing import Annotated, Any, Final

import typer

from labelyard.cli.events import From, Kinds, Tags, Tenants, as_kinds, gap_sentence
from labelyard.cli.inputs import AsJson
from labelyard.cli.output import instant, print_json
from labelyard.cli.tables import Column, print_columns
from labelyard.cli.words import ago
from labelyard.client import Client
from labelyard.events.groups import EventGroup

app: typer.Typer = typer.Typer(
    help="Groups that read the event stream.", no_args_is_help=True, rich_markup_mode=None
)

COLUMNS: Final = (
    Column("group"),
    Column("waiting", is_right=True),
    Column("pending", is_right=True),
    Column("consumers", is_right=True, rank=2),
    Column("last used", rank=1),
    Column("filter", rank=3, is_sentence=True),
)
Name = Annotated[str, typer.Argument(metavar="GROUP")]


@app.command("list")
def list_groups(as_json: AsJson = False) -> None:
    """List the groups, with the events that wait and those that are not acknowledged yet."""
    with Client() as client:
        groups = client.event_groups.list()
    if as_json:
        for group in groups:
            print_json(_fields(group))
        return
    if groups:
        now = time.time()
        print_columns(COLUMNS, (_row(group, now=now) for group in groups))
    for group in groups:
        if group.gap is not None:
            typer.echo(f"{group.name}: {gap_sentence(group.gap)}", err=True)


@app.command()
def create(
    group: Name, start: From = "new", tenant: Tenants = None, kind: Kinds = None, tag: Tags = None
) -> None:
    """Make a group before its first consumer comes; one that exists is left as it is."""
    with Client() as client:
        kinds = as_kinds(kind) if kind else None
        client.event_groups.create(
            group, start=start, tenants=tenant or None, kinds=kinds, tags=tag or None
        )
    typer.echo(f"{group} created")


@app.command()
def delete(group: Name) -> None:
    """Delete a group, with its position and its pending events."""
    with Client() as client:
        client.event_groups.delete(group)
    typer.echo(f"{group} deleted")


def _fields(group: EventGroup) -> dict[str, Any]:
    gap = group.gap
    return {
        "group": group.name,
        "waiting": group.waiting,
        "pending": group.pending,
        "consumers": group.consumers,
        "position": group.position,
        "filter": {name: list(values) for name, values in group.where.items()},
        "created_at": instant(group.created_at),
        "used_at": instant(group.used_at),
        "gap": None if gap is None else {"reason": gap.reason, "lost": gap.lost},
    }


def _row(group: EventGroup, *, now: float) -> tuple[object, ...]:
    where = "; ".join(f"{name} {', '.join(values)}" for name, values in group.where.items())
    used = ago(max(0.0, now - group.used_at))
    return group.name, group.waiting, group.pending, group.consumers, used, where
