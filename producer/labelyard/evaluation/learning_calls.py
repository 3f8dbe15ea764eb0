"""The calls ``teach`` and ``calibrate`` of both clients: new versions of a label set."""

import asyncio
from dataclasses import replace
from typing import TYPE_CHECKING, TypeVar

from labelyard.arguments import submit_queue, wait_s
from labelyard.evaluation.calibrating import Calibration, PreparedCalibration, prepare_calibration
from labelyard.evaluation.manifest import Manifest
from labelyard.evaluation.scoring_calls import AsyncScoringCalls, ScoringCalls
from labelyard.evaluation.stopwatch import Stopwatch
from labelyard.evaluation.teaching import PreparedTeaching, TaughtSet, prepare_teaching
from labelyard.messages import LabelSet
from labelyard.queues import Queue, SubmitQueue
from labelyard.submission import Labels

if TYPE_CHECKING:
    from labelyard.evaluation.none_of_these import LimitChoice

#: A new version of a label set, before and after it is registered.
Made = TypeVar("Made", TaughtSet, Calibration)


class LearningCalls(ScoringCalls):
    """Calls of :class:`labelyard.Client` that make better versions of a label set."""

    def teach(
        self,
        labels: Labels,
        manifest: Manifest,
        *,
        name: str | None = None,
        split: str | None = None,
        queue: SubmitQueue = Queue.BULK,
        timeout_s: float = 3600.0,
    ) -> TaughtSet:
        """Teach labels with pictures, and register the new version of the set.

        Args:
            labels: Names, ``Label`` objects, a ``LabelSet``, or ``name@sha256:…``.
            manifest: As for ``evaluate``. Lines with one label teach it: one to some thousand
                pictures for each, and labels without any stay as they are.
            name: Name to register the new version under; the reference's own if there is one.
            split: Lines to take; ``train`` if not given.
            queue: Queue of the jobs.
            timeout_s: Most seconds to wait for all jobs.

        Returns:
            The new version with its reference. The pictures are not kept, their vectors are.

        Raises:
            InvalidMessageError: A line or the set is wrong, or a picture cannot be read.
            UnknownLabelSetError: No label set is registered under the reference.
            ServiceConfigError: A library is missing, or S3 refused an upload.
            StorageUnavailableError: S3 gave no usable answer to an upload.
            ResultTimeoutError: Not all jobs were finished in time.
            ResultUnreadableError: The workers are older than the client.
        """
        queue, watch = submit_queue(queue), Stopwatch(wait_s(timeout_s))
        chosen = self._choose(labels)
        name = chosen.new_name(name)
        prepared = prepare_teaching(chosen.label_set, manifest, split=split)
        scoring = self._score(prepared, queue=queue, watch=watch)
        taught = prepared.teach(scoring, self.settings)
        self._store_examples(taught.body)
        return self._register(name, taught, parent=chosen.reference)

    def calibrate(
        self,
        labels: Labels,
        manifest: Manifest,
        *,
        precision: float,
        confidence: float = 0.9,
        none_of_these: "LimitChoice | None" = None,
        name: str | None = None,
        split: str | None = None,
        queue: SubmitQueue = Queue.BULK,
        timeout_s: float = 3600.0,
    ) -> Calibration:
        """Fit temperature and thresholds for a promised precision, and register the new version.

        Args:
            labels: As for :meth:`teach`.
            manifest: As for ``evaluate``; pictures that taught the set are refused.
            precision: Promised share of right answers among matched ones, 0.5 to 0.999.
            confidence: Probability with which the promise holds, 0.5 to 0.999.
            none_of_these: Fixes the ``fit`` below which a picture is abstained: ``labelled``, or
                the share of the pictures with a label that stays, 0.5 to 0.999.
            name: As for :meth:`teach`.
            split: Lines to take; ``calibration`` if not given.
            queue: Queue of the jobs.
            timeout_s: Most seconds to wait for all jobs.

        Returns:
            The new version with its reference, and for each label whether it is certified, or
            how many pictures it lacks; without enough evidence there is no threshold.

        Raises:
            InvalidMessageError: A line or the set is wrong, or a picture taught the set.
            LabelSetExamplesError: The set's examples are gone.
        """
        queue, watch = submit_queue(queue), Stopwatch(wait_s(timeout_s))
        chosen = self._choose(labels)
        name = chosen.new_name(name)
        prepared = prepare_calibration(
            chosen.label_set,
            manifest,
            reference=chosen.reference,
            split=split,
            precision=precision,
            confidence=confidence,
            none_of_these=none_of_these,
            examples=self._read_example_digests(chosen.label_set),
        )
        found = prepared.calibrate(self._score(prepared, queue=queue, watch=watch))
        return self._with_baseline(self._register(name, found, parent=chosen.reference))

    def _with_baseline(self, found: Calibration) -> Calibration:
        """Keep the answers of the new version, from which its drift is measured."""
        self.label_sets.set_baseline(str(found.reference), found.answers)
        return found

    def _register(self, name: str, made: Made, *, parent: str | None) -> Made:
        reference = self.label_sets.register(name, made.label_set, parent=parent, note=made.note)
        return replace(made, reference=reference)

    def _store_examples(self, body: bytes) -> None:
        """Write the object with the examples."""
        from labelyard.evaluation.example_store import store_examples

        store_examples(body, self.settings)

    def _read_example_digests(self, label_set: LabelSet) -> frozenset[str]:
        """Read the digests of the pictures that taught a set."""
        from labelyard.evaluation.example_store import read_example_digests

        return read_example_digests(label_set, self.settings)


class AsyncLearningCalls(AsyncScoringCalls):
    """Calls of :class:`labelyard.AsyncClient` that make better versions of a label set."""

    async def teach(
        self,
        labels: Labels,
        manifest: Manifest,
        *,
        name: str | None = None,
        split: str | None = None,
        queue: SubmitQueue = Queue.BULK,
        timeout_s: float = 3600.0,
    ) -> TaughtSet:
        """Teach labels with pictures, and register the new version of the set."""
        queue, watch = submit_queue(queue), Stopwatch(wait_s(timeout_s))
        chosen = await self._choose(labels)
        name = chosen.new_name(name)
        prepared: PreparedTeaching = await asyncio.to_thread(
            prepare_teaching, chosen.label_set, manifest, split=split
        )
        scoring = await self._score(prepared, queue=queue, watch=watch)
        taught = await asyncio.to_thread(prepared.teach, scoring, self.settings)
        await asyncio.to_thread(self._store_examples, taught.body)
        return await self._register(name, taught, parent=chosen.reference)

    async def calibrate(
        self,
        labels: Labels,
        manifest: Manifest,
        *,
        precision: float,
        confidence: float = 0.9,
        none_of_these: "LimitChoice | None" = None,
        name: str | None = None,
        split: str | None = None,
        queue: SubmitQueue = Queue.BULK,
        timeout_s: float = 3600.0,
    ) -> Calibration:
        """Fit temperature and thresholds for a promised precision, and register the new version."""
        queue, watch = submit_queue(queue), Stopwatch(wait_s(timeout_s))
        chosen = await self._choose(labels)
        name = chosen.new_name(name)
        prepared: PreparedCalibration = await asyncio.to_thread(
            prepare_calibration,
            chosen.label_set,
            manifest,
            reference=chosen.reference,
            split=split,
            precision=precision,
            confidence=confidence,
            none_of_these=none_of_these,
            examples=await asyncio.to_thread(self._read_example_digests, chosen.label_set),
        )
        scoring = await self._score(prepared, queue=queue, watch=watch)
        found = await asyncio.to_thread(prepared.calibrate, scoring)
        found = await self._register(name, found, parent=chosen.reference)
        await self.label_sets.set_baseline(str(found.reference), found.answers)
        return found

    async def _register(self, name: str, made: Made, *, parent: str | None) -> Made:
        reference = await self.label_sets.register(
            name, made.label_set, parent=parent, note=made.note
        )
        return replace(made, reference=reference)

    def _store_examples(self, body: bytes) -> None:
        """Write the object with the examples."""
        from labelyard.evaluation.example_store import store_examples

        store_examples(body, self.settings)

    def _read_example_digests(self, label_set: LabelSet) -> frozenset[str]:
        """Read the digests of the pictures that taught a set."""
        from labelyard.evaluation.example_store import read_example_digests

        return read_example_digests(label_set, self.settings)
