"""The command ``labelyard prior``."""

from pathlib import Path
from typing import Annotated, Final

import typer

from labelyard.cli.label_set_argument import SetName
from labelyard.cli.option_group import with_options
from labelyard.cli.output import print_json
from labelyard.cli.set_scoring import ScoringClient, ScoringOptions, VersionOptions
from labelyard.cli.tables import Column, print_columns
from labelyard.cli.words import plural
from labelyard.evaluation.adapting import AdaptedSet

Shares = Annotated[
    Path | None,
    typer.Option("--shares", metavar="FILE", help='Expected shares: {"cat": 0.7, "dog": 0.3}'),
]
Sample = Annotated[
    str | None,
    typer.Option(
        "--sample",
        metavar="MANIFEST_OR_RUN",
        help="Pictures as they come in use; lines need no label. Of a run: its id or its prefix",
    ),
]
SampleSplit = Annotated[
    str | None,
    typer.Option("--split", help="Lines to take; calibration if there are such, else all lines"),
]
COLUMNS: Final = (
    Column("label"),
    Column("bias", is_right=True),
    Column("expected", is_right=True),
    Column("mean score", is_right=True),
    Column("now", is_right=True),
)


@with_options
def prior(
    label_set: SetName,
    shares: Shares = None,
    sample: Sample = None,
    *,
    version: VersionOptions,
    split: SampleSplit = None,
    options: ScoringOptions,
) -> None:
    """Give each label a bias for where the set is used, and register the new version."""
    with ScoringClient(options, note=version.note) as client:
        found = client.adapt(
            label_set, shares=shares, sample=sample, name=version.name, split=split
        )
    if options.as_json:
        print_json(found.report())
    else:
        _print_adapted(found)


def _print_adapted(found: AdaptedSet) -> None:
    rows = []
    for label, bias in found.bias.items():
        expected = found.shares and found.shares[label]
        means = found.mean_scores.get(label, (None, None))
        cells = ("–" if one is None else f"{one:.3f}" for one in (expected, *means))
        rows.append((label, f"{bias:+.2f}", *cells))
    print_columns(COLUMNS, rows)
    if found.accuracy is not None:
        before, after = found.accuracy
        typer.echo(
            f"accuracy {before:.3f}, now {after:.3f}; {plural(found.labelled, 'labelled picture')}"
        )
    typer.echo(found.reference)
