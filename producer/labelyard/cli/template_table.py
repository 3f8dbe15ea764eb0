"""The option ``--templates`` of ``labelyard evaluate``: a line of figures for each template."""

from pathlib import Path
from typing import Final

import typer

from labelyard.cli.output import print_json
from labelyard.cli.set_scoring import ScoringClient
from labelyard.cli.tables import Column, print_columns
from labelyard.evaluation.preparation import prepare_evaluation
from labelyard.evaluation.template_choice import TemplateChoice, with_templates
from labelyard.messages import LabelSet

COLUMNS: Final = (
    Column("template"),
    Column("accuracy", is_right=True),
    Column("from", is_right=True),
    Column("to", is_right=True),
    Column("calibration error", is_right=True),
    Column("nll", is_right=True),
)


def compare_templates(
    client: ScoringClient,
    label_set: LabelSet,
    manifest: Path,
    *,
    split: str | None,
    templates: Path,
) -> TemplateChoice:
    """Evaluate a label set with each template; the pictures are uploaded once."""
    pairs = with_templates(label_set, templates)
    prepared = [prepare_evaluation(one, manifest, split=split) for _, one in pairs]
    addresses = client.upload(prepared[0].files)
    return TemplateChoice(
        [template for template, _ in pairs],
        [one.measure(client.score(one, addresses)) for one in prepared],
    )


def print_templates(choice: TemplateChoice, *, as_json: bool) -> None:
    """Print the figures of each template, and the best one."""
    report = choice.report()
    if as_json:
        print_json(report)
        return
    rows = []
    for one in report["templates"]:
        figures = (one["accuracy"], *one["accuracy_interval"], one["ece"], one["nll"])
        rows.append(
            (one["template"], *("–" if each is None else f"{each:.3f}" for each in figures))
        )
    print_columns(COLUMNS, rows)
    typer.echo(f"best: {choice.best}")
