"""Commands for label sets that jobs refer to by name."""

from pathlib import Path
from typing import Annotated

import typer

from labelyard.cli.inputs import AsJson, read_label_set
from labelyard.cli.output import print_json, print_table
from labelyard.client import Client
from labelyard.errors import UnknownLabelSetError

app: typer.Typer = typer.Typer(
    help="Label sets that jobs refer to by name.", no_args_is_help=True, rich_markup_mode=None
)


@app.command()
def register(
    name: str,
    file: Annotated[Path, typer.Argument(help="A label a line, or a label set as JSON (.json)")],
) -> None:
    """Keep a label set under a name, and print the reference to give to --labels."""
    label_set = read_label_set(file)
    with Client() as client:
        typer.echo(client.label_sets.register(name, label_set))


@app.command("list")
def list_sets(as_json: AsJson = False) -> None:
    """List the registered label sets: each version, the newest last."""
    with Client() as client:
        names = client.label_sets.names()
        versions = [(name, ref) for name in names for ref in client.label_sets.versions(name)]
    if as_json:
        for name, reference in versions:
            print_json({"name": name, "reference": reference})
    else:
        print_table(("name", "reference"), versions)


@app.command()
def show(reference: str) -> None:
    """Print a label set as JSON, by its reference or, for the newest, by its name."""
    with Client() as client:
        if "@" not in reference:
            versions = client.label_sets.versions(reference)
            if not versions:
                raise UnknownLabelSetError(reference)
            reference = versions[-1]
        typer.echo(client.label_sets.get(reference).model_dump_json(exclude_defaults=True))
