"""The commands ``labelyard examples`` and ``labelyard calibrate``."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Final

import typer

from labelyard.cli.evaluate import ManifestFile, QueueName, ScoringWriter, TimeoutS
from labelyard.cli.inputs import AsJson
from labelyard.cli.job_wait import CancelOnInterrupt, JobWait, Quiet, WaitOptions
from labelyard.cli.label_set_argument import SetName, read_set
from labelyard.cli.output import print_json
from labelyard.cli.progress import ProgressLine
from labelyard.cli.tables import Column, print_columns
from labelyard.client import Client
from labelyard.evaluation.calibrating import Calibration, prepare_calibration
from labelyard.evaluation.example_store import read_example_digests, store_examples
from labelyard.evaluation.learning_calls import name_of
from labelyard.evaluation.scored_images import Scoring
from labelyard.evaluation.teaching import TaughtSet, prepare_teaching
from labelyard.label_sets import check_registration
from labelyard.queues import Queue, SubmitQueueName
from labelyard.uploads import upload_files

Name = Annotated[
    str | None, typer.Option("--name", help="Name of the new version; that of SET if it has one")
]
TrainSplit = Annotated[str, typer.Option("--split", help="Lines that teach")]
CalibrationSplit = Annotated[str, typer.Option("--split", help="Lines to calibrate on")]
Precision = Annotated[
    float, typer.Option("--precision", help="Promised share of right answers among matched ones")
]
Confidence = Annotated[
    float, typer.Option("--confidence", help="Probability with which the promise holds")
]
COLUMNS: Final = (Column("label"), Column("answers", is_right=True), Column("verdict"))


def examples(
    label_set: SetName,
    manifest: ManifestFile,
    name: Name = None,
    split: TrainSplit = "train",
    queue: QueueName = Queue.BULK.value,
    timeout_s: TimeoutS = 3600.0,
    as_json: AsJson = False,
    cancel_on_interrupt: CancelOnInterrupt = False,
    quiet: Quiet = False,
) -> None:
    """Teach a label set with pictures, and register the new version."""
    options = WaitOptions(timeout_s=timeout_s, is_quiet=quiet, cancels=cancel_on_interrupt)
    with Client() as client:
        chosen = read_set(client, label_set)
        new_name = name_of(chosen.reference, name)
        check_registration(new_name, chosen.label_set)
        prepared = prepare_teaching(chosen.label_set, manifest, split=split)
        progress = ProgressLine(is_shown=not quiet)
        scoring = prepared.scoring(_upload(client, prepared.files, progress))
        _score(client, scoring, queue, progress, options)
        taught = prepared.teach(scoring, client.settings)
        store_examples(taught.body, client.settings)
        taught = replace(taught, reference=client.label_sets.register(new_name, taught.label_set))
    if as_json:
        print_json(taught.report())
    else:
        _print_taught(taught)


def calibrate(
    label_set: SetName,
    manifest: ManifestFile,
    precision: Precision,
    confidence: Confidence = 0.9,
    name: Name = None,
    split: CalibrationSplit = "calibration",
    queue: QueueName = Queue.BULK.value,
    timeout_s: TimeoutS = 3600.0,
    as_json: AsJson = False,
    cancel_on_interrupt: CancelOnInterrupt = False,
    quiet: Quiet = False,
) -> None:
    """Fit temperature and thresholds for a promised precision, and register the new version."""
    options = WaitOptions(timeout_s=timeout_s, is_quiet=quiet, cancels=cancel_on_interrupt)
    with Client() as client:
        chosen = read_set(client, label_set)
        new_name = name_of(chosen.reference, name)
        check_registration(new_name, chosen.label_set)
        prepared = prepare_calibration(
            chosen.label_set,
            manifest,
            reference=chosen.reference,
            split=split,
            precision=precision,
            confidence=confidence,
            examples=read_example_digests(chosen.label_set, client.settings),
        )
        progress = ProgressLine(is_shown=not quiet)
        scoring = prepared.scoring(_upload(client, prepared.files, progress))
        _score(client, scoring, queue, progress, options)
        found = prepared.calibrate(scoring)
        found = replace(found, reference=client.label_sets.register(new_name, found.label_set))
    if as_json:
        print_json(found.report())
    else:
        _print_calibration(found)


def _upload(client: Client, files: list[Path], progress: ProgressLine) -> Mapping[Path, str]:
    if not files:
        return {}
    client.open_images()  # before a thousand files are uploaded for nothing
    with progress.track("uploading", total=len(files)) as advance:
        uris = upload_files(files, client.settings, on_done=lambda: advance(1))
    return dict(zip(files, uris, strict=True))


def _score(
    client: Client,
    scoring: Scoring,
    queue: SubmitQueueName,
    progress: ProgressLine,
    options: WaitOptions,
) -> None:
    with JobWait(client, ScoringWriter(scoring), progress, options) as wait_for:
        done = 0
        for window in scoring.windows(client.prepare):
            done += sum(len(job.images) for job in window)
            wait_for.has_more = done < len(scoring.images)
            wait_for.wait(wait_for.submit(window, queue))


def _print_taught(taught: TaughtSet) -> None:
    counts = taught.examples.counts
    typer.echo(f"{sum(counts.values())} pictures teach {len(counts)} labels")
    if taught.skipped:
        typer.echo(f"{taught.skipped} lines teach nothing: no label, several, or a picture twice")
    typer.echo(taught.reference)


def _print_calibration(found: Calibration) -> None:
    typer.echo(
        f"calibration error {found.ece[0]:.3f}, now {found.ece[1]:.3f}; "
        f"temperature {found.label_set.temperature:.3f}; {found.n} pictures"
    )
    print_columns(COLUMNS, [(one.name, str(one.answered), one.verdict) for one in found.labels])
    typer.echo(found.reference)
