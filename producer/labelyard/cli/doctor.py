"""The command that examines the installation, and the output of its report."""

from collections.abc import Iterator
from itertools import groupby
from typing import Annotated, Final

import typer
from rich.console import Console
from rich.padding import Padding
from rich.text import Text

from labelyard.cli.inputs import AsJson
from labelyard.cli.output import print_json
from labelyard.doctor import TIME_LIMIT_S, DoctorReport, Finding, Severity, examine

TimeLimitS = Annotated[
    float, typer.Option("--time-limit-s", min=1, help="Seconds for the whole examination")
]
INDENT: Final = 2
STYLE_BY_SEVERITY: Final = {
    Severity.SERIOUS: "bold red",
    Severity.WARNING: "yellow",
    Severity.ADVICE: "cyan",
    Severity.UNCHECKED: "magenta",
    Severity.OK: "green",
}


def doctor(time_limit_s: TimeLimitS = TIME_LIMIT_S, as_json: AsJson = False) -> None:
    """Examine servers and settings; print each fault with its remedy. 1 if one is serious."""
    print_report(examine(time_limit_s=time_limit_s), as_json=as_json)


def print_report(report: DoctorReport, *, as_json: bool) -> None:
    """Print a report, and exit with its code.

    Raises:
        typer.Exit: With 1 if a finding is serious, else 0.
    """
    if as_json:
        print_json(report.fields())
        raise typer.Exit(report.exit_code)
    console = Console(highlight=False)
    for severity, findings in groupby(report.findings, key=lambda one: one.severity):
        console.print(Text(severity.upper(), style=STYLE_BY_SEVERITY[severity]))
        for line in (line for finding in findings for line in _lines_of(finding)):
            if console.is_terminal:
                console.print(Padding(line, (0, 0, 0, INDENT)))
            else:  # lines stay whole, so that commands can be copied out of them
                console.print(Text(INDENT * " ").append_text(line), soft_wrap=True)
    console.print(Text(summary_of(report), style="bold"))
    raise typer.Exit(report.exit_code)


def summary_of(report: DoctorReport) -> str:
    """Count the findings in one line."""
    counts = [f"{report.count(one)} {one}" for one in Severity if report.count(one)]
    return f"{', '.join(counts)}; examined in {report.seconds:.1f} s"


def _lines_of(finding: Finding) -> Iterator[Text]:
    line = Text(finding.found)
    if finding.severity is not Severity.OK:
        line.append(f" [{finding.code}]", style="dim")
    yield line
    if finding.advice:
        yield Text(f"→ {finding.advice}", style="italic")
