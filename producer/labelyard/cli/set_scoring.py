"""Client of the commands that score a manifest: its calls show their progress on the terminal."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Annotated

import typer

from labelyard.cli.inputs import AsJson
from labelyard.cli.job_wait import CancelOnInterrupt, JobWait, Quiet, WaitOptions
from labelyard.cli.label_set_argument import read_set
from labelyard.cli.label_set_versions import user
from labelyard.cli.progress import ProgressLine
from labelyard.cli.result_output import ResultWriter
from labelyard.cli.run_scoring import RunWait
from labelyard.client import Client
from labelyard.evaluation.chosen_set import ChosenLabelSet
from labelyard.evaluation.scored_images import Scoring
from labelyard.evaluation.scoring_calls import AnyScoring, Prepared
from labelyard.evaluation.scoring_run import shard_ids
from labelyard.evaluation.stopwatch import Stopwatch
from labelyard.evaluation.version_calls import Made, VersionCall
from labelyard.ledger import Record
from labelyard.messages import Result
from labelyard.queues import Queue, SubmitQueue, SubmitQueueName
from labelyard.submission import Labels
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
class VersionOptions:
    """Options of every command that makes a new version of a label set.

    Attributes:
        name: Name to register it under.
        note: Note of it, in place of the one that describes the fit.
    """

    name: NewName = None
    note: Note = ""


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


class ScoringClient(Client):
    """Client that scores manifests with the options of a command; a label set may be a file, too."""

    def __init__(self, options: ScoringOptions, *, note: str = "") -> None:
        """Connect when there is something to do.

        Args:
            note: Note of a new version, in place of the one that describes its fit.
        """
        super().__init__()
        self._options = options
        self._note = note

    @cached_property
    def _progress(self) -> ProgressLine:
        return ProgressLine(is_shown=not self._options.quiet)

    def read_set(self, text: str) -> ChosenLabelSet:
        """Read the label set that a command line names.

        Raises:
            UnknownLabelSetError: There is neither such a registered set nor such a file.
            InvalidMessageError: The file holds no label set.
        """
        return read_set(self, text)

    def _choose(self, labels: Labels) -> ChosenLabelSet:
        """Read the label set that a command line names."""
        return self.read_set(labels) if isinstance(labels, str) else super()._choose(labels)

    def upload(self, files: Sequence[Path]) -> Mapping[Path, str]:
        """Upload the local files of a manifest, and return the address of each."""
        if not files:
            return {}
        self.open_images()  # before a thousand files are uploaded for nothing
        with self._progress.track("uploading", total=len(files)) as advance:
            uris = upload_files(files, self.settings, on_done=lambda: advance(1))
        return dict(zip(files, uris, strict=True))

    def _score(
        self,
        prepared: Prepared[AnyScoring],
        *,
        queue: SubmitQueue,  # noqa: ARG002 - the options have it
        watch: Stopwatch,  # noqa: ARG002 - a command waits for each window of jobs by itself
    ) -> AnyScoring:
        """Upload the pictures of a manifest, and score them."""
        return self.score(prepared)

    def _register(self, call: VersionCall, made: Made, *, author: str = "", note: str = "") -> Made:
        """Register a new version with the user's name, and the command's note if it has one."""
        author = author or user()
        return super()._register(call, made, author=author, note=note or self._note)

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
        options = self._wait_options
        watch = Stopwatch(options.timeout_s)
        with JobWait(self, ScoringWriter(scoring), self._progress, options) as wait_for:
            done = 0
            for window in scoring.windows(self.prepare):
                done += sum(len(job.images) for job in window)
                wait_for.has_more = done < len(scoring.images)
                wait_for.wait(wait_for.submit(window, self._options.queue))
        scoring.seconds = watch.seconds
        return scoring

    def score_by_run(self, prepared: Prepared[Scoring], out: str) -> Scoring:
        """Upload the pictures of a manifest, and have a run score them.

        Args:
            out: Prefix that the run's folder is below.
        """
        self.open_images()  # before a thousand files are uploaded for nothing
        run, request = self._prepare_run(prepared, out)
        handle = self.runs.start_run(request)
        record = RunWait(self.runs, self._progress, self._wait_options).wait(handle)
        return run.read(record, self._ledger.read_many(shard_ids(record)))

    @property
    def _wait_options(self) -> WaitOptions:
        return WaitOptions(
            timeout_s=self._options.timeout_s,
            is_quiet=self._options.quiet,
            cancels=self._options.cancel_on_interrupt,
        )

    def _upload(self, files: Sequence[Path]) -> Mapping[Path, str]:
        """Upload local files with a bar, and return the address of each."""
        return self.upload(files)
