"""The commands of ``labelyard``, and how they end."""

from typing import Any, Final

import typer
from typer.core import TyperGroup

from labelyard.cli import dead, fleet, jobs, label_sets, listing, removal, set_aside, state, top
from labelyard.errors import LabelyardError, RequestError, ServiceConfigError

EXIT_FAILED: Final = 1
EXIT_REFUSED: Final = 2
EXIT_NOT_NOW: Final = 3

HELP = """Label pictures with any words, through the labelyard workers.

Where the servers are is read from LABELYARD_BROKER_URL, LABELYARD_LEDGER_URL and, for
uploads, LABELYARD_S3_ENDPOINT_URL and the AWS variables.

Exit codes: 0, every image has its labels; 1, an image or a job failed, was cancelled,
expired or is unknown; 2, the command or a setting is wrong; 3, not now: a server did not
answer, the queue is full or the time was over, so try again.
"""


def exit_code(error: LabelyardError) -> int:
    """Return the exit code for a shell: refused, not now, or failed."""
    if isinstance(error, RequestError | ServiceConfigError):
        return EXIT_REFUSED
    return EXIT_NOT_NOW if error.is_retryable else EXIT_FAILED


class ErrorsAsLines(TyperGroup):
    """Command group that prints an error as a line, and exits with a code for shells."""

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except LabelyardError as error:
            typer.echo(str(error), err=True)
            raise typer.Exit(exit_code(error)) from error


app: typer.Typer = typer.Typer(
    name="labelyard",
    help=HELP,
    cls=ErrorsAsLines,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
app.command()(jobs.classify)
app.command()(jobs.submit)
app.command()(jobs.rescore)
app.command()(jobs.result)
app.command()(jobs.wait)
app.command("jobs")(listing.list_jobs)
app.command()(removal.cancel)
app.command()(removal.forget)
app.command()(state.status)
app.command()(fleet.workers)
app.command()(top.top)
app.command()(state.why)
app.command(hidden=True)(state.schema)
app.add_typer(dead.app, name="dead")
app.add_typer(set_aside.app, name="set-aside")
app.add_typer(label_sets.app, name="label-sets")
