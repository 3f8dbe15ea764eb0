"""Commands for label sets that jobs refer to by name."""

from pathlib import Path
from typing import Annotated, Final

import typer

from labelyard.cli import answers, label_set_versions
from labelyard.cli.inputs import AsJson
from labelyard.cli.label_options import LABELS_FILE_HELP, read_label_set
from labelyard.cli.label_set_versions import Author, Note, user
from labelyard.cli.output import print_json
from labelyard.cli.removal import for_each
from labelyard.cli.tables import Column, print_columns
from labelyard.client import Client
from labelyard.errors import InvalidMessageError

app: typer.Typer = typer.Typer(
    help="Label sets that jobs refer to by name.", no_args_is_help=True, rich_markup_mode=None
)

COLUMNS: Final = (Column("name", rank=1), Column("reference"))
Parent = Annotated[
    str | None, typer.Option("--parent", help="Version that it was made from, for log")
]
References = Annotated[list[str], typer.Argument(metavar="REFERENCE...", help="name@sha256:…")]


@app.command()
def register(
    name: str,
    file: Annotated[Path, typer.Argument(help=LABELS_FILE_HELP)],
    parent: Parent = None,
    author: Author = None,
    note: Note = "",
    as_json: AsJson = False,
) -> None:
    """Keep a label set under a name, and print the reference to give to --labels."""
    label_set = read_label_set(file)
    with Client() as client:
        reference = client.label_sets.register(
            name,
            label_set,
            parent=parent and client.label_sets.resolve(parent),
            author=user() if author is None else author,
            note=note,
        )
    if as_json:
        print_json({"reference": reference})
    else:
        typer.echo(reference)


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
        print_columns(COLUMNS, versions)


@app.command()
def show(reference: str) -> None:
    """Print a label set as JSON, by its reference, an alias or, for the newest, by its name."""
    with Client() as client:
        label_set = client.label_sets.get(client.label_sets.resolve(reference))
        typer.echo(label_set.model_dump_json(exclude_defaults=True))


@app.command()
def delete(reference: References, as_json: AsJson = False) -> None:
    """Delete versions of label sets; jobs that still refer to one fail."""
    for one in reference:
        if "@" not in one:
            raise InvalidMessageError(
                f"{one} names no version: `labelyard label-sets list` has the references"
            )
    with Client() as client:

        def delete_one(one: str) -> bool:
            client.label_sets.delete(one)
            if as_json:
                print_json({"reference": one, "deleted": True})
            else:
                typer.echo(f"{one} deleted")
            return True

        for_each(reference, delete_one)


app.command()(label_set_versions.log)
app.command()(label_set_versions.diff)
app.command()(label_set_versions.promote)
app.command()(label_set_versions.aliases)
app.command()(label_set_versions.moves)
app.command()(label_set_versions.remove_alias)
app.command()(label_set_versions.attach)
app.command()(answers.canary)
