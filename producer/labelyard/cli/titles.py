"""The command ``labelyard titles``."""

from dataclasses import replace
from typing import Annotated

import typer

from labelyard.cli.label_set_argument import SetName
from labelyard.cli.option_group import with_options
from labelyard.cli.output import print_json
from labelyard.cli.set_scoring import ManifestFile, NewName, Note, ScoringOptions, SetScoring
from labelyard.client import Client
from labelyard.evaluation.example_store import read_example_digests
from labelyard.evaluation.titling import TitledSet, prepare_titling

TitleSplit = Annotated[str, typer.Option("--split", help="Lines to fit the weights to")]


@with_options
def titles(
    label_set: SetName,
    manifest: ManifestFile,
    name: NewName = None,
    note: Note = "",
    split: TitleSplit = "train",
    *,
    options: ScoringOptions,
) -> None:
    """Fit how much the text beside a picture counts, and register the new version."""
    with Client() as client:
        scorer = SetScoring(client, options)
        chosen = scorer.read(label_set)
        name = chosen.new_name(name)
        prepared = prepare_titling(
            chosen.label_set,
            manifest,
            reference=chosen.reference,
            split=split,
            examples=read_example_digests(chosen.label_set, client.settings),
        )
        by_picture = scorer.score(prepared)
        found = prepared.fit(by_picture, scorer.score(prepared.by_titles(by_picture)))
        reference = client.label_sets.register(
            name, found.label_set, parent=chosen.reference, note=note or found.note
        )
        found = replace(found, reference=reference)
    if options.as_json:
        print_json(found.report())
    else:
        _print_titled(found)


def _print_titled(found: TitledSet) -> None:
    picture, title, both = found.fitted.accuracies
    typer.echo(
        f"accuracy by pictures {picture:.3f}, by titles {title:.3f}, by both {both:.3f}; "
        f"{found.n} pictures"
    )
    if not found.helps:
        typer.echo("titles do not make scores better, and are not used")
    typer.echo(found.reference)
