"""Diagnose one job: where it is, whether it is stuck, and what an operator should do."""

from dataclasses import dataclass
from typing import Any

from labelyard.arguments import job_id_of
from labelyard.diagnosis.explanations import explain
from labelyard.diagnosis.situations import DiagnosisSettings, Evidence, Situation, situation_of
from labelyard.errors import BrokerUnavailableError
from labelyard.ledger import Ledger, connect
from labelyard.ledger.inspection import inspect_job
from labelyard.message_search import FoundMessage
from labelyard.outgoing import DEFAULT_TENANT
from labelyard.publisher import Publisher
from labelyard.queues import Queue

__all__ = ["Diagnosis", "DiagnosisSettings", "Evidence", "Situation", "diagnose", "situation_of"]


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """Diagnosis of one job: its situation, the facts, and the remedy.

    Attributes:
        summary: One sentence about the situation.
        advice: What to do, in one to three sentences.
        evidence: What the ledger and the broker showed.
    """

    job_id: str
    situation: Situation
    summary: str
    advice: tuple[str, ...]
    evidence: Evidence

    def fields(self) -> dict[str, Any]:
        """Describe the diagnosis for programs. Times are seconds; those that passed are negative."""
        return {
            "job_id": self.job_id,
            "situation": str(self.situation),
            "summary": self.summary,
            "advice": list(self.advice),
            **_record_fields(self.evidence),
            "worker": _worker_fields(self.evidence),
            "messages": _message_fields(self.evidence),
            "broker": _broker_fields(self.evidence),
            "set_aside": [
                {"id": one.id, "reason": one.reason} for one in self.evidence.ledger.set_aside
            ],
            "is_set_aside_cut": self.evidence.ledger.is_set_aside_cut,
            "has_live_worker": bool(self.evidence.ledger.leader),
        }


def diagnose(job_id: str, settings: DiagnosisSettings | None = None) -> Diagnosis:
    """Find out why a job is not final, in a few bounded reads of the ledger and the broker.

    Args:
        settings: Read from ``LABELYARD_*`` if not given. Those of the workers should be theirs.

    Raises:
        LedgerUnavailableError: The ledger gave no answer.
    """
    job_id, settings = job_id_of(job_id), settings or DiagnosisSettings.read()
    with connect(settings) as client:
        inspection = inspect_job(Ledger(client, settings), job_id)
    record = inspection.record
    queue = record.queue if record else Queue.INTERACTIVE
    tenant = record.tenant if record else DEFAULT_TENANT
    publisher = Publisher(settings, timeout_s=settings.publish_timeout_s)
    search, fault = None, ""
    try:
        search = publisher.find(job_id, queue=queue, tenant=tenant)
    except BrokerUnavailableError as error:
        fault = str(error)
    finally:
        publisher.close()
    evidence = Evidence(job_id, settings, inspection, search, fault)
    situation = situation_of(evidence)
    explanation = explain(situation, evidence)
    return Diagnosis(job_id, situation, explanation.summary, explanation.advice, evidence)


def _record_fields(evidence: Evidence) -> dict[str, Any]:
    ledger, record = evidence.ledger, evidence.ledger.record
    if record is None:
        return {"state": None, "tombstone": ledger.tombstone}
    deliveries = {
        name: {
            "state": one.state,
            "attempts": one.attempts,
            "reason": one.reason,
            "next_try_in_s": _until(one.next_try_at, ledger.now),
            "is_dead": one.is_dead,
        }
        for name, one in record.deliveries.items()
    }
    return {
        "state": record.state,
        "tenant": record.tenant,
        "queue": record.queue,
        "images": record.images,
        "age_s": round(ledger.now - record.submitted_at, 3),
        "published_s_ago": round(ledger.now - record.published_at, 3),
        "expires_in_s": _until(record.expires_at, ledger.now),
        "record_expires_in_s": ledger.record_ttl_s,
        "attempts": record.attempts,
        "max_attempts": evidence.settings.max_attempts,
        "due_in_s": _until(ledger.due_at, ledger.now),
        "deaths": record.deaths,
        "deaths_as_suspect": record.deaths_alone + record.deaths_suspect,
        "dead_after": evidence.settings.dead_after,
        "last_death": record.last_death,
        "is_dead_letter": ledger.is_dead_letter,
        "undelivered": list(record.undelivered),
        "deliveries": deliveries,
        "deliverer": ledger.deliverer,
    }


def _worker_fields(evidence: Evidence) -> dict[str, Any] | None:
    worker = evidence.ledger.worker
    if worker is None:
        return None
    return {
        "name": worker.name,
        "is_alive": worker.is_alive,
        "presence_expires_in_s": worker.expires_in_s,
        "names_job": worker.names_job,
    }


def _message_fields(evidence: Evidence) -> list[dict[str, Any]]:
    timeout_s = evidence.settings.visibility_timeout_s
    return [
        {"place": one.place, "queue": one.queue, "ahead": one.ahead, **_line_fields(one)}
        if one.place == "queued"
        else {"place": one.place, "comes_again_in_s": round(timeout_s - one.held_for_s, 3)}
        for one in (evidence.search.messages if evidence.search else ())
    ]


def _line_fields(message: FoundMessage) -> dict[str, Any]:
    if not message.line:
        return {}
    return {
        "line": message.line,
        "lines_ahead": message.lines_ahead,
        "next_line": message.next_line,
    }


def _broker_fields(evidence: Evidence) -> dict[str, Any]:
    search = evidence.search
    if search is None:
        return {"fault": evidence.broker_fault}
    return {
        "can_search": search.can_search,
        "searched": search.searched,
        "cut_in": search.cut_in,
        "queues": dict(search.lengths),
    }


def _until(at: float | None, now: float) -> float | None:
    return None if at is None else round(at - now, 3)
