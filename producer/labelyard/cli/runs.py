"""Commands for runs: bulk work over many pictures."""

import typer

from labelyard.cli.run_report import report

app: typer.Typer = typer.Typer(
    help="Bulk runs over many pictures.", no_args_is_help=True, rich_markup_mode=None
)
app.command()(report)
