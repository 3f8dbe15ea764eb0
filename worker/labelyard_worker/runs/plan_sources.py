"""Sources of plans: manifests, listings, and the failed lines or embeddings of another run."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from labelyard.runs.request import RunRequest
from labelyard_worker.runs.embedded_images import EmbeddedImages, OldRun
from labelyard_worker.runs.failed_lines import FailedLines, failed_run_of
from labelyard_worker.runs.sources.plan_parts import LineSource
from labelyard_worker.runs.sources.reader_process import ReaderProcess, SourceAddress
from labelyard_worker.runs.storage import RunStorage


@dataclass(frozen=True)
class PlanSources:
    """Opens the source of each run."""

    storage: RunStorage

    @contextmanager
    def open(
        self,
        request: RunRequest,
        checkpoint: Mapping[str, Any] | None,
        check: Callable[[], None],
    ) -> Iterator[LineSource]:
        """Open the source of a run at a checkpoint; ``None`` is its begin.

        Args:
            check: Raises if nobody wants the lines any more.

        Raises:
            RunSourceError: The source cannot be read.
            RunFilesError: The operator does not permit the old run's prefix.
            TransientError: Storage gave no usable answer, or the reader died.
        """
        if request.source_format == "errors":
            yield FailedLines(failed_run_of(self.storage, request), checkpoint=checkpoint)
            return
        if request.source_format == "embeddings":
            self.storage.check_old(request)
            yield EmbeddedImages(OldRun(self.storage, request.source), checkpoint=checkpoint)
            return
        address = SourceAddress(request.source, request.source_format, request.columns)
        with ReaderProcess(
            address, settings=self.storage.s3, checkpoint=checkpoint, check=check
        ) as reader:
            yield reader
