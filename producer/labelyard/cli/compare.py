"""The command ``labelyard compare``."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from labelyard.cli.evaluate import figures_line, raise_failures, shown
from labelyard.cli.label_set_argument import SET_HELP
from labelyard.cli.option_group import with_options
from labelyard.cli.output import print_json
from labelyard.cli.set_scoring import (
    Folder,
    ManifestFile,
    NoPictures,
    ScoringClient,
    ScoringOptions,
    Split,
)
from labelyard.cli.tables import Column, print_columns
from labelyard.evaluation.preparation import prepare_evaluation

if TYPE_CHECKING:
    from labelyard.evaluation.comparison import Comparison

FirstSet = Annotated[str, typer.Argument(metavar="SET_A", help=SET_HELP)]
SecondSet = Annotated[str, typer.Argument(metavar="SET_B", help="The set to compare it with")]
LISTED_LABELS: Final = 20
COLUMNS: Final = (
    Column("label"),
    Column("pictures", is_right=True),
    Column("recall of A", is_right=True),
    Column("recall of B", is_right=True),
    Column("precision of A", is_right=True, rank=1),
    Column("precision of B", is_right=True, rank=1),
)


@with_options
def compare(
    set_a: FirstSet,
    set_b: SecondSet,
    manifest: ManifestFile,
    split: Split = None,
    output: Folder = Path("comparison"),
    no_pictures: NoPictures = False,
    *,
    options: ScoringOptions,
) -> None:
    """Compare two label sets on the same labelled pictures: flips, significance, labels."""
    with ScoringClient(options) as client:
        prepared = [
            prepare_evaluation(one.label_set, manifest, reference=one.reference, split=split)
            for one in (client.read_set(set_a), client.read_set(set_b))
        ]
        addresses = client.upload(prepared[0].files)
        first, second = (one.measure(client.score(one, addresses)) for one in prepared)
    from labelyard.evaluation.comparison import compare_evaluations  # it needs numpy

    comparison = compare_evaluations(first, second)
    folder = comparison.write(output, has_thumbnails=not no_pictures)
    if options.as_json:
        print_json({**comparison.report(), "folder": str(folder)})
    else:
        _print_comparison(comparison, folder)
    for evaluation in (first, second):
        raise_failures(evaluation)


def _print_comparison(comparison: "Comparison", folder: Path) -> None:
    _, only_first, only_second, _ = comparison.right
    typer.echo(f"A: {figures_line(comparison.first.figures)}")
    typer.echo(f"B: {figures_line(comparison.second.figures)}")
    typer.echo(
        f"B has {only_second} right that A has wrong, and {only_first} wrong that A has right: "
        f"McNemar's p {comparison.mcnemar_p:.2g}"
    )
    rows: list[tuple[Any, ...]] = []
    for change in comparison.labels:
        fields = change.fields()
        before, after = fields["recall"]
        if before != after:
            cells = [shown(one) for one in (before, after, *fields["precision"])]
            rows.append((change.name, fields["n"], *cells))
    if rows:
        print_columns(COLUMNS, rows[:LISTED_LABELS])
    typer.echo(f"{folder}: report.html, report.json, flips.jsonl")
