"""The commands ``labelyard drift`` and ``labelyard label-sets canary``: what workers counted."""

from typing import Annotated, Final

import typer

from labelyard.cli.inputs import AsJson
from labelyard.cli.label_set_versions import AliasName, Author, Note, Version, user
from labelyard.cli.output import print_json
from labelyard.cli.tables import Column, print_columns
from labelyard.cli.words import count, plural
from labelyard.client import Client
from labelyard.command_group import EXIT_FAILED
from labelyard.drift.baselines import KEPT_HOURS
from labelyard.drift.canary import CanaryReport
from labelyard.drift.report import DriftReport, DriftTest

End = Annotated[bool, typer.Option("--end", help="End the canary, and print what was counted")]
Baseline = Annotated[
    bool,
    typer.Option("--set-baseline", help="Measure from the answers of the last days from now on"),
]
Hours = Annotated[
    int, typer.Option("--hours", min=1, max=KEPT_HOURS, help="Hours before this one to read")
]
NONE: Final = "none of these"
LISTED_WINDOWS: Final = 24
LISTED_FLIPS: Final = 20
WINDOW_COLUMNS: Final = (
    Column("hours ago", is_right=True),
    Column("pictures", is_right=True),
    Column("scores", is_right=True),
    Column("p", is_right=True, rank=2),
    Column("answers", is_right=True),
    Column("p", is_right=True, rank=2),
    Column("verdict"),
)
CHANGE_COLUMNS: Final = (
    Column("answer"),
    Column("baseline", is_right=True),
    Column("now", is_right=True),
)
FLIP_COLUMNS: Final = (
    Column("answer"),
    Column("of the canary"),
    Column("pictures", is_right=True),
)


def drift(
    label_set: Version,
    hours: Hours = KEPT_HOURS,
    set_baseline: Baseline = False,
    as_json: AsJson = False,
) -> None:
    """Compare the answers of a label set with its baseline; exit code 1 if they have drifted."""
    with Client() as client:
        if set_baseline:
            client.label_sets.set_baseline(label_set)
        report = client.label_sets.drift(label_set, hours=hours)
    if as_json:
        print_json(report.fields())
    else:
        _print_drift(report)
    if report.is_alarm:
        raise typer.Exit(EXIT_FAILED)


def canary(
    alias: AliasName,
    end: End = False,
    author: Author = None,
    note: Note = "",
    as_json: AsJson = False,
) -> None:
    """Print how the canary of an alias differs from the version that answers."""
    with Client() as client:
        report = client.label_sets.canary(alias)
        if end:
            name = user() if author is None else author
            client.label_sets.end_canary(alias, author=name, note=note)
    if as_json:
        print_json(report.fields())
    else:
        _print_canary(report)


def _print_drift(report: DriftReport) -> None:
    typer.echo(report.reference)
    if report.baseline is None:
        typer.echo(
            f"{count(report.counts.n)} pictures counted, and no baseline: `labelyard calibrate` "
            "sets one, and so does --set-baseline"
        )
        return
    typer.echo(
        f"{count(report.counts.n)} pictures counted, {count(report.baseline.n)} in the baseline"
    )
    if not report.windows:
        typer.echo("no hour with 100 pictures is over yet")
        return
    newest = report.windows[0].start
    rows = [
        (
            f"{(newest - window.start) / 3600:.0f}" if window.start != newest else "newest",
            count(window.counts.n),
            *_test(window.scores),
            *_test(window.answers),
            "drift" if window.is_alarm else "",
        )
        for window in report.windows[:LISTED_WINDOWS]
    ]
    print_columns(WINDOW_COLUMNS, rows)
    if report.is_alarm:
        changes = report.changes()
        print_columns(
            CHANGE_COLUMNS,
            [(name or NONE, f"{before:.3f}", f"{now:.3f}") for name, before, now in changes],
        )


def _test(test: DriftTest) -> tuple[str, str]:
    return f"{test.distance:.3f}", f"{test.p:.1e}"


def _print_canary(report: CanaryReport) -> None:
    typer.echo(f"{report.alias} answers with {report.reference}")
    typer.echo(f"its canary is {report.canary}, on {report.share * 100:.3g} % of the jobs")
    typer.echo(f"compared: {plural(report.jobs, 'job')} with {plural(report.images, 'picture')}")
    if report.agreement is not None and report.score_change is not None:
        typer.echo(
            f"{report.agreement:.2%} have the same answer, the best score changes by "
            f"{report.score_change:+.4f} on average"
        )
    for code, number in report.failures.items():
        typer.echo(f"{count(number)} jobs could not be scored with it: {code}")
    ranked = sorted(report.flips.items(), key=lambda item: (-item[1], item[0]))
    if ranked:
        rows = [
            (before or NONE, after or NONE, count(number))
            for (before, after), number in ranked[:LISTED_FLIPS]
        ]
        print_columns(FLIP_COLUMNS, rows)
