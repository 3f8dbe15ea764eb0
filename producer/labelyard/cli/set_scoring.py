"""Scoring of a manifest's pictures by a command, with progress on the terminal."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Annotated

import typer

from labelyard.cli.inputs import AsJson
from labelyard.cli.job_wait import CancelOnInterrupt, JobWait, Quiet, WaitOptions
from labelyard.cli.label_set_argument import read_set
from labelyard.cli.progress import ProgressLine
from labelyard.cli.result_output import ResultWriter
from labelyard.client import Client
from labelyard.evaluation.chosen_set import ChosenLabelSet
from labelyard.evaluation.scored_images import Scoring
from labelyard.evaluation.scoring_calls import AnyScoring, Prepared
from labelyard.evaluation.stopwatch import Stopwatch
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
Folder = Annotated[Path, typer.Option("-o", "--output", metavar="DIR", help="Folder to write")]
NoPictures = Annotated[bool, typer.Option("--no-pictures", help="Show no pictures in report.html")]
NewName = Annotated[
    str | None, typer.Option("--name", help="Name of the new version; that of SET if it has one")
]
Note = Annotated[str, typer.Option("--note", help="Why, for label-sets log")]
QueueName = Annotated[SubmitQueueName, typer.Option("--queue", help="Queue of the jobs")]
TimeoutS = Annotated[
    float, typer.Option("--timeout-s", min=0, help="Most seconds to wait for 4,096 pictures")
]


@dataclass(frozen=True, kw_only=True)
class ScoringOptions:
    """Options of every command that scores a manifest.

    Attributes:
        queue: Queue of the jobs.
        timeout_s: Seconds to wait for the jobs that are open at once.
        as_json: Whether one JSON object is printed.
        cancel_on_interrupt: Whether Ctrl-C cancels the jobs.
        quiet: Whether only results and errors are printed.
    """

    queue: QueueName = Queue.BULK.value
    timeout_s: TimeoutS = 3600.0
    as_json: AsJson = False
    cancel_on_interrupt: CancelOnInterrupt = False
    quiet: Quiet = False


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


class SetScoring:
    """Reads label sets, uploads pictures and scores them, as a command's options say."""

    def __init__(self, client: Client, options: ScoringOptions) -> None:
        self._client = client
        self._options = options

    @cached_property
    def _progress(self) -> ProgressLine:
        return ProgressLine(is_shown=not self._options.quiet)

    def read(self, text: str) -> ChosenLabelSet:
        """Read the label set that a command line names.

        Raises:
            UnknownLabelSetError: There is neither such a registered set nor such a file.
            InvalidMessageError: The file holds no label set.
        """
        return read_set(self._client, text)

    def upload(self, files: Sequence[Path]) -> Mapping[Path, str]:
        """Upload the local files of a manifest, and return the address of each."""
        if not files:
            return {}
        self._client.open_images()  # before a thousand files are uploaded for nothing
        with self._progress.track("uploading", total=len(files)) as advance:
            uris = upload_files(files, self._client.settings, on_done=lambda: advance(1))
        return dict(zip(files, uris, strict=True))

    def score(
        self, prepared: Prepared[AnyScoring], addresses: Mapping[Path, str] | None = None
    ) -> AnyScoring:
        """Upload the pictures of a manifest, and score them.

        Args:
            addresses: Of files that are uploaded already.
        """
        if addresses is None:
            addresses = self.upload(prepared.files)
        scoring = prepared.scoring(addresses)
        options = WaitOptions(
            timeout_s=self._options.timeout_s,
            is_quiet=self._options.quiet,
            cancels=self._options.cancel_on_interrupt,
        )
        watch = Stopwatch(options.timeout_s)
        with JobWait(self._client, ScoringWriter(scoring), self._progress, options) as wait_for:
            done = 0
            for window in scoring.windows(self._client.prepare):
                done += sum(len(job.images) for job in window)
                wait_for.has_more = done < len(scoring.images)
                wait_for.wait(wait_for.submit(window, self._options.queue))
        scoring.seconds = watch.seconds
        return scoring
