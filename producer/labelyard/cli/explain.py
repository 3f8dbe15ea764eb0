"""The command ``labelyard explain``."""

from pathlib import Path
from typing import Annotated

import typer

from labelyard.cli.inputs import AsJson, TimeoutS, image_refs, is_local
from labelyard.cli.job_wait import JobWait, WaitingOptions
from labelyard.cli.jobs import QueueName
from labelyard.cli.label_options import LabelChoice
from labelyard.cli.option_group import with_options
from labelyard.cli.output import print_json
from labelyard.cli.progress import ProgressLine
from labelyard.cli.result_output import ResultWriter
from labelyard.client import Client
from labelyard.command_group import CommandError
from labelyard.explaining import explained_image
from labelyard.explanation_maps import read_map
from labelyard.ledger import Record
from labelyard.messages import LabelExplanation, Result, Window
from labelyard.messages.explanation import DEFAULT_GRID, MAX_GRID, MIN_GRID, WARNINGS
from labelyard.queues import Queue

Picture = Annotated[str, typer.Argument(metavar="PICTURE", help="A file, s3://… or https://…")]
ExplainedLabel = Annotated[
    str, typer.Argument(metavar="LABEL", help="The label to explain, one of the set")
]
MapFile = Annotated[Path, typer.Option("-o", "--output", metavar="PNG", help="File to write")]
GridSize = Annotated[
    int,
    typer.Option("--grid", min=MIN_GRID, max=MAX_GRID, help="Windows along each side"),
]


class ExplanationWriter(ResultWriter):
    """Keeps the result of the one job."""

    def __init__(self) -> None:
        self.result: Result | None = None

    def write(self, record: Record) -> bool:
        """Keep the result; raises why there is none."""
        self.result = record.outcome()
        return True

    def _write_result(self, result: Result, record: Record) -> None:
        raise NotImplementedError


@with_options
def explain(
    picture: Picture,
    explained: ExplainedLabel,
    labels: LabelChoice,
    *,
    grid: GridSize = DEFAULT_GRID,
    output: MapFile = Path("heat.png"),
    timeout_s: TimeoutS = 60.0,
    queue: QueueName = Queue.INTERACTIVE.value,
    as_json: AsJson = False,
    waiting: WaitingOptions,
) -> None:
    """Show where in a picture a label was seen, and which label competed. A local file is uploaded."""
    label_set = labels.read()
    options = waiting.within(timeout_s)
    progress = ProgressLine(is_shown=not waiting.quiet)
    writer = ExplanationWriter()
    with Client() as client:
        if is_local(picture):
            client.open_images()  # before a file is uploaded for nothing
        images = image_refs([picture], client.settings, progress=progress)
        job = client.prepare(images, label_set, explain=[explained], explain_grid=grid)
        with JobWait(client, writer, progress, options) as wait_for:
            wait_for.wait(wait_for.submit([job], queue))
        assert writer.result is not None  # noqa: S101 - the wait raises without one
        (found,) = explained_image(writer.result).explanations
        write_map(read_map(found.object_uri, client.settings), output)
    if as_json:
        print_json({**found.model_dump(mode="json"), "output": str(output)})
    else:
        print_explanation(found, output)


def write_map(png: bytes, output: Path) -> None:
    """Write a map to a file.

    Raises:
        CommandError: It cannot be written.
    """
    try:
        output.write_bytes(png)
    except OSError as error:
        raise CommandError("output", f"{output}: {error.strerror or error}") from error


def print_explanation(found: LabelExplanation, output: Path) -> None:
    """Print an explanation for people."""
    typer.echo(f"{found.label} {found.score:.3f}, seen {place_of(found.window)}")
    if found.competitor is not None and found.competitor_score is not None:
        typer.echo(f"competitor: {found.competitor} {found.competitor_score:.3f}")
    typer.echo("loss of the label's logit when a window is hidden:")
    for row in found.drops:
        typer.echo("  " + "".join(f"{drop:8.2f}" for drop in row))
    if found.warning is not None:
        typer.echo(f"warning: {WARNINGS[found.warning]} [{found.warning}]")
    typer.echo(str(output))


def place_of(window: Window) -> str:
    """Write where a window is in the picture."""
    left, right, top, bottom = (
        f"{100 * share:.0f}" for share in (window.left, window.right, window.top, window.bottom)
    )
    return f"{left} to {right} % from the left, {top} to {bottom} % from the top"
