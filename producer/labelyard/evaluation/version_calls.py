"""Steps that calls of both clients share if they make a new version of a label set."""

import asyncio
from dataclasses import dataclass, replace
from typing import TypeVar

from labelyard.arguments import submit_queue, wait_s
from labelyard.evaluation.adapting import AdaptedSet
from labelyard.evaluation.calibrating import Calibration
from labelyard.evaluation.chosen_set import ChosenLabelSet
from labelyard.evaluation.scoring_calls import AsyncScoringCalls, ScoringCalls
from labelyard.evaluation.stopwatch import Stopwatch
from labelyard.evaluation.teaching import TaughtSet
from labelyard.evaluation.titling import TitledSet
from labelyard.messages import LabelSet
from labelyard.queues import SubmitQueue
from labelyard.submission import Labels

#: A new version of a label set, before and after it is registered.
Made = TypeVar("Made", TaughtSet, Calibration, AdaptedSet, TitledSet)


@dataclass(frozen=True, slots=True)
class VersionCall:
    """Checked arguments of a call that makes a new version.

    Attributes:
        chosen: The set that it is made from.
        name: Name to register it under.
        queue: Queue of the jobs.
        watch: Time limit of the call.
    """

    chosen: ChosenLabelSet
    name: str
    queue: SubmitQueue
    watch: Stopwatch


class VersionCalls(ScoringCalls):
    """Steps of :class:`labelyard.Client` around a fit."""

    def _begin(
        self, labels: Labels, *, name: str | None, queue: SubmitQueue, timeout_s: float
    ) -> VersionCall:
        """Check the arguments, and read the label set."""
        queue, watch = submit_queue(queue), Stopwatch(wait_s(timeout_s))
        chosen = self._choose(labels)
        return VersionCall(chosen, chosen.new_name(name), queue, watch)

    def _register(self, call: VersionCall, made: Made, *, author: str = "", note: str = "") -> Made:
        """Register a new version, and return it with its reference."""
        reference = self.label_sets.register(
            call.name,
            made.label_set,
            parent=call.chosen.reference,
            author=author,
            note=note or made.note,
        )
        return replace(made, reference=reference)


class AsyncVersionCalls(AsyncScoringCalls):
    """Steps of :class:`labelyard.AsyncClient` around a fit; storage is read in threads."""

    async def _begin(
        self, labels: Labels, *, name: str | None, queue: SubmitQueue, timeout_s: float
    ) -> VersionCall:
        """Check the arguments, and read the label set."""
        queue, watch = submit_queue(queue), Stopwatch(wait_s(timeout_s))
        chosen = await self._choose(labels)
        return VersionCall(chosen, chosen.new_name(name), queue, watch)

    async def _register(self, call: VersionCall, made: Made) -> Made:
        """Register a new version, and return it with its reference."""
        reference = await self.label_sets.register(
            call.name, made.label_set, parent=call.chosen.reference, note=made.note
        )
        return replace(made, reference=reference)

    async def _example_digests(self, label_set: LabelSet) -> frozenset[str]:
        """Read the digests of the pictures that taught a set, in a thread."""
        return await asyncio.to_thread(self._read_example_digests, label_set)
