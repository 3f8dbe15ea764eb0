"""Queue of one rule: its events become jobs, in groups that share their round trips."""

import asyncio
import logging
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Final, Literal

from labelyard.async_client import AsyncClient
from labelyard.errors import JobNotFoundError, LabelyardError, LedgerUnavailableError, RequestError
from labelyard.ingest.counters import IngestCounters
from labelyard.ingest.events import ObjectEvent
from labelyard.ingest.job_maker import JobMaker
from labelyard.ingest.rules import IngestRule
from labelyard.label_sets.versions import Alias, is_alias
from labelyard.ledger.object_event_commands import ObjectEventClaim
from labelyard.ledger.object_event_marks import ObjectEventMarks
from labelyard.messages import Job, LabelSet

log: logging.Logger = logging.getLogger(__name__)

Outcome = Literal["job", "duplicate", "stale", "removed", "unusable"]
#: Jobs that are submitted together.
GROUP_JOBS: Final = 100
#: Seconds until a refused submit is tried again while its requests are held.
RETRY_S: Final = 0.1
#: Seconds until an object that another process has claimed is tried again.
BUSY_S: Final = 0.05


@dataclass(eq=False, slots=True)
class PendingEvent:
    """An event that waits for the record of its job.

    Attributes:
        answer: Its outcome, or the refusal.
        deadline: When its sender gets the refusal, by the loop's clock.
        queued_at: When it came.
        not_before: When it may be claimed.
        is_answered: Whether it has its answer, also if nobody waits for it any more.
    """

    event: ObjectEvent
    answer: "asyncio.Future[Outcome]"
    deadline: float
    queued_at: float
    not_before: float = 0.0
    is_answered: bool = False


@dataclass(slots=True)
class JobGroup:
    """Events that become one job together.

    Attributes:
        job: The job, whose id the events are claimed for; its images are those of *pending*.
        pending: The events; after the claim, those that are to be part of the job.
        superseded: Jobs of older events of the same objects.
    """

    job: Job
    pending: list[PendingEvent]
    superseded: list[str] = field(default_factory=list)


class RuleQueue:
    """Makes jobs of the events of one rule; one task serves it, see :meth:`run`."""

    def __init__(
        self,
        rule: IngestRule,
        *,
        labels: LabelSet | str,
        client: AsyncClient,
        marks: ObjectEventMarks,
        hold_s: float,
        counters: IngestCounters,
    ) -> None:
        """Serve *rule*.

        Args:
            labels: The rule's label set, the reference of a registered one, or an alias.
            hold_s: Seconds that a refused event is tried again before its sender gets the refusal.
        """
        self._rule = rule
        self._labels = labels
        self._maker = JobMaker(rule, labels=labels, settings=client.settings)
        self._client = client
        self._marks = marks
        self._hold_s = hold_s
        self._counters = counters
        self._waiting: deque[PendingEvent] = deque()
        self._changed = asyncio.Event()
        self._is_hurried = False
        self._is_closing = False
        self._is_aborted = False
        self._refusal: LabelyardError | None = None

    def put(self, event: ObjectEvent) -> "asyncio.Future[Outcome]":
        """Queue an event; the future has its outcome once its job has a record."""
        loop = asyncio.get_running_loop()
        now = loop.time()
        batch_wait_s = self._rule.batch_wait_s if self._rule.batch > 1 else 0.0
        pending = PendingEvent(
            event, loop.create_future(), deadline=now + batch_wait_s + self._hold_s, queued_at=now
        )
        self._waiting.append(pending)
        self._counters.waiting += 1
        self._changed.set()
        return pending.answer

    def hurry(self) -> None:
        """Submit at once from now on: nothing waits for a fuller batch or is held."""
        self._is_hurried = True
        self._changed.set()

    def close(self) -> None:
        """End :meth:`run` after the queued events."""
        self._is_closing = True
        self._changed.set()

    def abort(self) -> None:
        """End :meth:`run` after the current call, even if events are queued.

        A cancellation does not suffice: redis-py swallows one that comes while it connects.
        """
        self._is_aborted = True
        self._changed.set()

    async def run(self) -> None:
        """Submit queued events until the queue is closed and empty."""
        while await self._wait_for_events():
            chosen, removals = self._choose()
            try:
                await self._note_removals(removals)
                await self._submit(chosen)
            except LabelyardError as error:
                self._refuse([*chosen, *removals], error)
            except Exception as error:  # the queue must go on, and its senders get an answer
                log.exception("ingest_failed", extra={"fields": {"rule": self._rule.name}})
                self._refuse([*chosen, *removals], LedgerUnavailableError(type(error).__name__))

    async def _wait_for_events(self) -> bool:
        """Wait until a group is full or due; ``False`` if the queue is closed and empty."""
        loop = asyncio.get_running_loop()
        while True:
            self._changed.clear()
            if self._is_aborted or (self._is_closing and not self._waiting):
                return False
            if self._waiting and (left_s := self._wait_s(loop.time())) <= 0:
                return True
            try:
                async with asyncio.timeout(left_s if self._waiting else None):
                    await self._changed.wait()
            except TimeoutError:
                continue

    def _wait_s(self, now: float) -> float:
        """Return the seconds until the next group should be made."""
        ready = [one for one in self._waiting if one.not_before <= now]
        if not ready:
            return min(one.not_before for one in self._waiting) - now
        if self._rule.batch == 1 or self._is_hurried or len(ready) >= self._rule.batch:
            return 0.0
        return ready[0].queued_at + self._rule.batch_wait_s - now

    def _choose(self) -> tuple[list[PendingEvent], list[PendingEvent]]:
        """Take queued events and removals: at most one of each object, in their order."""
        now = asyncio.get_running_loop().time()
        chosen: list[PendingEvent] = []
        removals: list[PendingEvent] = []
        kept: deque[PendingEvent] = deque()
        marks: set[str] = set()
        for pending in self._waiting:
            mark = self._mark(pending.event)
            if self._refusal is not None and pending.deadline < now:
                self._refuse_one(pending, self._refusal)
            elif (
                pending.not_before > now
                or mark in marks  # a later event of an object must not pass an earlier one
                or len(chosen) == GROUP_JOBS * self._rule.batch
            ):
                kept.append(pending)
            elif pending.event.is_removal:
                removals.append(pending)
            elif self._is_usable(pending):
                chosen.append(pending)
            marks.add(mark)
        self._waiting = kept
        return chosen, removals

    def _is_usable(self, pending: PendingEvent) -> bool:
        """Return whether a job can be made of the event; else it is answered."""
        try:
            self._maker.check(pending.event)
        except RequestError as error:
            fields = {"rule": self._rule.name, "code": error.code, "reason": error.args[0]}
            log.warning("ingest_event_unusable", extra={"fields": fields})
            self._resolve(pending, "unusable")
            return False
        return True

    async def _submit(self, chosen: list[PendingEvent]) -> None:
        if not chosen:
            return
        size, labels = self._rule.batch, await self._read_alias()
        groups = [
            JobGroup(self._maker.make([one.event for one in part], labels), part)
            for part in (chosen[at : at + size] for at in range(0, len(chosen), size))
        ]
        deadline = min(one.deadline for one in chosen)
        await self._held(lambda: self._claim(groups), deadline=deadline)
        claimed = [group for group in groups if group.pending]
        if not claimed:
            return
        claims = [self._claim_of(one, group) for group in claimed for one in group.pending]
        jobs = [
            self._maker.with_images(group.job, [one.event for one in group.pending])
            for group in claimed
        ]
        try:
            await self._held(
                lambda: self._client.submit_many(jobs, queue=self._rule.queue), deadline=deadline
            )
        except LabelyardError:
            await self._settle(claims, is_kept=False)
            raise
        self._refusal = None
        await self._settle(claims, is_kept=True)
        self._counters.note_jobs(self._rule.name, len(jobs))
        for group in claimed:
            for pending in group.pending:
                self._resolve(pending, "job")
        await self._cancel([job_id for group in claimed for job_id in group.superseded])

    async def _read_alias(self) -> Alias | None:
        """Read the rule's alias, with the version that it names now; ``None`` if it has none."""
        return await self._client.label_sets.alias(self._labels) if is_alias(self._labels) else None

    async def _claim(self, groups: list[JobGroup]) -> None:
        """Claim all events, and keep in each group those that are to be part of its job."""
        asked = [(group, pending) for group in groups for pending in group.pending]
        answers = await self._marks.claim([self._claim_of(one, group) for group, one in asked])
        now = asyncio.get_running_loop().time()
        for group in groups:
            group.pending = []
        for (group, pending), answer in zip(asked, answers, strict=True):
            if answer.verdict == "claimed":
                group.pending.append(pending)
                if answer.job_id and not self._rule.every_version:
                    group.superseded.append(answer.job_id)
            elif answer.verdict != "busy":
                self._resolve(pending, answer.verdict)
            elif pending.deadline <= now:
                self._refuse_one(pending, LedgerUnavailableError("another process has a claim"))
            else:
                pending.not_before = now + min(BUSY_S, answer.wait_s)
                self._waiting.append(pending)

    def _mark(self, event: ObjectEvent) -> str:
        return event.mark(has_version=self._rule.every_version)

    def _claim_of(self, pending: PendingEvent, group: JobGroup | None) -> ObjectEventClaim:
        event = pending.event
        return ObjectEventClaim(
            mark=(self._rule.name, self._mark(event)),
            identity=event.identity,
            order=event.order.kind,
            first=event.order.first,
            last=event.order.last,
            job_id=group.job.job_id if group is not None else "",
            is_alone=self._rule.batch == 1,
        )

    async def _held(self, call: Callable[[], Awaitable[object]], *, deadline: float) -> None:
        """Repeat *call* until *deadline* while it is refused for now."""
        loop = asyncio.get_running_loop()
        while True:
            try:
                await call()
            except LabelyardError as error:
                self._refusal = error
                is_late = loop.time() + RETRY_S >= deadline
                if not error.is_retryable or is_late or self._is_hurried:
                    raise
                await asyncio.sleep(RETRY_S)
            else:
                return

    async def _settle(self, claims: list[ObjectEventClaim], *, is_kept: bool) -> None:
        """Settle claims; if the ledger is away, the record of the job settles them later."""
        try:
            await self._marks.settle(claims, is_kept=is_kept)
        except LedgerUnavailableError as error:
            log.warning("ingest_claims_unsettled", extra={"fields": {"code": error.code}})

    async def _note_removals(self, removals: list[PendingEvent]) -> None:
        """Note removals whose time is exact, so that an older event makes no job."""
        exact = [one for one in removals if one.event.order.kind == "sequencer"]
        if exact:
            await self._marks.claim([self._claim_of(one, None) for one in exact])
        for pending in removals:
            self._resolve(pending, "removed")

    async def _cancel(self, job_ids: list[str]) -> None:
        """Cancel the jobs of older events; one that has ended stays as it is."""
        for job_id in job_ids:
            try:
                if await self._client.cancel(job_id):
                    self._counters.note_event("superseded", rule=self._rule.name)
            except JobNotFoundError:
                continue
            except LabelyardError as error:
                fields = {"job_id": job_id, "code": error.code}
                log.warning("ingest_cancel_failed", extra={"fields": fields})

    def _resolve(self, pending: PendingEvent, outcome: Outcome) -> None:
        self._note(pending, outcome)
        if not pending.answer.done():
            pending.answer.set_result(outcome)

    def _refuse(self, chosen: list[PendingEvent], error: LabelyardError) -> None:
        """Refuse the events that have no answer and are not queued again."""
        queued = set(map(id, self._waiting))
        for pending in chosen:
            if not pending.is_answered and id(pending) not in queued:
                self._refuse_one(pending, error)

    def _refuse_one(self, pending: PendingEvent, error: LabelyardError) -> None:
        self._note(pending, "refused")
        if not pending.answer.done():
            pending.answer.set_exception(error)

    def _note(self, pending: PendingEvent, outcome: str) -> None:
        pending.is_answered = True
        self._counters.waiting -= 1
        self._counters.note_event(outcome, rule=self._rule.name)
