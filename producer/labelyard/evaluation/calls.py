"""The call ``evaluate`` of both clients: score a manifest as jobs, and measure the scores."""

import asyncio
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Unpack

from labelyard.arguments import submit_queue, wait_s
from labelyard.evaluation.evaluation import Evaluation
from labelyard.evaluation.manifest import Manifest
from labelyard.evaluation.preparation import PreparedEvaluation, Stopwatch, prepare_evaluation
from labelyard.label_sets import LabelSetRegistry, as_label_set
from labelyard.messages import Job
from labelyard.queues import Queue, SubmitQueue
from labelyard.settings import ClientSettings
from labelyard.submission import Image, JobOptions, Labels
from labelyard.uploads import upload_files

if TYPE_CHECKING:
    from labelyard.async_registries import AsyncLabelSetRegistry
    from labelyard.ledger import Record


class EvaluationCalls:
    """Call of :class:`labelyard.Client` that evaluates a label set."""

    settings: ClientSettings
    label_sets: LabelSetRegistry

    if TYPE_CHECKING:

        def prepare(
            self, images: Iterable[Image], labels: Labels, **options: Unpack[JobOptions]
        ) -> Job: ...

        def submit_many(self, jobs: Iterable[Job], *, queue: SubmitQueue = ...) -> list[Any]: ...

        def as_completed(self, jobs: Iterable[Any], *, timeout_s: float) -> Iterator[Record]: ...

    def evaluate(
        self,
        labels: Labels,
        manifest: Manifest,
        *,
        split: str | None = None,
        require: Sequence[str] = (),
        queue: SubmitQueue = Queue.BULK,
        timeout_s: float = 3600.0,
    ) -> Evaluation:
        """Score labelled pictures, and measure how good the labels are.

        Args:
            labels: Names, ``Label`` objects, a ``LabelSet``, or ``name@sha256:…``.
            manifest: File of JSON lines, or its lines as objects: ``image`` is an address or a
                local file, which is uploaded; ``label`` or ``labels`` is what it shows, ``None``
                for none of these; ``split`` names a part.
            split: Lines to take. Without one: ``test`` if a line has it, else all lines.
            require: Requirements such as ``accuracy>=0.9``; the result's ``passed`` is whether
                they hold.
            queue: Queue of the jobs.
            timeout_s: Most seconds to wait for all jobs.

        Returns:
            The figures; ``write(folder)`` writes them, with a page for people.

        Raises:
            InvalidMessageError: A line, a requirement or the set is wrong; nothing was submitted.
            UnknownLabelSetError: No label set is registered under the reference.
            ServiceConfigError: A library is missing, or S3 refused an upload.
            StorageUnavailableError: S3 gave no usable answer to an upload.
            ResultTimeoutError: Not all jobs were finished in time.
        """
        queue, watch = submit_queue(queue), Stopwatch(wait_s(timeout_s))
        reference = reference_of(labels)
        label_set = self.label_sets.get(reference) if reference else as_label_set(labels)
        prepared = prepare_evaluation(
            label_set, manifest, reference=reference, split=split, require=require
        )
        scoring = prepared.scoring(self._upload(prepared.files))
        started_s = watch.seconds
        for window in scoring.windows(self.prepare):
            handles = self.submit_many(window, queue=queue)
            for record in self.as_completed(handles, timeout_s=watch.left_s):
                scoring.add(record)
        return prepared.measure(scoring, seconds=watch.seconds - started_s)

    def _upload(self, files: Sequence[Path]) -> Mapping[Path, str]:
        """Upload local files, and return the address of each."""
        return upload(files, self.settings)


class AsyncEvaluationCalls:
    """Call of :class:`labelyard.AsyncClient` that evaluates a label set."""

    settings: ClientSettings
    label_sets: "AsyncLabelSetRegistry"

    if TYPE_CHECKING:

        def prepare(
            self, images: Iterable[Image], labels: Labels, **options: Unpack[JobOptions]
        ) -> Job: ...

        async def submit_many(
            self, jobs: Iterable[Job], *, queue: SubmitQueue = ...
        ) -> list[Any]: ...

        def as_completed(
            self, jobs: Iterable[Any], *, timeout_s: float
        ) -> AsyncIterator[Record]: ...

    async def evaluate(
        self,
        labels: Labels,
        manifest: Manifest,
        *,
        split: str | None = None,
        require: Sequence[str] = (),
        queue: SubmitQueue = Queue.BULK,
        timeout_s: float = 3600.0,
    ) -> Evaluation:
        """Score labelled pictures, and measure how good the labels are."""
        queue, watch = submit_queue(queue), Stopwatch(wait_s(timeout_s))
        reference = reference_of(labels)
        label_set = await self.label_sets.get(reference) if reference else as_label_set(labels)
        prepared: PreparedEvaluation = await asyncio.to_thread(
            prepare_evaluation,
            label_set,
            manifest,
            reference=reference,
            split=split,
            require=require,
        )
        scoring = prepared.scoring(await asyncio.to_thread(self._upload, prepared.files))
        started_s = watch.seconds
        for window in scoring.windows(self.prepare):
            handles = await self.submit_many(window, queue=queue)
            async for record in self.as_completed(handles, timeout_s=watch.left_s):
                scoring.add(record)
        return await asyncio.to_thread(prepared.measure, scoring, seconds=watch.seconds - started_s)

    def _upload(self, files: Sequence[Path]) -> Mapping[Path, str]:
        """Upload local files, and return the address of each."""
        return upload(files, self.settings)


def reference_of(labels: Labels) -> str | None:
    """Return the reference that *labels* is, if it is one."""
    return labels if isinstance(labels, str) and "@sha256:" in labels else None


def upload(files: Sequence[Path], settings: ClientSettings) -> Mapping[Path, str]:
    """Upload local files, and return the address of each."""
    return dict(zip(files, upload_files(files, settings), strict=True)) if files else {}
