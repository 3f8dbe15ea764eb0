"""Scoring of a manifest without servers: a rule answers in place of a run's workers."""

from labelyard.evaluation.scored_images import Scoring
from labelyard.evaluation.scoring_calls import AsyncScoringCalls, Prepared, ScoringCalls
from labelyard.evaluation.stopwatch import Stopwatch
from labelyard.queues import Queue


class FakeScoring(ScoringCalls):
    """Step of :class:`labelyard.testing.FakeClient` that would need a run."""

    def _score_by_run(
        self,
        prepared: Prepared[Scoring],
        *,
        out: str,  # noqa: ARG002 - as of the client
        watch: Stopwatch,
    ) -> Scoring:
        """Have the rule score the pictures, as jobs; no file is written."""
        return self._score(prepared, queue=Queue.BULK, watch=watch)


class AsyncFakeScoring(AsyncScoringCalls):
    """Step of :class:`labelyard.testing.AsyncFakeClient` that would need a run."""

    async def _score_by_run(
        self,
        prepared: Prepared[Scoring],
        *,
        out: str,  # noqa: ARG002 - as of the client
        watch: Stopwatch,
    ) -> Scoring:
        """Have the rule score the pictures, as jobs; no file is written."""
        return await self._score(prepared, queue=Queue.BULK, watch=watch)
