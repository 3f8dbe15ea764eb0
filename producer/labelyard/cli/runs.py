"""Commands for runs: bulk work over manifests and prefixes."""

import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Final

import typer

from labelyard.cli.inputs import AsJson, TimeoutS
from labelyard.cli.label_options import LabelChoice
from labelyard.cli.option_group import with_options
from labelyard.cli.output import known_fields, print_fields, print_json
from labelyard.cli.run_options import (
    Codes,
    ColumnNames,
    FormOfSource,
    Out,
    RunChoice,
    RunId,
    RunRate,
    SourceArgument,
    Watch,
    WithEmbeddings,
    follow,
    print_started,
    show_started,
)
from labelyard.cli.run_report import report
from labelyard.cli.run_rescore import rescore
from labelyard.cli.run_view import (
    COLUMNS,
    ERROR_COLUMNS,
    count_row,
    progress_fields,
    run_fields,
    run_row,
)
from labelyard.cli.tables import print_columns
from labelyard.client import Client
from labelyard.errors import InvalidMessageError

app: typer.Typer = typer.Typer(
    help="Bulk work: label a whole manifest or prefix, into files in object storage.",
    no_args_is_help=True,
    rich_markup_mode=None,
)

STANDARD_INPUT: Final = "-"


@app.command()
@with_options
def start(
    source: SourceArgument,
    out: Out,
    labels: LabelChoice,
    *,
    source_format: FormOfSource = None,
    embeddings: WithEmbeddings = False,
    column: ColumnNames = None,
    images_per_s: RunRate = None,
    choice: RunChoice,
    watches: Watch = False,
    as_json: AsJson = False,
) -> None:
    """Start a run, and print its id. A local manifest is uploaded first."""
    named_labels = labels.read()
    options = choice.given(
        source_format=source_format,
        embeddings=embeddings,
        columns=column or [],
        images_per_s=images_per_s,
    )
    with local_source(source, source_format) as named, Client() as client:
        handle = client.runs.start(named, named_labels, out=out, **options)
        show_started(client, handle, watches=watches, as_json=as_json)


@contextmanager
def local_source(source: str, source_format: str | None) -> Iterator[str]:
    """Return the source, or a file with a copy of standard input.

    Raises:
        InvalidMessageError: Standard input cannot hold a listing.
    """
    if source != STANDARD_INPUT:
        yield source
        return
    if source_format == "prefix":
        raise InvalidMessageError("--source-format prefix: standard input holds a manifest")
    with tempfile.NamedTemporaryFile(suffix=f".{source_format or 'jsonl'}") as file:
        shutil.copyfileobj(sys.stdin.buffer, file)
        file.flush()
        yield file.name


@app.command("list")
def list_runs(
    limit: Annotated[int, typer.Option(min=1, help="Most to list, newest first")] = 20,
    as_json: AsJson = False,
) -> None:
    """List runs, the newest at the top."""
    with Client() as client:
        runs = client.runs.list(limit=limit)
    if as_json:
        for run in runs:
            print_json(run_fields(run))
    else:
        print_columns(COLUMNS, map(run_row, runs))


@app.command()
def show(run_id: RunId, as_json: AsJson = False) -> None:
    """Show a run: its request, its progress, and its summary once it has ended."""
    with Client() as client:
        run, progress = client.runs.get(run_id), client.runs.progress(run_id)
    fields = {**run_fields(run), **progress_fields(progress)}
    if as_json:
        request = run.request.model_dump(mode="json", exclude_none=True)
        summary = run.summary.model_dump(mode="json") if run.summary is not None else None
        print_json({**fields, "request": request, "summary": summary})
    else:
        print_fields(known_fields(fields))


@app.command()
def watch(
    run_id: RunId,
    timeout_s: TimeoutS = 0.0,
    as_json: AsJson = False,
) -> None:
    """Show the progress of a run until it has ended; --timeout-s 0 waits for ever."""
    with Client() as client:
        follow(client, run_id, timeout_s=timeout_s or None, as_json=as_json)


@app.command()
def errors(
    run_id: RunId,
    code: Codes = None,
    lines: Annotated[
        bool, typer.Option("--lines", help="Print each error's line, from the run's files")
    ] = False,
    limit: Annotated[int, typer.Option(min=1, help="Most lines to print")] = 100,
    as_json: AsJson = False,
) -> None:
    """Count the errors of a run by code, or print them line by line."""
    wanted = tuple(code or ())
    with Client() as client:
        if not lines:
            counts = client.runs.get(run_id).errors
            for name, count in counts.items():
                if not wanted or name in wanted:
                    print_json({"code": name, "count": count}) if as_json else typer.echo(
                        f"{count:>8}  {name}"
                    )
            return
        found = client.runs.errors(run_id, codes=wanted)
        some = [line for line, _ in zip(found, range(limit), strict=False)]
    if as_json:
        for line in some:
            print_json(line.model_dump(mode="json"))
    else:
        print_columns(ERROR_COLUMNS, map(count_row, some))


@app.command()
def pause(run_id: RunId) -> None:
    """Begin no further shard of a run; those in work are finished."""
    with Client() as client:
        client.runs.pause(run_id)
    typer.echo(f"{run_id} paused")


@app.command()
def resume(run_id: RunId) -> None:
    """Go on with a paused or a cancelled run."""
    with Client() as client:
        client.runs.resume(run_id)
    typer.echo(f"{run_id} resumed")


@app.command()
def cancel(run_id: RunId) -> None:
    """Stop a run; what it has written stays."""
    with Client() as client:
        client.runs.cancel(run_id)
    typer.echo(f"{run_id} cancelling")


@app.command("retry-errors")
def retry_errors(run_id: RunId, code: Codes = None, as_json: AsJson = False) -> None:
    """Start a run over the failed lines of a run: those that may succeed later, or by code."""
    with Client() as client:
        handle = client.runs.retry_errors(run_id, codes=tuple(code or ()))
    print_started(handle, as_json=as_json)


@app.command()
def download(
    run_id: RunId,
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="Made if it is missing")],
    as_json: AsJson = False,
) -> None:
    """Download the files of a run; those that are there are kept."""
    with Client() as client:
        paths = client.runs.download(run_id, folder)
    for path in paths:
        print_json({"path": str(path)}) if as_json else typer.echo(str(path))


app.command()(rescore)
app.command()(report)
