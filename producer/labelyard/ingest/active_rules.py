"""Rules at work: a queue for each, from a start or a reload to the next."""

import asyncio
import logging
from collections.abc import Mapping
from typing import Final

from labelyard.async_client import AsyncClient
from labelyard.errors import UnknownLabelSetError
from labelyard.ingest.counters import IngestCounters
from labelyard.ingest.events import ObjectEvent
from labelyard.ingest.rule_queue import Outcome, RuleQueue
from labelyard.ingest.rules import IngestRule, IngestRules
from labelyard.label_sets.versions import is_alias
from labelyard.ledger import AsyncLedger
from labelyard.ledger.object_event_marks import LEASE_S, ObjectEventMarks
from labelyard.messages import LabelSet

log: logging.Logger = logging.getLogger(__name__)
Answer = asyncio.Future[Outcome]
#: Seconds beyond the longest hold in which an answer of the ledger may come.
ANSWER_S: Final = 10.0
#: Seconds after which a task that has not ended is cancelled again.
CANCEL_AGAIN_S: Final = 0.5


async def find_labels(rules: IngestRules, client: AsyncClient) -> dict[str, LabelSet | str]:
    """Find the label set of each rule; a registered one is looked up, by its newest version.

    An alias stays one: it is read again for each group of jobs.

    Raises:
        UnknownLabelSetError: One is not registered.
        LedgerUnavailableError: The ledger gave no answer.
    """
    found: dict[str, LabelSet | str] = {}
    for rule in rules.rules:
        if rule.labels is not None:
            found[rule.name] = rule.labels
            continue
        reference = rule.label_set or ""
        if is_alias(reference):
            await client.label_sets.alias(reference)
            found[rule.name] = reference
            continue
        if "@" not in reference:
            versions = await client.label_sets.versions(reference)
            if not versions:
                raise UnknownLabelSetError(f"rule {rule.name}: no label set {reference!r}")
            reference = versions[-1]
        await client.label_sets.get(reference)
        found[rule.name] = reference
    return found


class ActiveRules:
    """The queues of one rule file's rules."""

    def __init__(
        self,
        rules: IngestRules,
        *,
        labels: Mapping[str, LabelSet | str],
        client: AsyncClient,
        ledger: AsyncLedger,
        counters: IngestCounters,
    ) -> None:
        """Make the queues; :meth:`start` serves them.

        Args:
            labels: Label set of each rule; see :func:`find_labels`.
        """
        self.rules: IngestRules = rules
        limits = rules.limits
        marks = ObjectEventMarks(ledger, window_s=limits.window_s, lease_s=limits.hold_s + LEASE_S)
        self._queues = {
            rule.name: RuleQueue(
                rule,
                labels=labels[rule.name],
                client=client,
                marks=marks,
                hold_s=limits.hold_s,
                counters=counters,
            )
            for rule in rules.rules
        }
        self._counters = counters
        self._tasks: list[asyncio.Task[None]] = []

    @property
    def answer_s(self) -> float:
        """Longest time for the answer to a request, in seconds."""
        batching = [rule.batch_wait_s for rule in self.rules.rules if rule.batch > 1]
        return self.rules.limits.hold_s + max(batching, default=0.0) + ANSWER_S

    @property
    def is_alive(self) -> bool:
        """Whether each queue has a task that serves it."""
        return not any(task.done() for task in self._tasks)

    def start(self) -> None:
        """Start a task for each queue."""
        self._tasks = [asyncio.create_task(one.run()) for one in self._queues.values()]

    def hurry(self) -> None:
        """Let the queues submit the events that they hold, and later ones, at once."""
        for queue in self._queues.values():
            queue.hurry()

    async def close(self) -> None:
        """Let the queues submit the events that they hold, and end their tasks."""
        for queue in self._queues.values():
            queue.close()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def abort(self) -> None:
        """End the tasks at once; unanswered events are sent again by their senders."""
        for queue in self._queues.values():
            queue.abort()
        running = {task for task in self._tasks if not task.done()}
        while running:
            for task in running:
                task.cancel()
            _, running = await asyncio.wait(running, timeout=CANCEL_AGAIN_S)

    def put(self, event: ObjectEvent) -> list[Answer]:
        """Queue an event for each rule that takes it; counts it if there is none."""
        if event.is_removal:
            return self._put_removal(event)
        taking = self.rules.matching(event)
        if not taking:
            self._counters.note_event("unmatched")
        return [self._queues[rule.name].put(event) for rule in taking]

    def _put_removal(self, event: ObjectEvent) -> list[Answer]:
        """Queue a removal for the rules that must not take an older event any more."""
        noting = [rule for rule in self.rules.rules if self._notes(rule, event)]
        if not noting:
            self._counters.note_event("removed")
        return [self._queues[rule.name].put(event) for rule in noting]

    def _notes(self, rule: IngestRule, event: ObjectEvent) -> bool:
        """Return whether a rule keeps the time of a removal: one that is exact can be compared."""
        is_exact = event.order.kind == "sequencer"
        is_there = rule.place_mismatch(event.bucket, event.key) is None
        return is_exact and is_there and not rule.every_version
