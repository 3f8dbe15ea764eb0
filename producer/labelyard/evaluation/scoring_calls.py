"""Steps that calls of both clients over a manifest share: read the set, upload, submit and wait."""

import asyncio
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypeVar, Unpack

from labelyard.errors import RunTimeoutError
from labelyard.evaluation.chosen_set import ChosenLabelSet, own_label_set, reference_of
from labelyard.evaluation.object_calls import ObjectCalls
from labelyard.evaluation.scored_images import Scoring
from labelyard.evaluation.scoring_run import shard_ids
from labelyard.evaluation.stopwatch import Stopwatch
from labelyard.label_sets import LabelSetRegistry
from labelyard.label_sets.aliases import read_alias_of
from labelyard.label_sets.versions import is_alias
from labelyard.messages import Job
from labelyard.queues import SubmitQueue
from labelyard.submission import Image, JobOptions, Labels

if TYPE_CHECKING:
    from labelyard.label_sets.async_registry import AsyncLabelSetRegistry
    from labelyard.ledger import Ledger, Record
    from labelyard.runs.async_client import AsyncRuns
    from labelyard.runs.client import Runs

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
    runs: "Runs"

    if TYPE_CHECKING:
        _ledger: Ledger

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

    def _score_by_run(self, prepared: Prepared[Scoring], *, out: str, watch: Stopwatch) -> Scoring:
        """Upload the pictures of a manifest, and have a run score them."""
        run, request = self._prepare_run(prepared, out)
        handle = self.runs.start_run(request)
        with run_goes_on(handle.id):
            record = handle.wait(timeout_s=watch.left_s)
        return run.read(record, self._ledger.read_many(shard_ids(record)))


class AsyncScoringCalls(ObjectCalls):
    """Steps of :class:`labelyard.AsyncClient` that score a manifest."""

    label_sets: "AsyncLabelSetRegistry"
    runs: "AsyncRuns"

    if TYPE_CHECKING:
        _threads_ledger: Ledger

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

    async def _score_by_run(
        self, prepared: Prepared[Scoring], *, out: str, watch: Stopwatch
    ) -> Scoring:
        """Upload the pictures of a manifest, and have a run score them."""
        run, request = await asyncio.to_thread(self._prepare_run, prepared, out)
        handle = await self.runs.start_run(request)
        with run_goes_on(handle.id):
            record = await handle.wait(timeout_s=watch.left_s)
        shards = await asyncio.to_thread(self._threads_ledger.read_many, shard_ids(record))
        return await asyncio.to_thread(run.read, record, shards)


@contextmanager
def run_goes_on(run_id: str) -> Iterator[None]:
    """Note at a timeout inside the block that the run goes on, and how to come back to it."""
    try:
        yield
    except RunTimeoutError as error:
        error.add_note(how_to_come_back(run_id))
        raise


def how_to_come_back(run_id: str) -> str:
    """Say how a caller that stopped to wait for its run comes back to it, or stops it."""
    return (
        f"the run {run_id} goes on: evaluate again with the same manifest, label set and prefix "
        f"to go on with it, or stop it with: labelyard run cancel {run_id}"
    )
