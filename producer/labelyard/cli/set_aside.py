"""Commands for messages that workers set aside because they are not plain calls of our tasks."""

import base64
from typing import Annotated, Any, Final

import typer

from labelyard.cli.inputs import AsJson
from labelyard.cli.output import instant, print_fields, print_json
from labelyard.cli.tables import Column, print_columns
from labelyard.client import Client
from labelyard.errors import InvalidMessageError
from labelyard.ledger.set_aside import MAX_ENTRIES, SetAsideMessage

app: typer.Typer = typer.Typer(
    help="Messages that no worker could run.", no_args_is_help=True, rich_markup_mode=None
)

COLUMNS: Final = (
    Column("id"),
    Column("at", rank=2),
    Column("queue", rank=1),
    Column("job", rank=3),
    Column("bytes", is_right=True, rank=4),
    Column("reason", is_sentence=True),
)
SomeIds = Annotated[list[str] | None, typer.Argument(metavar="[ID...]")]
All = Annotated[bool, typer.Option("--all", help="All messages that were set aside")]


@app.command("list")
def list_messages(
    limit: Annotated[int, typer.Option(min=1, help="Most to list, newest first")] = 100,
    as_json: AsJson = False,
) -> None:
    """List the messages that were set aside, the newest first."""
    with Client() as client:
        messages = client.set_aside.messages(limit=limit)
    if as_json:
        for message in messages:
            print_json(_fields(message))
    else:
        print_columns(COLUMNS, map(_row, messages))


@app.command()
def show(message_id: Annotated[str, typer.Argument(metavar="ID")], as_json: AsJson = False) -> None:
    """Show a message with its content, which may hold labels and addresses."""
    with Client() as client:
        message = client.set_aside.find(message_id)
    if as_json:
        print_json({**_fields(message), "raw_base64": base64.b64encode(message.raw).decode()})
    else:
        print_fields({**_fields(message), "raw": message.raw.decode("utf-8", "backslashreplace")})


@app.command()
def replay(message_id: SomeIds = None, every: All = False) -> None:
    """Send messages again to the queues that brought them, for example after an upgrade."""
    with Client() as client:
        for one in _chosen(client, message_id, every=every):
            client.set_aside.replay(one)
            typer.echo(f"{one} sent")


@app.command()
def purge(message_id: SomeIds = None, every: All = False) -> None:
    """Drop messages for good."""
    with Client() as client:
        for one in client.set_aside.remove(_chosen(client, message_id, every=every)):
            typer.echo(f"{one} purged")


def _chosen(client: Client, ids: list[str] | None, *, every: bool) -> list[str]:
    if bool(ids) == every:
        raise InvalidMessageError("name the messages, or add --all")
    return ids or [message.id for message in client.set_aside.messages(limit=MAX_ENTRIES)]


def _fields(message: SetAsideMessage) -> dict[str, Any]:
    return {
        "id": message.id,
        "reason": message.reason,
        "queue": message.queue,
        "job_id": message.job_id,
        "size_bytes": message.size_bytes,
        "kept_bytes": len(message.raw),
        "at": instant(message.at),
    }


def _row(message: SetAsideMessage) -> tuple[object, ...]:
    at, size = instant(message.at), message.size_bytes
    return message.id, at, message.queue, message.job_id, size, message.reason
