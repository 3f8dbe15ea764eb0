"""Runs of a client: start, watch, steer, and read what they wrote."""

import importlib
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Unpack

from labelyard.arguments import counted, text, wait_s
from labelyard.errors import (
    InvalidMessageError,
    RunNotFoundError,
    RunStateError,
    RunTimeoutError,
)
from labelyard.label_sets.aliases import AliasRegistry, read_alias_of
from labelyard.ledger import Ledger
from labelyard.publisher import Publisher
from labelyard.runs.ledger import RunLedger
from labelyard.runs.lines import ErrorLine
from labelyard.runs.options import (
    S3,
    RunOptions,
    Source,
    local_file,
    make_rescore_run,
    make_run,
)
from labelyard.runs.parts import RunPart, plan_of, queue_of_part, task_of
from labelyard.runs.record import RunProgress, RunRecord
from labelyard.runs.request import RunRequest, format_of
from labelyard.settings import ClientSettings
from labelyard.submission import Labels

POLL_EVERY_S: Final = 0.5
MAX_RETRIES: Final = 1_000


@dataclass(frozen=True, slots=True)
class RunHandle:
    """A run that was started.

    Attributes:
        id: The run's id; all that another process needs to follow it.
        is_new: ``False`` if the same run had been started before under its idempotency key.
        out: Prefix that its files are written below.
    """

    id: str
    is_new: bool
    out: str
    _runs: "Runs" = field(repr=False, compare=False)

    def progress(self) -> RunProgress:
        """Read the run's progress."""
        return self._runs.progress(self.id)

    def wait(self, *, timeout_s: float) -> RunRecord:
        """Wait until the run has ended; see :meth:`Runs.wait`."""
        return self._runs.wait(self.id, timeout_s=timeout_s)


class Runs:
    """Bulk work over manifests and prefixes; ``client.runs``. Safe to share between threads.

    Every method raises LedgerUnavailableError when the ledger gives no answer.
    """

    def __init__(self, ledger: Ledger, publisher: Publisher, settings: ClientSettings) -> None:
        self._ledger = RunLedger(ledger)
        self._label_sets = AliasRegistry(ledger.client, namespace=settings.namespace)
        self._publisher = publisher
        self._settings = settings

    def start(
        self, source: Source, labels: Labels, *, out: str, **options: Unpack[RunOptions]
    ) -> RunHandle:
        """Start a run, and return as soon as the ledger has it.

        Args:
            source: Prefix in object storage, with or without a pattern
                (``s3://bucket/photos/**/*.jpg``), or a manifest as JSONL, CSV or Parquet, there
                or on this machine; a local one is uploaded first.
            labels: Names, ``Label`` objects, a ``LabelSet``, ``name@sha256:…``, or an alias,
                ``name@alias``, which is read now; for lines that bring none of their own.
            out: Prefix that results are written below, ``s3://bucket/prefix/``.
            options: See :class:`labelyard.runs.options.RunOptions`.

        Raises:
            InvalidMessageError: Something is not as the contract wants it.
            IdempotencyConflictError: The idempotency key was used for another run.
            ServiceConfigError: The manifest could not be uploaded; the text names the remedy.
            StorageUnavailableError: The same, because storage gave no usable answer.
        """
        path, labels = local_file(source), read_alias_of(self._label_sets, labels)
        if path is None:
            return self.start_run(make_run(self._settings, str(source), labels, out, options))
        options = {**options, "source_format": options.get("source_format") or format_of(path.name)}
        make_run(self._settings, f"s3://bucket/{path.name}", labels, out, options)  # checks first
        [address] = _uploads().upload_files([path], self._settings)
        return self.start_run(make_run(self._settings, address, labels, out, options))

    def start_run(self, request: RunRequest) -> RunHandle:
        """Start a prepared run; see :meth:`start`."""
        if not isinstance(request, RunRequest):
            raise InvalidMessageError("request: make it with labelyard.runs.options.make_run")
        is_new = self._ledger.open(request)
        if is_new:
            self._open(plan_of(request.run_id, tenant=request.tenant, epoch=0))
        return RunHandle(request.run_id, is_new, request.out, self)

    def _open(self, part: RunPart) -> None:
        """Open and publish a part; if that fails the leading worker does it within seconds."""
        opened = self._ledger.open_part(part)
        message = part.outgoing(task_of(part), queue=queue_of_part(part), published_at=opened.at)
        self._publisher.publish_many([message])

    def get(self, run_id: str) -> RunRecord:
        """Read all that the ledger knows of a run.

        Raises:
            RunNotFoundError: There is no such run.
        """
        return self._ledger.find(run_id_of(run_id))

    def list(self, *, limit: int = 100) -> Sequence[RunRecord]:
        """Read the newest runs, the newest first."""
        return self._ledger.newest(limit=counted(limit))

    def progress(self, run_id: str) -> RunProgress:
        """Read the progress of a run, running shards included.

        Raises:
            RunNotFoundError: There is no such run.
        """
        return self._ledger.progress(run_id_of(run_id))

    def watch(self, run_id: str, *, every_s: float = 1.0) -> Iterator[RunProgress]:
        """Yield the progress of a run every *every_s* seconds, until it has ended."""
        while True:
            run = self.get(run_id)
            yield self.progress(run_id)
            if run.is_final:
                return
            time.sleep(every_s)

    def wait(self, run_id: str, *, timeout_s: float) -> RunRecord:
        """Wait until a run has ended, and return its record.

        Raises:
            RunTimeoutError: It has not ended in time; it goes on.
            RunNotFoundError: There is no such run.
        """
        until = time.monotonic() + wait_s(timeout_s)
        while True:
            run = self.get(run_id)
            if run.is_final:
                return run
            left_s = until - time.monotonic()
            if left_s <= 0:
                raise RunTimeoutError(f"{run_id} is {run.state}")
            time.sleep(min(POLL_EVERY_S, left_s))

    def pause(self, run_id: str) -> None:
        """Begin no further shard; those in work are finished.

        Raises:
            RunNotFoundError: There is no such run.
            RunStateError: It has ended, or is ending.
        """
        self._steer(run_id, "pause")

    def resume(self, run_id: str) -> None:
        """Go on with a paused or a cancelled run; finished shards are not done again.

        Raises:
            RunNotFoundError: There is no such run.
            RunStateError: It has ended otherwise, or is ending.
        """
        self._steer(run_id, "resume")
        run = self.get(run_id)
        if not run.is_planned:
            self._open(plan_of(run_id, tenant=run.tenant, epoch=run.epoch))

    def cancel(self, run_id: str) -> None:
        """Stop a run, its running shards included; what is written stays, with a summary.

        Raises:
            RunNotFoundError: There is no such run.
            RunStateError: It has ended otherwise.
        """
        self._steer(run_id, "cancel")
        self._ledger.cancel_parts(self.get(run_id))

    def _steer(self, run_id: str, step: Any) -> None:
        run_id = run_id_of(run_id)
        if not self._ledger.steer(run_id, step):
            raise RunStateError(f"{run_id} is {self.get(run_id).state}: {step} is not possible")

    def errors(self, run_id: str, *, codes: Sequence[str] = ()) -> Iterator[ErrorLine]:
        """Yield the errors of a run from its files, in the order of its shards.

        Args:
            codes: Only these; all if there are none.

        Raises:
            RunNotFoundError: There is no such run.
            ServiceConfigError: S3 refused, or boto3 is missing; the text names the remedy.
            StorageUnavailableError: S3 gave no usable answer.
        """
        out = self.get(run_id).request.out
        wanted = frozenset(codes)
        for line in _outputs().read_errors(out, self._settings):
            if not wanted or line.code in wanted:
                yield line

    def pictures(self, old_run: str, *, most: int = 1_000) -> Sequence[str]:
        """Return addresses of pictures that a run labelled, from all parts of it.

        Args:
            old_run: Id of the run, or the prefix of its files, ``s3://bucket/prefix/``. Its results
                are JSON lines.
            most: No more than that many.

        Raises:
            RunNotFoundError: There is no such run.
            InvalidMessageError: It has no results as JSON lines yet.
            ServiceConfigError: S3 refused, or boto3 is missing; the text names the remedy.
            StorageUnavailableError: S3 gave no usable answer.
        """
        most = counted(most)
        if text(old_run, name="old_run").startswith(S3):
            out = old_run if old_run.endswith("/") else f"{old_run}/"
        else:
            out = self.get(old_run).request.out
        found: Sequence[str] = _outputs().read_pictures(out, self._settings, most=most)
        return found

    def download(self, run_id: str, folder: str | Path) -> Sequence[Path]:
        """Download the files of a run, and return their paths; equal files that are there are kept.

        Raises:
            RunNotFoundError: There is no such run.
            ServiceConfigError: S3 refused, or boto3 is missing; the text names the remedy.
            StorageUnavailableError: S3 gave no usable answer.
        """
        out = self.get(run_id).request.out
        files: Sequence[Path] = _outputs().download_outputs(out, Path(folder), self._settings)
        return files

    def rescore(
        self, old_run: str, labels: Labels, *, out: str | None = None, **options: Unpack[RunOptions]
    ) -> RunHandle:
        """Start a run that scores the embeddings of an old run against other labels.

        No picture is read, and the model is not used. Pictures that failed in the old run, and
        lines that name none, have no lines in the new one.

        Args:
            old_run: Id of a run that was started with ``embeddings`` and has ended, or the prefix
                of its files, ``s3://bucket/prefix/``.
            labels: As for :meth:`start`; labels of single lines do not count.
            out: Prefix that results are written below; by default the folder ``rescore-RUN_ID``
                below the old run's prefix.
            options: See :class:`labelyard.runs.options.RunOptions`; without ``source_format``,
                ``embeddings`` and ``columns``.

        Raises:
            RunNotFoundError: There is no such run.
            RunStateError: The old run has not ended, or has no embeddings.
            InvalidMessageError: Something is not as the contract wants it.
            IdempotencyConflictError: The idempotency key was used for another run.
        """
        source, labels = self._old_prefix(old_run), read_alias_of(self._label_sets, labels)
        request = make_rescore_run(self._settings, source, labels, out, options)
        return self.start_run(request)

    def _old_prefix(self, old_run: str) -> str:
        if text(old_run, name="old_run").startswith(S3):
            return old_run if old_run.endswith("/") else f"{old_run}/"
        run = self.get(old_run)
        if not run.is_final:
            raise RunStateError(f"{old_run} is {run.state}: wait until it has ended")
        if not run.request.embeddings:
            raise RunStateError(f"{old_run} has no embeddings: start runs with embeddings")
        return run.request.out

    def retry_errors(self, run_id: str, *, codes: Sequence[str] = ()) -> RunHandle:
        """Start a run over the failed lines of a run that has ended.

        Its files are written below ``retry-1/`` of the run's own prefix, then ``retry-2/`` and
        so on: a line's newest result counts.

        Args:
            codes: Lines with these errors; those that may succeed later if there are none.

        Raises:
            RunNotFoundError: There is no such run.
            RunStateError: It has not ended.
        """
        run = self.get(run_id)
        if not run.is_final:
            raise RunStateError(f"{run_id} is {run.state}: wait until it has ended")
        if run.request.source_format == "embeddings":
            raise RunStateError(f"{run_id} scores old embeddings: start it again instead")
        number = next(
            number
            for number in range(1, MAX_RETRIES)
            if self._ledger.read(f"{run_id}-retry-{number}") is None
        )
        changes = {
            "run_id": f"{run_id}-retry-{number}",
            "source": run.request.out,
            "source_format": "errors",
            "out": f"{run.request.out}retry-{number}/",
            "expires_at": None,
            "retry_of": run_id,
            "retry_codes": tuple(codes),
        }
        fields = run.request.model_dump(exclude_none=True)
        return self.start_run(RunRequest(**{**fields, **changes}))


def run_id_of(run_id: Any) -> str:
    """Return a run's id.

    Raises:
        InvalidMessageError: It is not text.
        RunNotFoundError: It cannot be one.
    """
    run_id = text(run_id, name="run_id")
    if not run_id.isascii() or len(run_id) > 128:
        raise RunNotFoundError(ascii(run_id)[:200])
    return str(run_id)


def _uploads() -> Any:
    """Import the uploads, which need a library that a client has only with an extra."""
    return importlib.import_module("labelyard.uploads")


def _outputs() -> Any:
    return importlib.import_module("labelyard.runs.outputs")
