"""The call ``read_titles`` of both clients: a version of a label set that reads texts."""

import asyncio
from dataclasses import replace
from typing import TYPE_CHECKING

from labelyard.arguments import submit_queue, wait_s
from labelyard.evaluation.manifest import Manifest
from labelyard.evaluation.scoring_calls import AsyncScoringCalls, ScoringCalls
from labelyard.evaluation.stopwatch import Stopwatch
from labelyard.evaluation.titling import PreparedTitling, TitledSet, prepare_titling
from labelyard.messages import LabelSet
from labelyard.queues import Queue, SubmitQueue
from labelyard.submission import Labels


class TitlingCalls(ScoringCalls):
    """Call of :class:`labelyard.Client` that makes a label set read the text beside a picture."""

    if TYPE_CHECKING:

        def _read_example_digests(self, label_set: LabelSet) -> frozenset[str]: ...

    def read_titles(
        self,
        labels: Labels,
        manifest: Manifest,
        *,
        name: str | None = None,
        split: str | None = None,
        queue: SubmitQueue = Queue.BULK,
        timeout_s: float = 3600.0,
    ) -> TitledSet:
        """Fit how much the text beside a picture counts, and register the new version.

        Args:
            labels: Names, ``Label`` objects, a ``LabelSet``, or ``name@sha256:…``.
            manifest: As for ``evaluate``. Lines with a ``text`` and one label are taken; pictures
                that taught the set are refused.
            name: Name to register the new version under; the reference's own if there is one.
            split: Lines to take; ``train`` if not given.
            queue: Queue of the jobs.
            timeout_s: Most seconds to wait for all jobs.

        Returns:
            The new version with its reference. If texts do not clearly help, their weight is 0.

        Raises:
            InvalidMessageError: A line or the set is wrong, or a picture cannot be read.
            LabelSetExamplesError: The set's examples are gone.
            UnknownLabelSetError: No label set is registered under the reference.
            ServiceConfigError: A library is missing, or S3 refused an upload.
            StorageUnavailableError: S3 gave no usable answer to an upload.
            ResultTimeoutError: Not all jobs were finished in time.
        """
        queue, watch = submit_queue(queue), Stopwatch(wait_s(timeout_s))
        chosen = self._choose(labels)
        name = chosen.new_name(name)
        prepared = prepare_titling(
            chosen.label_set,
            manifest,
            reference=chosen.reference,
            split=split,
            examples=self._read_example_digests(chosen.label_set),
        )
        by_picture = self._score(prepared, queue=queue, watch=watch)
        by_title = self._score(prepared.by_titles(by_picture), queue=queue, watch=watch)
        found = prepared.fit(by_picture, by_title)
        reference = self.label_sets.register(
            name, found.label_set, parent=chosen.reference, note=found.note
        )
        return replace(found, reference=reference)


class AsyncTitlingCalls(AsyncScoringCalls):
    """Call of :class:`labelyard.AsyncClient` that makes a label set read texts."""

    if TYPE_CHECKING:

        def _read_example_digests(self, label_set: LabelSet) -> frozenset[str]: ...

    async def read_titles(
        self,
        labels: Labels,
        manifest: Manifest,
        *,
        name: str | None = None,
        split: str | None = None,
        queue: SubmitQueue = Queue.BULK,
        timeout_s: float = 3600.0,
    ) -> TitledSet:
        """Fit how much the text beside a picture counts, and register the new version."""
        queue, watch = submit_queue(queue), Stopwatch(wait_s(timeout_s))
        chosen = await self._choose(labels)
        name = chosen.new_name(name)
        prepared: PreparedTitling = await asyncio.to_thread(
            prepare_titling,
            chosen.label_set,
            manifest,
            reference=chosen.reference,
            split=split,
            examples=await asyncio.to_thread(self._read_example_digests, chosen.label_set),
        )
        by_picture = await self._score(prepared, queue=queue, watch=watch)
        by_title = await self._score(prepared.by_titles(by_picture), queue=queue, watch=watch)
        found = await asyncio.to_thread(prepared.fit, by_picture, by_title)
        reference = await self.label_sets.register(
            name, found.label_set, parent=chosen.reference, note=found.note
        )
        return replace(found, reference=reference)
