"""The command that prints events: the newest ones, or those of a group as they come."""

from collections.abc import Iterable
from contextlib import suppress
from typing import Annotated, Any, Final, TypeAlias, cast

import typer

from labelyard.cli.inputs import AsJson
from labelyard.cli.interrupts import lasting_interrupts
from labelyard.cli.output import instant, print_json
from labelyard.cli.tables import Column, print_columns
from labelyard.client import Client
from labelyard.errors import EventGroupNotFoundError, InvalidMessageError
from labelyard.events.models import EventContent, EventKind, GapContent
from labelyard.events.options import EventOptions, GroupStart, filter_json, new_consumer_name
from labelyard.events.recent import MOST

COLUMNS: Final = (
    Column("at", rank=2),
    Column("kind", rank=4),
    Column("id"),
    Column("state"),
    Column("images", is_right=True, rank=3),
    Column("tenant", rank=1),
)
Item: TypeAlias = EventContent | GapContent

Group = Annotated[
    str | None,
    typer.Option("--group", metavar="NAME", help="Read as a consumer of this group"),
]
Follow = Annotated[bool, typer.Option("--follow", "-f", help="Print events as they come")]
From = Annotated[GroupStart, typer.Option("--from", help="Where a group begins that is new")]
Tenants = Annotated[
    list[str] | None, typer.Option("--tenant", help="Only this tenant's events; repeat it for more")
]
Kinds = Annotated[
    list[str] | None,
    typer.Option("--kind", help="Only events of job, run or shard; repeat it for more"),
]
Tags = Annotated[
    list[str] | None, typer.Option("--tag", help="Only events of jobs with this tag; repeat it")
]
Limit = Annotated[
    int, typer.Option("--limit", min=1, max=MOST, help="Newest events to print without a group")
]


def events(
    group: Group = None,
    follow: Follow = False,
    start: From = "new",
    tenant: Tenants = None,
    kind: Kinds = None,
    tag: Tags = None,
    limit: Limit = 100,
    as_json: AsJson = False,
) -> None:
    """Print events of jobs, runs and shards that became final.

    With a group, what is printed is acknowledged, and the next call goes on behind it.
    """
    where: EventOptions = {}
    if tenant:
        where["tenants"] = tenant
    if kind:
        where["kinds"] = as_kinds(kind)
    if tag:
        where["tags"] = tag
    with Client() as client, lasting_interrupts():
        if group is not None:
            options: EventOptions = {
                **where,
                "start": start,
                "timeout_s": None if follow else 0.0,
            }
            print_stream(client.events(group, **options), as_json=as_json)
            return
        if start != "new":
            raise InvalidMessageError("--from: is for --group")
        recent = print_recent(client, where, limit=limit, as_json=as_json)
        if follow:
            follow_all(client, where, after=recent, as_json=as_json)


def as_kinds(kinds: list[str]) -> list[EventKind]:
    """Check kinds of events that were written as text.

    Raises:
        InvalidMessageError: One of them does not exist.
    """
    filter_json(tenants=None, kinds=kinds, tags=None)
    return cast("list[EventKind]", kinds)


def print_recent(client: Client, where: EventOptions, *, limit: int, as_json: bool) -> str:
    """Print the newest events; return the id of the last one, or nothing if there is none."""
    found = client.recent_events(limit=limit)
    shown = [event for event in found if is_wanted(event, where)]
    if as_json:
        for event in shown:
            print_json(event_json(event))
    elif shown:
        print_columns(COLUMNS, map(event_row, shown))
    return found[-1].event_id if found else ""


def follow_all(client: Client, where: EventOptions, *, after: str, as_json: bool) -> None:
    """Print events as they come, with a group that lives as long as the command."""
    group = f"command-{new_consumer_name()}"
    try:
        options: EventOptions = {**where, "after": after, "start": "new" if after else "oldest"}
        print_stream(client.events(group, **options), as_json=as_json)
    finally:
        with suppress(EventGroupNotFoundError):
            client.event_groups.delete(group)


def print_stream(stream: Iterable[Item], *, as_json: bool) -> None:
    """Print a line for each event and each gap."""
    for item in stream:
        if as_json:
            print_json(event_json(item))
        elif isinstance(item, GapContent):
            typer.echo(gap_sentence(item))
        else:
            typer.echo("  ".join(str(cell) for cell in event_row(item)))


def is_wanted(event: EventContent, where: EventOptions) -> bool:
    """Return whether the options let an event through."""
    chosen = (
        (event.tenant, where.get("tenants")),
        (event.kind, where.get("kinds")),
        (event.tag, where.get("tags")),
    )
    return all(names is None or name in names for name, names in chosen)


def event_row(event: EventContent) -> tuple[object, ...]:
    """Describe an event in the columns of the table."""
    at = instant(event.at)
    return at, event.kind, event.id, event.state, event.images or "", event.tenant


def gap_sentence(gap: GapContent) -> str:
    """Describe a gap for a person."""
    number = "an unknown number of" if gap.lost is None else f"{gap.lost}"
    why = {
        "trimmed": "the stream keeps no more",
        "stream_lost": "the ledger lost its data",
    }[gap.reason]
    return f"GAP: {number} events are lost, {instant(gap.since)} to {instant(gap.until)}: {why}"


def event_json(item: Item) -> dict[str, Any]:
    """Describe an event or a gap for programs."""
    if isinstance(item, GapContent):
        return {
            "kind": item.kind,
            "reason": item.reason,
            "lost": item.lost,
            "after_id": item.after_id,
            "before_id": item.before_id,
            "since": instant(item.since),
            "until": instant(item.until),
        }
    result = item.result
    return {
        "kind": item.kind,
        "event_id": item.event_id,
        "id": item.id,
        "state": item.state,
        "tenant": item.tenant,
        "at": instant(item.at),
        "tag": item.tag or None,
        "parent": item.parent or None,
        "uri": item.uri or None,
        "images": item.images,
        "deliveries": item.deliveries,
        "result": None if result is None else result.model_dump(mode="json"),
        "summary": item.summary,
        "result_bytes": item.result_bytes,
    }
