"""The command ``labelyard evaluate``."""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Final

import typer

from labelyard.cli.inputs import AsJson
from labelyard.cli.job_wait import CancelOnInterrupt, JobWait, Quiet, WaitOptions
from labelyard.cli.label_set_argument import SetName, read_set
from labelyard.cli.output import print_json
from labelyard.cli.progress import ProgressLine
from labelyard.cli.result_output import ResultWriter
from labelyard.cli.tables import Column, print_columns
from labelyard.client import Client
from labelyard.command_group import EXIT_FAILED, CommandError
from labelyard.evaluation.evaluation import Evaluation
from labelyard.evaluation.figures import Figures
from labelyard.evaluation.preparation import PreparedEvaluation, Stopwatch, prepare_evaluation
from labelyard.evaluation.scored_images import Scoring
from labelyard.ledger import Record
from labelyard.messages import Result
from labelyard.queues import Queue, SubmitQueueName
from labelyard.uploads import upload_files

ManifestFile = Annotated[
    Path, typer.Argument(metavar="MANIFEST", help="Labelled pictures, a JSON object a line")
]
Split = Annotated[
    str | None,
    typer.Option("--split", help="Lines to take; test if there are such, else all lines"),
]
Require = Annotated[
    list[str] | None,
    typer.Option("--require", help="Such as accuracy>=0.9; give it again for more"),
]
Folder = Annotated[Path, typer.Option("-o", "--output", metavar="DIR", help="Folder to write")]
QueueName = Annotated[SubmitQueueName, typer.Option("--queue", help="Queue of the jobs")]
TimeoutS = Annotated[
    float, typer.Option("--timeout-s", min=0, help="Most seconds to wait for 4,096 pictures")
]
NoPictures = Annotated[bool, typer.Option("--no-pictures", help="Show no pictures in report.html")]
#: Labels that the terminal lists; the files have all of them.
LISTED_LABELS: Final = 20
COLUMNS: Final = (
    Column("label"),
    Column("pictures", is_right=True),
    Column("precision", is_right=True),
    Column("recall", is_right=True),
    Column("average precision", is_right=True, rank=1),
)


class ScoringWriter(ResultWriter):
    """Gives the results of jobs to a scoring; which of them failed is the report's matter."""

    def __init__(self, scoring: Scoring) -> None:
        self._scoring = scoring

    def write(self, record: Record) -> bool:
        """Take the scores of a job."""
        self._scoring.add(record)
        return True

    def _write_result(self, result: Result, record: Record) -> None:
        raise NotImplementedError


def evaluate(
    label_set: SetName,
    manifest: ManifestFile,
    split: Split = None,
    require: Require = None,
    output: Folder = Path("evaluation"),
    no_pictures: NoPictures = False,
    queue: QueueName = Queue.BULK.value,
    timeout_s: TimeoutS = 3600.0,
    as_json: AsJson = False,
    cancel_on_interrupt: CancelOnInterrupt = False,
    quiet: Quiet = False,
) -> None:
    """Measure a label set on labelled pictures, and write a report; exit code 1 if a requirement fails."""
    options = WaitOptions(timeout_s=timeout_s, is_quiet=quiet, cancels=cancel_on_interrupt)
    with Client() as client:
        chosen = read_set(client, label_set)
        prepared = prepare_evaluation(
            chosen.label_set,
            manifest,
            reference=chosen.reference,
            split=split,
            require=require or (),
        )
        evaluation = score(client, prepared, queue, options)
    folder = evaluation.write(output, has_thumbnails=not no_pictures)
    if as_json:
        print_json({**evaluation.report(), "folder": str(folder)})
    else:
        _print_evaluation(evaluation, folder)
    raise_failures(evaluation)
    if not evaluation.passed:
        raise typer.Exit(EXIT_FAILED)


def score(
    client: Client,
    prepared: PreparedEvaluation,
    queue: SubmitQueueName,
    options: WaitOptions,
    addresses: Mapping[Path, str] | None = None,
) -> Evaluation:
    """Score the pictures with progress on the terminal, and measure them.

    Args:
        addresses: Of files that are uploaded already.
    """
    progress = ProgressLine(is_shown=not options.is_quiet)
    if addresses is None:
        addresses = upload(client, prepared, progress)
    scoring = prepared.scoring(addresses)
    watch = Stopwatch(options.timeout_s)
    with JobWait(client, ScoringWriter(scoring), progress, options) as wait_for:
        done = 0
        for window in scoring.windows(client.prepare):
            done += sum(len(job.images) for job in window)
            wait_for.has_more = done < len(prepared.images)
            wait_for.wait(wait_for.submit(window, queue))
    return prepared.measure(scoring, seconds=watch.seconds)


def upload(
    client: Client, prepared: PreparedEvaluation, progress: ProgressLine
) -> Mapping[Path, str]:
    """Upload the local files of a manifest."""
    files = prepared.files
    if not files:
        return {}
    client.open_images()  # before a thousand files are uploaded for nothing
    with progress.track("uploading", total=len(files)) as advance:
        uris = upload_files(files, client.settings, on_done=lambda: advance(1))
    return dict(zip(files, uris, strict=True))


def figures_line(figures: Figures) -> str:
    """Write the figures of all pictures in one line."""
    low, high = figures.interval
    parts = [
        f"accuracy {shown(figures.accuracy)} ({low:.3f} to {high:.3f})",
        f"calibration error {shown(figures.ece)}",
        f"nll {shown(figures.nll)}",
        f"{figures.n} pictures",
    ]
    if figures.none_of_these is not None:
        parts.append(f"none of these: AUROC {shown(figures.none_of_these.auroc)}")
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
    print_columns(COLUMNS, rows)
    if len(ranked) > LISTED_LABELS:
        typer.echo(f"and {len(ranked) - LISTED_LABELS} labels with a higher recall")
    for checked in evaluation.requirements:
        verdict = "passed" if checked.passed else "failed"
        typer.echo(f"{verdict}: {checked.text} (it is {shown(checked.value)})")
    typer.echo(f"{folder}: report.html, report.json, predictions.jsonl")


def raise_failures(evaluation: Evaluation) -> None:
    """End the command with an error if a picture has no scores."""
    failed = [(one.image.line, one.error) for one in evaluation.scored if one.error is not None]
    if failed:
        line, error = failed[0]
        raise CommandError(
            error.code,
            f"{len(failed)} of {len(evaluation.scored)} pictures have no scores, the first in "
            f"line {line}: {error.message.removeprefix(f'{error.code}: ')}",
        )
