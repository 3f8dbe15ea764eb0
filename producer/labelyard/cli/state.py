"""Commands that print the state of jobs and of the service, and the contract's schemas."""

from collections.abc import Callable
from typing import Annotated, Any, Literal

import typer

from labelyard.cli.inputs import AsJson
from labelyard.cli.output import print_diagnosis, print_fields, print_json, record_fields
from labelyard.client import Client
from labelyard.diagnosis import Situation, diagnose
from labelyard.errors import LabelyardError
from labelyard.schemas import schema_text

SOUND = "ok"


def status(
    job_id: Annotated[list[str] | None, typer.Argument(metavar="[JOB_ID...]")] = None,
    as_json: AsJson = False,
) -> None:
    """Show the state of jobs or, without an id, of the service as a whole."""
    with Client() as client:
        described = [record_fields(client.status(one)) for one in job_id or ()]
        if not job_id:
            described = [_service(client)]
    for fields in described:
        (print_json if as_json else print_fields)(fields)
    if not job_id and (described[0]["ledger"], described[0]["broker"]) != (SOUND, SOUND):
        raise typer.Exit(3)


def why(job_id: str, as_json: AsJson = False) -> None:
    """Find out where a job is, why it is not final, and what to do about it."""
    diagnosis = diagnose(job_id)
    if as_json:
        print_json(diagnosis.fields())
    else:
        print_diagnosis(diagnosis)
    if diagnosis.situation is Situation.UNKNOWN:
        raise typer.Exit(1)


def schema(message: Annotated[Literal["job", "result"], typer.Argument()]) -> None:
    """Print the JSON Schema of a message."""
    typer.echo(schema_text(message), nl=False)


def _service(client: Client) -> dict[str, Any]:
    """Describe the service as far as it can be reached."""
    ledger: dict[str, Any] = {"ledger": SOUND}
    broker: dict[str, Any] = {"broker": SOUND}
    ledger |= _asked("ledger", lambda: _ledger_figures(client))
    broker |= _asked("broker", lambda: {"queues": client.queue_lengths()})
    return {**ledger, **broker}


def _asked(server: str, ask: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    try:
        return ask()
    except LabelyardError as error:
        return {server: str(error)}


def _ledger_figures(client: Client) -> dict[str, Any]:
    return {
        "open_images": client.open_images(),
        "totals": client.totals(),
        "dead_letters": len(client.dead_letters.ids(limit=1_000_000)),
        "set_aside": client.set_aside.count(),
        "set_aside_dropped": client.set_aside.dropped(),
        "deliveries": client.deliveries(),
    }
