"""The commands ``labelyard examples`` and ``labelyard calibrate``."""

from typing import TYPE_CHECKING, Annotated, Final

import typer

from labelyard.cli.label_set_argument import SetName
from labelyard.cli.option_group import with_options
from labelyard.cli.output import print_json
from labelyard.cli.set_scoring import ManifestFile, ScoringClient, ScoringOptions, VersionOptions
from labelyard.cli.tables import Column, print_columns
from labelyard.cli.words import plural
from labelyard.errors import InvalidMessageError
from labelyard.evaluation.calibrating import Calibration
from labelyard.evaluation.teaching import TaughtSet

if TYPE_CHECKING:
    from labelyard.evaluation.none_of_these import LimitChoice

TrainSplit = Annotated[str, typer.Option("--split", help="Lines that teach")]
CalibrationSplit = Annotated[str, typer.Option("--split", help="Lines to calibrate on")]
Precision = Annotated[
    float, typer.Option("--precision", help="Promised share of right answers among matched ones")
]
Confidence = Annotated[
    float, typer.Option("--confidence", help="Probability with which the promise holds")
]
NoneOfTheseBy = Annotated[
    str | None,
    typer.Option(
        "--none-of-these",
        metavar="labelled|SHARE",
        help="Reject pictures that fit no label: by pictures with label: null, or so that this "
        "share of those with a label stays",
    ),
]
COLUMNS: Final = (Column("label"), Column("answers", is_right=True), Column("verdict"))


@with_options
def examples(
    label_set: SetName,
    manifest: ManifestFile,
    *,
    version: VersionOptions,
    split: TrainSplit = "train",
    options: ScoringOptions,
) -> None:
    """Teach a label set with pictures, and register the new version."""
    with ScoringClient(options, note=version.note) as client:
        taught = client.teach(label_set, manifest, name=version.name, split=split)
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
    none_of_these: NoneOfTheseBy = None,
    *,
    version: VersionOptions,
    split: CalibrationSplit = "calibration",
    options: ScoringOptions,
) -> None:
    """Fit temperature and thresholds for a promised precision, and register the new version."""
    with ScoringClient(options, note=version.note) as client:
        found = client.calibrate(
            label_set,
            manifest,
            precision=precision,
            confidence=confidence,
            none_of_these=_as_choice(none_of_these),
            name=version.name,
            split=split,
        )
    if options.as_json:
        print_json(found.report())
    else:
        _print_calibration(found)


def _as_choice(text: str | None) -> "LimitChoice | None":
    """Read ``labelled`` or a share; the range of a share is checked by the calibration."""
    if text is None:
        return None
    if text == "labelled":
        return "labelled"
    try:
        return float(text)
    except ValueError:
        raise InvalidMessageError(
            f"--none-of-these {text}: write labelled, or a share such as 0.95"
        ) from None


def _print_taught(taught: TaughtSet) -> None:
    counts = taught.examples.counts
    pictures, verb = sum(counts.values()), "teach"
    if pictures == 1:
        verb = "teaches"
    typer.echo(f"{plural(pictures, 'picture')} {verb} {plural(len(counts), 'label')}")
    if taught.skipped:
        typer.echo(
            f"{plural(taught.skipped, 'line')} left out: no label, several, or a picture twice"
        )
    for name in taught.catch_all:
        typer.echo(f"{name}: its pictures have nothing in common, so it is what is near no other")
    typer.echo(taught.reference)


def _print_calibration(found: Calibration) -> None:
    typer.echo(
        f"calibration error {found.ece[0]:.3f}, now {found.ece[1]:.3f}; "
        f"temperature {found.label_set.temperature:.3f}; {plural(found.n, 'picture')}"
    )
    if found.repeated:
        typer.echo(f"{plural(found.repeated, 'line')} left out: a picture counts once")
    print_columns(COLUMNS, [(one.name, str(one.answered), one.verdict) for one in found.labels])
    if (limit := found.none_of_these) is not None:
        others = f", rejects {limit.rejected} of {limit.unknown} others" if limit.unknown else ""
        typer.echo(
            f"none of these below a fit of {limit.limit:.3f}: keeps {limit.kept} of {limit.known} "
            f"pictures with a label{others}"
        )
    typer.echo(found.reference)
