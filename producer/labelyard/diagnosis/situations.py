"""Decide in which situation a job is, from what the ledger and the broker show of it."""

from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from pydantic import PositiveFloat, PositiveInt

from labelyard.ledger.inspection import Inspection
from labelyard.ledger.limits import PRESENCE_S
from labelyard.ledger.records import Record
from labelyard.message_search import MessageSearch
from labelyard.queues import Queue
from labelyard.settings import ClientSettings

#: Two messages that are published at once may overtake each other by so many seconds.
OVERTAKING_S: Final = 2.0


class DiagnosisSettings(ClientSettings):
    """Settings of a producer, and those of the workers that a diagnosis needs to count seconds.

    Attributes:
        visibility_timeout_s: As the workers have it.
        max_attempts: As the workers have it.
        dead_after: As the workers have it.
        reconcile_every_s: As the workers have it.
        reconcile_after_s: As the workers have it.
    """

    visibility_timeout_s: PositiveInt = 120
    max_attempts: PositiveInt = 5
    dead_after: PositiveInt = 2
    reconcile_every_s: PositiveFloat = 15.0
    reconcile_after_s: PositiveFloat = 30.0


class Situation(StrEnum):
    """Situation of a job, as an operator distinguishes them; docs/operations.md has a table."""

    UNKNOWN = "unknown"
    DROPPED = "dropped"
    UNRECORDED = "unrecorded"
    SET_ASIDE = "set_aside"
    QUEUED = "queued"
    UNACKNOWLEDGED = "unacknowledged"
    LOST = "lost"
    UNCLEAR = "unclear"
    DUE = "due"
    QUARANTINED = "quarantined"
    OVERDUE = "overdue"
    RUNNING = "running"
    ABANDONED = "abandoned"
    WORKER_DIED = "worker_died"
    DELIVERING = "delivering"
    UNDELIVERED = "undelivered"
    DEAD_LETTER = "dead_letter"
    FINISHED = "finished"


@dataclass(frozen=True, slots=True)
class Evidence:
    """Facts about a job, as read from the ledger and the broker.

    Attributes:
        search: ``None`` if the broker gave no answer.
        broker_fault: Why not; empty if it did.
    """

    job_id: str
    settings: DiagnosisSettings
    ledger: Inspection
    search: MessageSearch | None
    broker_fault: str = ""

    @property
    def record(self) -> Record:
        """The job's record.

        Raises:
            LookupError: There is none.
        """
        if self.ledger.record is None:
            raise LookupError(f"{self.job_id} has no record")
        return self.ledger.record


def situation_of(evidence: Evidence) -> Situation:
    """Decide in which situation a job is."""
    ledger = evidence.ledger
    if ledger.record is None:
        return _without_record(evidence)
    if ledger.record.is_final:
        return _when_final(ledger, ledger.record)
    if ledger.record.expires_at is not None and ledger.record.expires_at <= ledger.now:
        return Situation.OVERDUE
    if ledger.record.state == "running":
        return _when_running(ledger)
    if ledger.record.queue == Queue.QUARANTINE:
        return Situation.QUARANTINED
    if ledger.due_at is not None:
        return Situation.DUE
    return _where_message_is(evidence)


def _without_record(evidence: Evidence) -> Situation:
    if evidence.ledger.tombstone:
        return Situation.DROPPED
    if evidence.ledger.set_aside:
        return Situation.SET_ASIDE
    if evidence.search is not None and evidence.search.messages:
        return Situation.UNRECORDED
    return Situation.UNKNOWN


def _when_final(ledger: Inspection, record: Record) -> Situation:
    if ledger.is_dead_letter:
        return Situation.DEAD_LETTER
    if record.undelivered:
        return Situation.DELIVERING
    if ledger.set_aside and record.state == "failed" and not record.is_job:
        return Situation.SET_ASIDE
    if any(one.is_dead for one in record.deliveries.values()):
        return Situation.UNDELIVERED
    return Situation.FINISHED


def _when_running(ledger: Inspection) -> Situation:
    """Judge the worker by its presence key, which names new jobs a moment after they begin."""
    if ledger.worker is None or not ledger.worker.is_alive:
        return Situation.WORKER_DIED
    has_just_begun = ledger.started_at is not None and ledger.now < ledger.started_at + PRESENCE_S
    if ledger.worker.names_job or has_just_begun:
        return Situation.RUNNING
    return Situation.ABANDONED


def _where_message_is(evidence: Evidence) -> Situation:
    """Judge a pending job by its message, as the reconciler of a worker does."""
    search, record = evidence.search, evidence.record
    if search is None or not search.can_search:
        return Situation.UNCLEAR
    if search.held is not None:
        return Situation.UNACKNOWLEDGED
    if search.queued is not None:
        return Situation.QUEUED
    if search.cut_in == record.queue and search.last_published_at is not None:
        is_behind = record.published_at >= search.last_published_at - OVERTAKING_S
        return Situation.QUEUED if is_behind else Situation.LOST
    if search.cut_in in ("unacknowledged", record.queue):
        return Situation.UNCLEAR
    return Situation.LOST
