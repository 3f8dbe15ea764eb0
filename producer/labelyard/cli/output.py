"""Output of the commands: tables for people, a JSON object a line for programs."""

import json
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from labelyard.cli.tables import pair_lines, print_lines
from labelyard.diagnosis import Diagnosis
from labelyard.errors import LabelyardError
from labelyard.hierarchy import ARROW, show_path
from labelyard.ledger import DeliveryState, Record
from labelyard.messages import ImageResult, Result


def print_json(fields: dict[str, Any]) -> None:
    """Print one JSON object on one line."""
    typer.echo(json.dumps(fields, ensure_ascii=False))


def print_error(error: LabelyardError) -> None:
    """Print one line on standard error."""
    typer.echo(str(error), err=True)


def print_result(result: Result) -> None:
    """Print a table for each image."""
    console = Console()
    if result.error is not None:
        console.print(Text(f"{result.job_id}: {result.error.message}", style="red"))
    for image in result.images:
        console.print(image_table(image))


def image_table(image: ImageResult) -> Table:
    """Draw an image's labels, best first, with bars."""
    table = Table(title=Text(image.id, style="bold"), title_justify="left", box=None)
    if image.error is not None:
        table.add_column(Text(image.error.message, style="red"), no_wrap=False)
        return table
    table.add_column("label")
    table.add_column("score", justify="right")
    table.add_column("")
    for label in image.labels:
        style = "green" if label.name in image.matched else ""
        bar = "█" * round(20 * label.score)
        table.add_row(Text(label.name, style=style), f"{label.score:.3f}", Text(bar, style=style))
    for parent in image.parents:
        is_node = image.node is not None and image.node.path == parent.path
        style = "green" if is_node else "dim"
        name = Text(f"{show_path(parent.path)}{ARROW}…", style=style)
        bar = "█" * round(20 * parent.score)
        table.add_row(name, f"{parent.score:.3f}", Text(bar, style=style))
    if image.node is not None:
        answer = Text(f"= {show_path(image.node.path)}", style="bold")
        table.add_row(answer, f"{image.node.score:.3f}", "")
    if image.abstained:
        table.add_row(Text("none of these", style="yellow"), "", "")
    return table


def record_fields(record: Record) -> dict[str, Any]:
    """Describe a job's record, without its message and result."""
    return {
        "job_id": record.job_id,
        "state": record.state,
        "tenant": record.tenant,
        "queue": record.queue,
        "images": record.images,
        "submitted_at": instant(record.submitted_at),
        "finished_at": instant(record.finished_at),
        "attempts": record.attempts,
        "deaths": record.deaths,
        "last_death": record.last_death,
        "runner": record.runner,
        "undelivered": list(record.undelivered),
        "deliveries": {name: delivery_fields(one) for name, one in record.deliveries.items()},
    }


def delivery_fields(delivery: DeliveryState) -> dict[str, Any]:
    """Describe how one delivery of a result stands."""
    return {
        "state": delivery.state,
        "attempts": delivery.attempts,
        "reason": delivery.reason,
        "next_try_at": instant(delivery.next_try_at),
        "is_dead": delivery.is_dead,
    }


def print_fields(fields: dict[str, Any]) -> None:
    """Print names and values in two columns; a long value is not broken, so it can be copied."""
    print_lines(pair_lines(fields))


def print_diagnosis(diagnosis: Diagnosis) -> None:
    """Print the diagnosis of a job: the sentences first, then the facts that are not empty."""
    console = Console()
    console.print(Text(f"{diagnosis.job_id}: {diagnosis.situation}", style="bold"))
    for sentence in (diagnosis.summary, *diagnosis.advice):
        console.print(Text(sentence))
    shown = {"job_id", "situation", "summary", "advice"}
    facts = diagnosis.fields().items()
    print_fields(known_fields({name: value for name, value in facts if name not in shown}))


def known_fields(fields: Mapping[str, Any]) -> dict[str, Any]:
    """Return the fields that are not empty."""
    return {name: value for name, value in fields.items() if value not in (None, "", [], {})}


def instant(at: float | None) -> str | None:
    """Write seconds since the epoch for people and programs alike (RFC 3339)."""
    return None if at is None else datetime.fromtimestamp(at, UTC).isoformat(timespec="seconds")
