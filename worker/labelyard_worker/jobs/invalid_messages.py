"""Messages that no worker can run: failed under their job id, and kept for an operator."""

import json
import logging
from typing import Any, Final

from pydantic import TypeAdapter, ValidationError

from labelyard.errors import InvalidMessageError
from labelyard.fields import JobId
from labelyard.ledger import Ledger, Started
from labelyard.ledger.set_aside import MAX_KEPT_BYTES, SetAside, SetAsideMessage
from labelyard.messages import Failure
from labelyard.settings import ConnectionSettings
from labelyard_worker import metrics, observations
from labelyard_worker.jobs.ledger_retry import LedgerRetry
from labelyard_worker.jobs.work import Work

log = logging.getLogger(__name__)
JOB_ID: TypeAdapter[str] = TypeAdapter(JobId)
#: Why a job's message must not be run under its id, by the ledger's verdict.
REASONS: Final = {
    "conflict": "another job was submitted before under the id",
    "outlived": "older than a final record lives, and no record is left of the job",
}


class InvalidMessages:
    """Sink of messages that no worker can run; called from many threads."""

    def __init__(
        self, ledger: Ledger, settings: ConnectionSettings, ledger_retry: LedgerRetry
    ) -> None:
        self._ledger = ledger
        self._set_aside = SetAside(ledger.client, settings)
        self._ledger_retry = ledger_retry

    def refuse(self, body: Any, error: InvalidMessageError, *, task_id: str) -> str:
        """Fail a message that is not a job under its id; without one, set it aside as well.

        Returns:
            The id; empty if neither the message nor its call has a usable one.
        """
        job_id = id_in(body)
        raw = (body if isinstance(body, str) else json.dumps(body)).encode()
        if not job_id:
            message = SetAsideMessage(str(error)[:500], "", len(raw), raw[:MAX_KEPT_BYTES])
            self._keep(message, reason="invalid")
        job_id = job_id or id_in({"job_id": task_id})
        if job_id:
            self._fail(job_id, raw[:MAX_KEPT_BYTES], error)
        fields = {"job_id": job_id, "code": error.code, "why": str(error)}
        log.error("job_refused", extra={"fields": fields})
        return job_id

    def set_aside(self, message: SetAsideMessage) -> None:
        """Keep a message that no worker can run, and fail the job whose producer waits for it."""
        self._keep(message, reason="refused")
        if message.job_id:
            self._fail(message.job_id, message.raw, InvalidMessageError(message.reason))
        fields = {"queue": message.queue, "job_id": message.job_id, "why": message.reason}
        log.error("message_set_aside", extra={"fields": {"id": message.id, **fields}})

    def set_apart(self, work: Work[Any], started: Started) -> None:
        """Keep a message that must not be run under its id for the operator, and log it.

        It is another job's than the one that was submitted under the id first, or its record
        may have expired after the job was final.
        """
        reason = f"{REASONS[started.verdict]} {work.job_id}"
        raw = work.to_json().encode()
        message = SetAsideMessage(reason, "", len(raw), raw[:MAX_KEPT_BYTES])
        self._keep(message, reason=started.verdict)
        fields = {"job_id": work.job_id, "why": started.verdict, "state": started.state}
        log.error("job_refused", extra={"fields": fields})

    def _keep(self, message: SetAsideMessage, *, reason: str) -> None:
        self._ledger_retry.call(lambda: self._set_aside.add(message))
        metrics.SET_ASIDE.labels(reason).inc()

    def _fail(self, job_id: str, raw: bytes, error: InvalidMessageError) -> None:
        text = raw.decode("utf-8", "replace")
        failure = Failure.of(error)
        if self._ledger_retry.call(lambda: self._ledger.refuse(job_id, text, failure)):
            observations.count_job(metrics.OTHER, "failed", ())  # no tenant can be read from it


def id_in(body: Any) -> str:
    """Read the job id of a message that is not a job otherwise; empty if it has none."""
    try:
        if isinstance(body, str):
            body = json.loads(body)
        return JOB_ID.validate_python(body["job_id"])
    except (ValidationError, LookupError, TypeError, ValueError, RecursionError):
        return ""
