"""The calls ``teach``, ``calibrate`` and ``read_titles`` of both clients: fits to pictures."""

import asyncio
from typing import TYPE_CHECKING

from labelyard.evaluation.calibrating import Calibration, PreparedCalibration, prepare_calibration
from labelyard.evaluation.manifest import Manifest
from labelyard.evaluation.teaching import PreparedTeaching, TaughtSet, prepare_teaching
from labelyard.evaluation.titling import PreparedTitling, TitledSet, prepare_titling
from labelyard.evaluation.version_calls import AsyncVersionCalls, VersionCalls
from labelyard.queues import Queue, SubmitQueue
from labelyard.submission import Labels

if TYPE_CHECKING:
    from labelyard.evaluation.none_of_these import LimitChoice


class LearningCalls(VersionCalls):
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
        call = self._begin(labels, name=name, queue=queue, timeout_s=timeout_s)
        prepared = prepare_teaching(call.chosen.label_set, manifest, split=split)
        scoring = self._score(prepared, queue=call.queue, watch=call.watch)
        taught = prepared.teach(scoring, self.settings)
        self._store_examples(taught.body)
        return self._register(call, taught)

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
        call = self._begin(labels, name=name, queue=queue, timeout_s=timeout_s)
        prepared = prepare_calibration(
            call.chosen.label_set,
            manifest,
            reference=call.chosen.reference,
            split=split,
            precision=precision,
            confidence=confidence,
            none_of_these=none_of_these,
            examples=self._read_example_digests(call.chosen.label_set),
        )
        found = prepared.calibrate(self._score(prepared, queue=call.queue, watch=call.watch))
        found = self._register(call, found)
        self.label_sets.set_baseline(str(found.reference), found.answers)
        return found

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
        call = self._begin(labels, name=name, queue=queue, timeout_s=timeout_s)
        prepared = prepare_titling(
            call.chosen.label_set,
            manifest,
            reference=call.chosen.reference,
            split=split,
            examples=self._read_example_digests(call.chosen.label_set),
        )
        by_picture = self._score(prepared, queue=call.queue, watch=call.watch)
        by_title = self._score(prepared.by_titles(by_picture), queue=call.queue, watch=call.watch)
        found = prepared.fit(by_picture, by_title)
        return self._register(call, found)


class AsyncLearningCalls(AsyncVersionCalls):
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
        call = await self._begin(labels, name=name, queue=queue, timeout_s=timeout_s)
        prepared: PreparedTeaching = await asyncio.to_thread(
            prepare_teaching, call.chosen.label_set, manifest, split=split
        )
        scoring = await self._score(prepared, queue=call.queue, watch=call.watch)
        taught = await asyncio.to_thread(prepared.teach, scoring, self.settings)
        await asyncio.to_thread(self._store_examples, taught.body)
        return await self._register(call, taught)

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
        call = await self._begin(labels, name=name, queue=queue, timeout_s=timeout_s)
        prepared: PreparedCalibration = await asyncio.to_thread(
            prepare_calibration,
            call.chosen.label_set,
            manifest,
            reference=call.chosen.reference,
            split=split,
            precision=precision,
            confidence=confidence,
            none_of_these=none_of_these,
            examples=await self._example_digests(call.chosen.label_set),
        )
        scoring = await self._score(prepared, queue=call.queue, watch=call.watch)
        found = await asyncio.to_thread(prepared.calibrate, scoring)
        found = await self._register(call, found)
        await self.label_sets.set_baseline(str(found.reference), found.answers)
        return found

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
        call = await self._begin(labels, name=name, queue=queue, timeout_s=timeout_s)
        prepared: PreparedTitling = await asyncio.to_thread(
            prepare_titling,
            call.chosen.label_set,
            manifest,
            reference=call.chosen.reference,
            split=split,
            examples=await self._example_digests(call.chosen.label_set),
        )
        by_picture = await self._score(prepared, queue=call.queue, watch=call.watch)
        by_title = await self._score(
            prepared.by_titles(by_picture), queue=call.queue, watch=call.watch
        )
        found = await asyncio.to_thread(prepared.fit, by_picture, by_title)
        return await self._register(call, found)
