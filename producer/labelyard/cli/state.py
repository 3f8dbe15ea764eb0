"""Commands that print the state of jobs and of the service, and the contract's schemas."""

from typing import Annotated, Literal

import typer

from labelyard.cli.inputs import AsJson
from labelyard.cli.output import (
    known_fields,
    print_diagnosis,
    print_fields,
    print_json,
    record_fields,
)
from labelyard.cli.service_advice import advise
from labelyard.cli.service_page import page_lines
from labelyard.cli.service_state import read_service
from labelyard.cli.tables import print_lines, terminal_width
from labelyard.client import Client
from labelyard.diagnosis import Situation, diagnose
from labelyard.schemas import schema_text


def status(
    job_id: Annotated[list[str] | None, typer.Argument(metavar="[JOB_ID...]")] = None,
    as_json: AsJson = False,
) -> None:
    """Show the state of jobs or, without an id, of the service as a whole."""
    with Client() as client:
        if job_id:
            described = [record_fields(client.status(one)) for one in job_id]
        else:
            state = read_service(client)
    if job_id:
        for fields in described:
            if as_json:
                print_json(fields)
            else:
                print_fields(known_fields(fields))
        return
    if as_json:
        print_json({**state.fields(), "advice": advise(state)})
    else:
        print_lines(page_lines(state, width=terminal_width()))
    if not state.is_reached:
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
