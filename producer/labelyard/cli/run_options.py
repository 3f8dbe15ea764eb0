"""Options of the commands that start runs, and the answer to a start."""

from dataclasses import dataclass
from typing import Annotated, Any, cast

import typer

from labelyard.cli.output import known_fields, print_fields, print_json
from labelyard.cli.run_view import RunBar, progress_fields
from labelyard.client import Client
from labelyard.command_group import EXIT_FAILED
from labelyard.runs.client import RunHandle
from labelyard.runs.options import RunOptions
from labelyard.runs.request import OutputFormat, SourceFormat

RunId = Annotated[str, typer.Argument(metavar="RUN_ID")]
SourceArgument = Annotated[
    str,
    typer.Argument(
        metavar="SOURCE",
        help="s3://bucket/prefix/**/*.jpg, or a manifest (JSONL, CSV, Parquet) in S3 or local; - is "
        "standard input",
    ),
]
OldRun = Annotated[
    str, typer.Argument(metavar="OLD_RUN", help="Id, or prefix of its files: s3://bucket/runs/1/")
]
Out = Annotated[str, typer.Option("--out", help="Prefix of the results, s3://bucket/prefix/")]
OtherOut = Annotated[
    str | None, typer.Option("--out", help="Prefix of the results, if not below OLD_RUN's")
]
FormOfSource = Annotated[
    SourceFormat | None,
    typer.Option("--source-format", help="Kind of source, if its ending does not show it"),
]
FormOfResults = Annotated[OutputFormat, typer.Option("--format", help="Format of the results")]
WithEmbeddings = Annotated[
    bool, typer.Option("--embeddings", help="Write embeddings, to score other labels later")
]
ColumnNames = Annotated[
    list[str] | None,
    typer.Option("--column", help="Column of the manifest to carry to the results; * for all"),
]
MostLabels = Annotated[int, typer.Option("--top-k", min=1, help="Labels named for an image")]
RunTenant = Annotated[str | None, typer.Option("--tenant", help="On whose behalf")]
RunRate = Annotated[
    float | None, typer.Option("--images-per-s", min=0.001, help="Limit on its speed")
]
Lifetime = Annotated[
    float | None,
    typer.Option("--expires-in-s", min=0, help="Seconds after which it ends as it is"),
]
Key = Annotated[
    str | None, typer.Option("--key", help="Idempotency key: a second start returns the first run")
]
Webhook = Annotated[
    str | None,
    typer.Option("--webhook", metavar="URL", help="Receiver that gets the end of the run by POST"),
]
Watch = Annotated[bool, typer.Option("--watch", help="Show the progress until it has ended")]
Codes = Annotated[
    list[str] | None, typer.Option("--code", help="Only errors with this code; again for more")
]


@dataclass(frozen=True, kw_only=True)
class RunChoice:
    """Options of the commands that start runs.

    Attributes:
        output_format: Format of the results.
        top_k: Labels named for an image.
        tenant: Tenant that the run belongs to.
        expires_in_s: Seconds after which it ends as it is.
        key: Idempotency key.
        webhook: Receiver of its end.
    """

    output_format: FormOfResults = "jsonl"
    top_k: MostLabels = 5
    tenant: RunTenant = None
    expires_in_s: Lifetime = None
    key: Key = None
    webhook: Webhook = None

    def given(self, **more: Any) -> RunOptions:
        """Return the options that the command line gives, for the client.

        Args:
            more: Options of one command alone.
        """
        chosen = {
            "output_format": self.output_format,
            "top_k": self.top_k,
            "tenant": self.tenant,
            "expires_in_s": self.expires_in_s,
            "idempotency_key": self.key,
            "webhook": self.webhook,
            **more,
        }
        given: Any = {name: value for name, value in chosen.items() if value is not None}
        return cast("RunOptions", given)


def print_started(handle: RunHandle, *, as_json: bool) -> None:
    """Print the id of a run that was started."""
    if as_json:
        print_json({"run_id": handle.id, "is_new": handle.is_new, "out": handle.out})
    else:
        typer.echo(handle.id)


def show_started(client: Client, handle: RunHandle, *, watches: bool, as_json: bool) -> None:
    """Print the id of a run that was started, and with ``--watch`` its progress."""
    print_started(handle, as_json=as_json)
    if watches:
        follow(client, handle.id, timeout_s=None, as_json=as_json)


def follow(client: Client, run_id: str, *, timeout_s: float | None, as_json: bool) -> None:
    """Show the progress until the run has ended, then its numbers."""
    bar = RunBar(timeout_s=timeout_s)
    for progress in client.runs.watch(run_id):
        if as_json:
            print_json(progress_fields(progress))
        else:
            bar.show(progress)
        bar.check(progress)
    bar.close()
    if not as_json:
        print_fields(known_fields(progress_fields(progress)))
    if progress.state != "succeeded":
        raise typer.Exit(EXIT_FAILED)
