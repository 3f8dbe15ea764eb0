"""Steps that calls of both clients over a manifest share: read the set, upload, submit and wait."""

import asyncio
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypeVar, Unpack

from labelyard.evaluation.chosen_set import ChosenLabelSet, own_label_set, reference_of
from labelyard.evaluation.object_calls import ObjectCalls
from labelyard.evaluation.scored_images import Scoring
from labelyard.evaluation.stopwatch import Stopwatch
from labelyard.label_sets import LabelSetRegistry
from labelyard.label_sets.aliases import read_alias_of
from labelyard.label_sets.versions import is_alias
from labelyard.messages import Job
from labelyard.queues import SubmitQueue
from labelyard.submission import Image, JobOptions, Labels

if TYPE_CHECKING:
    from labelyard.label_sets.async_registry import AsyncLabelSetRegistry
    from labelyard.ledger import Record

AnyScoring = TypeVar("AnyScoring", bound=Scoring)
ScoringOut = TypeVar("ScoringOut", bound=Scoring, covariant=True)


class Prepared(Protocol[ScoringOut]):
    """Work on a manifest whose pictures can be scored."""

    @property
    def files(self) -> list[Path]:
        """Local files to upload, each once."""

    def scoring(self, addresses: Mapping[Path, str]) -> ScoringOut:
        """Return the scoring of the pictures, given the address of each uploaded file."""


class ScoringCalls(ObjectCalls):
    """Steps of :class:`labelyard.Client` that score a manifest."""

    label_sets: LabelSetRegistry

    if TYPE_CHECKING:

        def prepare(
            self, images: Iterable[Image], labels: Labels, **options: Unpack[JobOptions]
        ) -> Job: ...

        def submit_many(self, jobs: Iterable[Job], *, queue: SubmitQueue = ...) -> list[Any]: ...

        def as_completed(self, jobs: Iterable[Any], *, timeout_s: float) -> Iterator[Record]: ...

    def _choose(self, labels: Labels) -> ChosenLabelSet:
        """Read the label set that *labels* is or refers to."""
        labels = read_alias_of(self.label_sets, labels)
        reference = reference_of(labels)
        label_set = self.label_sets.get(reference) if reference else own_label_set(labels)
        return ChosenLabelSet(label_set, reference)

    def _score(
        self, prepared: Prepared[AnyScoring], *, queue: SubmitQueue, watch: Stopwatch
    ) -> AnyScoring:
        """Upload the pictures of a manifest, and score them."""
        scoring = prepared.scoring(self._upload(prepared.files))
        started_s = watch.seconds
        for window in scoring.windows(self.prepare):
            handles = self.submit_many(window, queue=queue)
            for record in self.as_completed(handles, timeout_s=watch.left_s):
                scoring.add(record)
        scoring.seconds = watch.seconds - started_s
        return scoring


class AsyncScoringCalls(ObjectCalls):
    """Steps of :class:`labelyard.AsyncClient` that score a manifest."""

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

    async def _choose(self, labels: Labels) -> ChosenLabelSet:
        """Read the label set that *labels* is or refers to."""
        if is_alias(labels):
            labels = await self.label_sets.alias(labels)
        reference = reference_of(labels)
        label_set = await self.label_sets.get(reference) if reference else own_label_set(labels)
        return ChosenLabelSet(label_set, reference)

    async def _score(
        self, prepared: Prepared[AnyScoring], *, queue: SubmitQueue, watch: Stopwatch
    ) -> AnyScoring:
        """Upload the pictures of a manifest, and score them."""
        scoring = prepared.scoring(await asyncio.to_thread(self._upload, prepared.files))
        started_s = watch.seconds
        for window in scoring.windows(self.prepare):
            handles = await self.submit_many(window, queue=queue)
            async for record in self.as_completed(handles, timeout_s=watch.left_s):
                scoring.add(record)
        scoring.seconds = watch.seconds - started_s
        return scoring
