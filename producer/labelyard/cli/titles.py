"""The command ``labelyard titles``."""

from typing import Annotated

import typer

from labelyard.cli.label_set_argument import SetName
from labelyard.cli.option_group import with_options
from labelyard.cli.output import print_json
from labelyard.cli.set_scoring import ManifestFile, ScoringClient, ScoringOptions, VersionOptions
from labelyard.cli.words import plural
from labelyard.evaluation.titling import TitledSet

TitleSplit = Annotated[str, typer.Option("--split", help="Lines to fit the weights to")]


@with_options
def titles(
    label_set: SetName,
    manifest: ManifestFile,
    *,
    version: VersionOptions,
    split: TitleSplit = "train",
    options: ScoringOptions,
) -> None:
    """Fit how much the text beside a picture counts, and register the new version."""
    with ScoringClient(options, note=version.note) as client:
        found = client.read_titles(label_set, manifest, name=version.name, split=split)
    if options.as_json:
        print_json(found.report())
    else:
        _print_titled(found)


def _print_titled(found: TitledSet) -> None:
    picture, title, both = found.fitted.accuracies
    typer.echo(
        f"accuracy by pictures {picture:.3f}, by titles {title:.3f}, by both {both:.3f}; "
        f"{plural(found.n, 'picture')}"
    )
    if not found.helps:
        typer.echo("titles do not make scores better, and are not used")
    typer.echo(found.reference)
