"""The command ``labelyard evaluate``."""

from pathlib import Path
from typing import Annotated, Any, Final

import typer

from labelyard.cli.label_set_argument import SetName
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
from labelyard.cli.template_table import compare_templates, print_templates
from labelyard.cli.words import plural
from labelyard.command_group import EXIT_FAILED, CommandError
from labelyard.errors import InvalidMessageError
from labelyard.evaluation.evaluation import Evaluation
from labelyard.evaluation.figures import Figures
from labelyard.evaluation.preparation import prepare_evaluation
from labelyard.evaluation.scoring_run import check_run
from labelyard.evaluation.template_choice import TemplateChoice

Require = Annotated[
    list[str] | None,
    typer.Option("--require", help="Such as accuracy>=0.9; give it again for more"),
]
Attach = Annotated[
    bool, typer.Option("--attach", help="Attach the figures to the version, for label-sets log")
]
TemplatesFile = Annotated[
    Path | None,
    typer.Option(
        "--templates",
        metavar="FILE",
        help="Sentences with one {}, one a line: measure each, and write no report",
    ),
]
Out = Annotated[
    str | None,
    typer.Option(
        "--out",
        metavar="PREFIX",
        help="s3://bucket/prefix/: score by a bulk run with its files there, for large manifests",
    ),
]
#: Labels that the terminal lists; the files have all of them.
LISTED_LABELS: Final = 20
COLUMNS: Final = (
    Column("label"),
    Column("pictures", is_right=True),
    Column("precision", is_right=True),
    Column("recall", is_right=True),
    Column("average precision", is_right=True, rank=1),
)


@with_options
def evaluate(
    label_set: SetName,
    manifest: ManifestFile,
    split: Split = None,
    require: Require = None,
    output: Folder = Path("evaluation"),
    no_pictures: NoPictures = False,
    attach: Attach = False,
    templates: TemplatesFile = None,
    out: Out = None,
    *,
    options: ScoringOptions,
) -> None:
    """Measure a label set on labelled pictures, and write a report; exit code 1 if a requirement fails."""
    with ScoringClient(options) as client:
        chosen = client.read_set(label_set)
        if out is not None:
            check_run(chosen.labels, out, client.settings)
        if templates is not None:
            if out is not None:
                raise InvalidMessageError("--out does not go with --templates")
            choice = compare_templates(
                client, chosen.label_set, manifest, split=split, templates=templates
            )
            _print_choice(choice, as_json=options.as_json)
            return
        prepared = prepare_evaluation(
            chosen.label_set,
            manifest,
            reference=chosen.reference,
            split=split,
            require=require or (),
        )
        if attach and chosen.reference is None:
            raise InvalidMessageError("--attach goes with a registered label set, not with a file")
        scoring = client.score(prepared) if out is None else client.score_by_run(prepared, out)
        evaluation = prepared.measure(scoring)
        if attach and chosen.reference is not None:
            client.label_sets.attach(chosen.reference, evaluation.summary())
    folder = evaluation.write(output, has_thumbnails=not no_pictures)
    if options.as_json:
        print_json({**evaluation.report(), "folder": str(folder)})
    else:
        _print_evaluation(evaluation, folder)
    raise_failures(evaluation)
    if not evaluation.passed:
        raise typer.Exit(EXIT_FAILED)


def _print_choice(choice: TemplateChoice, *, as_json: bool) -> None:
    print_templates(choice, as_json=as_json)
    for one in choice.evaluations:
        raise_failures(one)


def figures_line(figures: Figures) -> str:
    """Write the figures of all pictures in one line."""
    low, high = figures.interval
    parts = [
        f"accuracy {shown(figures.accuracy)} ({low:.3f} to {high:.3f})",
        f"calibration error {shown(figures.ece)}",
        f"nll {shown(figures.nll)}",
        plural(figures.n, "picture"),
    ]
    if figures.none_of_these is not None:
        parts.append(f"none of these: AUROC {shown(figures.none_of_these.auroc)}")
        if figures.none_of_these.auroc_fit is not None:
            parts.append(f"by fit {shown(figures.none_of_these.auroc_fit)}")
    return ", ".join(parts)


def shown(value: float | None) -> str:
    """Write a figure that may be missing."""
    return "–" if value is None else f"{value:.3f}"


def _print_evaluation(evaluation: Evaluation, folder: Path) -> None:
    typer.echo(figures_line(evaluation.figures))
    ranked = sorted(
        (one for one in evaluation.figures.labels if one.detection.n),
        key=lambda one: one.detection.recall or 0.0,
    )
    rows: list[tuple[Any, ...]] = [
        (
            one.name,
            str(one.detection.n),
            shown(one.detection.precision),
            shown(one.detection.recall),
            shown(one.average_precision),
        )
        for one in ranked[:LISTED_LABELS]
    ]
    if rows:
        print_columns(COLUMNS, rows)
    if len(ranked) > LISTED_LABELS:
        typer.echo(f"and {len(ranked) - LISTED_LABELS} labels with a higher recall")
    for level in evaluation.figures.levels:
        low, high = level.interval
        typer.echo(
            f"level {level.level}: accuracy {shown(level.accuracy)} ({low:.3f} to {high:.3f}), "
            f"{level.nodes} nodes, {level.n} pictures"
        )
    for checked in evaluation.requirements:
        verdict = "passed" if checked.passed else "failed"
        typer.echo(f"{verdict}: {checked.text} (it is {shown(checked.value)})")
    typer.echo(f"{folder}: report.html, report.json, predictions.jsonl")


def raise_failures(evaluation: Evaluation) -> None:
    """End the command with an error if a picture has no scores."""
    failed = [(one, one.error.code) for one in evaluation.scored if one.error is not None]
    if failed:
        first, code = failed[0]
        raise CommandError(
            code,
            f"no scores for {len(failed)} of {plural(len(evaluation.scored), 'picture')}, the first "
            f"in line {first.image.line}: {first.fault.removeprefix(f'{code}: ')}",
        )
