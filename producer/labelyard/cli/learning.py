"""The commands ``labelyard examples`` and ``labelyard calibrate``."""

from dataclasses import replace
from typing import Annotated, Final

import typer

from labelyard.cli.label_set_argument import SetName
from labelyard.cli.option_group import with_options
from labelyard.cli.output import print_json
from labelyard.cli.set_scoring import ManifestFile, NewName, Note, ScoringOptions, SetScoring
from labelyard.cli.tables import Column, print_columns
from labelyard.client import Client
from labelyard.evaluation.calibrating import Calibration, prepare_calibration
from labelyard.evaluation.example_store import read_example_digests, store_examples
from labelyard.evaluation.teaching import TaughtSet, prepare_teaching

TrainSplit = Annotated[str, typer.Option("--split", help="Lines that teach")]
CalibrationSplit = Annotated[str, typer.Option("--split", help="Lines to calibrate on")]
Precision = Annotated[
    float, typer.Option("--precision", help="Promised share of right answers among matched ones")
]
Confidence = Annotated[
    float, typer.Option("--confidence", help="Probability with which the promise holds")
]
COLUMNS: Final = (Column("label"), Column("answers", is_right=True), Column("verdict"))


@with_options
def examples(
    label_set: SetName,
    manifest: ManifestFile,
    name: NewName = None,
    note: Note = "",
    split: TrainSplit = "train",
    *,
    options: ScoringOptions,
) -> None:
    """Teach a label set with pictures, and register the new version."""
    with Client() as client:
        scorer = SetScoring(client, options)
        chosen = scorer.read(label_set)
        name = chosen.new_name(name)
        prepared = prepare_teaching(chosen.label_set, manifest, split=split)
        taught = prepared.teach(scorer.score(prepared), client.settings)
        store_examples(taught.body, client.settings)
        reference = client.label_sets.register(
            name, taught.label_set, parent=chosen.reference, note=note or taught.note
        )
        taught = replace(taught, reference=reference)
    if options.as_json:
        print_json(taught.report())
    else:
        _print_taught(taught)


@with_options
def calibrate(
    label_set: SetName,
    manifest: ManifestFile,
    precision: Precision,
    confidence: Confidence = 0.9,
    name: NewName = None,
    note: Note = "",
    split: CalibrationSplit = "calibration",
    *,
    options: ScoringOptions,
) -> None:
    """Fit temperature and thresholds for a promised precision, and register the new version."""
    with Client() as client:
        scorer = SetScoring(client, options)
        chosen = scorer.read(label_set)
        name = chosen.new_name(name)
        prepared = prepare_calibration(
            chosen.label_set,
            manifest,
            reference=chosen.reference,
            split=split,
            precision=precision,
            confidence=confidence,
            examples=read_example_digests(chosen.label_set, client.settings),
        )
        found = prepared.calibrate(scorer.score(prepared))
        reference = client.label_sets.register(
            name, found.label_set, parent=chosen.reference, note=note or found.note
        )
        found = replace(found, reference=reference)
    if options.as_json:
        print_json(found.report())
    else:
        _print_calibration(found)


def _print_taught(taught: TaughtSet) -> None:
    counts = taught.examples.counts
    typer.echo(f"{sum(counts.values())} pictures teach {len(counts)} labels")
    if taught.skipped:
        typer.echo(f"{taught.skipped} lines teach nothing: no label, several, or a picture twice")
    typer.echo(taught.reference)


def _print_calibration(found: Calibration) -> None:
    typer.echo(
        f"calibration error {found.ece[0]:.3f}, now {found.ece[1]:.3f}; "
        f"temperature {found.label_set.temperature:.3f}; {found.n} pictures"
    )
    print_columns(COLUMNS, [(one.name, str(one.answered), one.verdict) for one in found.labels])
    typer.echo(found.reference)
