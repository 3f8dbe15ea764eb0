"""Executor: brings one delivery of a job to an end that may be acknowledged.

Celery retries nothing here. A message is acknowledged when the ledger holds the job's
result, or the time at which the job is to be sent again; until then it stays with the
broker. Redis counts no deliveries, so the ledger counts the deaths of a job's workers:
what killed some is run alone (quarantine), what kills its worker even then is buried
(dead letter).
"""

import json
import logging
import random
import time
from collections.abc import Callable
from datetime import UTC, datetime
from functools import partial
from typing import Any, TypeVar

from pydantic import TypeAdapter, ValidationError

from labelyard.errors import (
    IdempotencyConflictError,
    InvalidMessageError,
    JobCancelledError,
    JobDeadLetteredError,
    JobExpiredError,
    LabelyardError,
    LedgerUnavailableError,
    WorkerError,
)
from labelyard.fields import JobId
from labelyard.ledger import Isolation, Ledger, Pending, Receipt, Started, backoff_s
from labelyard.ledger.commands import job_digest, new_call_id
from labelyard.ledger.set_aside import MAX_KEPT_BYTES, SetAside, SetAsideMessage
from labelyard.messages import Failure, ImageResult, Job, Result, parse_job
from labelyard.queues import Queue
from labelyard_worker.intake.source_health import StorageAwayError
from labelyard_worker.jobs.cancellation import HandedBackError, RunningJobs, Token
from labelyard_worker.jobs.delivery.pool import DeliveryPool, deliveries_of
from labelyard_worker.jobs.isolation import Quarantine
from labelyard_worker.jobs.single_flight import SingleFlight
from labelyard_worker.jobs.watchdog import Watchdog
from labelyard_worker.settings import WorkerSettings

log = logging.getLogger(__name__)
Answer = TypeVar("Answer")
JOB_ID: TypeAdapter[str] = TypeAdapter(JobId)
# Seconds until a job whose storage was away is sent again, from and to.
STORAGE_PAUSE_S = (2.0, 6.0)
Classify = Callable[[Job, Queue, Token], Result]
# Pause before a job is looked at again that expired a moment too early for the ledger.
EARLY_S = 0.5
APART = {
    "conflict": "another job was submitted before under the id",
    "outlived": "older than a final record lives, and no record is left of the job",
}


class MessageReturnedError(LabelyardError):
    """The message must go back to the broker: this worker cannot finish the job.

    Attributes:
        job_id: The job.
        returned_by: ``worker:start`` of the attempt that ended without the ledger's knowledge,
            which the message must carry: else the attempt counts as a death. Empty if the
            ledger knows.
    """

    code = "message_returned"
    is_retryable = True

    def __init__(self, job_id: str, returned_by: str = "") -> None:
        super().__init__(job_id, returned_by)
        self.job_id = job_id
        self.returned_by = returned_by


class LedgerAwayError(MessageReturnedError):
    """The worker shuts down and cannot wait until the ledger is back."""


class Executor:
    """Run received messages. One object for a worker process, called from many threads.

    Args:
        delivery: Makes the deliveries of results; without one they stay pending in the ledger,
            for whichever worker has room.
    """

    def __init__(
        self,
        *,
        worker: str,
        ledger: Ledger,
        delivery: DeliveryPool | None,
        watchdog: Watchdog,
        running: RunningJobs,
        settings: WorkerSettings,
    ) -> None:
        self.worker = worker
        self.is_draining = False
        self.finished = 0
        self.last_finished_at = time.monotonic()
        self._ledger = ledger
        self._delivery = delivery
        self._watchdog = watchdog
        self._running = running
        self._settings = settings
        self._single_flight = SingleFlight(is_on=settings.single_flight)
        self._quarantine = Quarantine()
        self._set_aside = SetAside(ledger.client, settings)

    def run(
        self,
        message: Any,
        *,
        queue: Queue,
        classify: Classify,
        task_id: str = "",
        expires_at: float | None = None,
        published_at: float = 0.0,
        returned_by: str = "",
    ) -> str:
        """Bring one delivered message to an end that may be acknowledged.

        Args:
            message: The job: JSON text as the admission gate hands it on, or a parsed object.
            task_id: Id of the call, under which a message without a job id is failed.
            expires_at: When the call expires (seconds since the epoch), if it says so.
            published_at: When the message was published, by its own word; 0 if it has none.
            returned_by: Which attempt was given back with it, see :class:`Receipt`.

        Returns:
            The job's id, or the id under which the message was failed.

        Raises:
            MessageReturnedError: The message must go back to the broker.
            WorkerError: The same, and the worker must stop.
        """
        job = self._read(message, task_id=task_id)
        if isinstance(job, str):
            return job
        job = expiring(job, expires_at)
        receipt = receipt_of(job, published_at=published_at, returned_by=returned_by)
        with self._single_flight.hold(job.job_id):
            if queue.rules.is_exclusive:
                self._run_suspect(job, queue, receipt, classify)
            else:
                with self._quarantine.ordinary():
                    started = self._start(job, queue, receipt)
                    self._follow(job, started, queue, classify)
        return job.job_id

    def _run_suspect(self, job: Job, queue: Queue, receipt: Receipt, classify: Classify) -> None:
        """Run a job that may have killed workers: no other suspect beside it, or nothing."""
        with self._quarantine.suspect():
            started = self._start(job, queue, receipt, "suspect")
            if started.verdict != "isolate":
                self._follow(job, started, queue, classify)
                return
            with self._quarantine.alone(
                should_stop=lambda: self.is_draining,
                on_company=lambda: self._note_company(job.job_id),
            ) as is_alone:
                isolation: Isolation = "alone" if is_alone else "crowded"
                started = self._start(job, queue, receipt, isolation)
                self._follow(job, started, queue, classify)

    def _note_company(self, job_id: str) -> None:
        """Note in the ledger that a suspect's death from now on need not be its own."""
        try:
            self._ledger.crowd(job_id, worker=self.worker)
        except LedgerUnavailableError as error:
            fields = {"job_id": job_id, "code": error.code}
            log.warning("company_not_noted", extra={"fields": fields})

    def _follow(self, job: Job, started: Started, queue: Queue, classify: Classify) -> None:
        """Carry out the ledger's verdict on a delivered job."""
        match started.verdict:
            case "run":
                self._attempt(job, started, queue, classify)
            case "to_quarantine":
                fields = {"job_id": job.job_id, "deaths": started.deaths}
                # The ledger made it due in the quarantine queue.
                log.warning("job_quarantined", extra={"fields": fields})
            case "dead":
                self._bury(job, started)
            case "elsewhere":
                fields = {"job_id": job.job_id, "worker": started.runner}
                log.info("job_runs_elsewhere", extra={"fields": fields})
            case "conflict" | "outlived":
                self._set_apart(job, started)
            case _:
                pass  # final: what is still to be delivered stands in the ledger

    def _read(self, message: Any, *, task_id: str) -> Job | str:
        """Parse the message; return the id under which a message that is not a job was failed."""
        try:
            return parse_job(message)
        except InvalidMessageError as error:
            return self._refuse(message, error, task_id=task_id)

    def _refuse(self, message: Any, error: InvalidMessageError, *, task_id: str) -> str:
        """Fail a message that is not a job under its id; without one, set it aside as well."""
        job_id = id_in(message)
        raw = (message if isinstance(message, str) else json.dumps(message)).encode()
        if not job_id:
            kept = SetAsideMessage(str(error)[:500], "", len(raw), raw[:MAX_KEPT_BYTES])
            self._patiently(lambda: self._set_aside.add(kept))
        job_id = job_id or id_in({"job_id": task_id})
        if job_id:
            text = raw[:MAX_KEPT_BYTES].decode("utf-8", "replace")
            self._patiently(lambda: self._ledger.refuse(job_id, text, Failure.of(error)))
        fields = {"job_id": job_id, "code": error.code, "why": str(error)}
        log.error("job_refused", extra={"fields": fields})
        return job_id

    def set_aside(self, message: SetAsideMessage) -> None:
        """Keep a message that no worker can run, and fail the job whose producer waits for it.

        Raises:
            MessageReturnedError: The message must go back to the broker.
        """
        self._patiently(lambda: self._set_aside.add(message))
        if message.job_id:
            failure = Failure.of(InvalidMessageError(message.reason))
            text = message.raw.decode("utf-8", "replace")
            self._patiently(lambda: self._ledger.refuse(message.job_id, text, failure))
        fields = {"queue": message.queue, "job_id": message.job_id, "why": message.reason}
        log.error("message_set_aside", extra={"fields": {"id": message.id, **fields}})

    def state(self, job_id: str) -> str:
        """Read a job's state; empty if there is no record."""
        return self._patiently(lambda: self._ledger.state(job_id)) or ""

    def _set_apart(self, job: Job, started: Started) -> None:
        """Keep a message that must not be run under its id for the operator, and log it.

        It is another job's than the one that was submitted under the id first, or its record
        may have expired after the job was final.
        """
        reason = f"{APART[started.verdict]} {job.job_id}"
        raw = job.model_dump_json().encode()
        kept = SetAsideMessage(reason, "", len(raw), raw[:MAX_KEPT_BYTES])
        self._patiently(lambda: self._set_aside.add(kept))
        fields = {"job_id": job.job_id, "why": started.verdict, "state": started.state}
        log.error("job_refused", extra={"fields": fields})

    def _start(
        self, job: Job, queue: Queue, receipt: Receipt, isolation: Isolation = "none"
    ) -> Started:
        """Request a start from the ledger; adopt the job if it came without a record."""
        started = self._patiently(lambda: self._ask_to_start(job, receipt, isolation))
        if started.verdict == "missing":
            try:
                self._patiently(lambda: self._ledger.adopt(job, queue=queue))
            except IdempotencyConflictError:  # another job's message came first: START says so
                log.info("adoption_came_second", extra={"fields": {"job_id": job.job_id}})
            started = self._patiently(lambda: self._ask_to_start(job, receipt, isolation))
        return started

    def _ask_to_start(self, job: Job, receipt: Receipt, isolation: Isolation) -> Started:
        return self._ledger.start(
            job.job_id,
            worker=self.worker,
            isolation=isolation,
            quarantine_after=self._settings.quarantine_after,
            dead_after=self._settings.dead_after,
            receipt=receipt,
        )

    def _attempt(self, job: Job, started: Started, queue: Queue, classify: Classify) -> None:
        token = Token(
            job.job_id,
            timeout_s=self._settings.job_timeout_s,
            expires_in_s=started.expires_in_s,  # by the ledger's clock, not by ours
            start=started.start,
        )
        try:
            with self._running.holding(token), self._watchdog.guarding(token):
                if self.is_draining:
                    raise HandedBackError(job.job_id)
                result = classify(job, queue, token)
        except BaseException as error:  # noqa: BLE001 - SystemExit is the job's end, not ours
            end = partial(self._attempt_failed, job, started, error)
        else:
            end = partial(self._attempt_succeeded, job, started, result)
        try:
            end()
        except LedgerAwayError as error:
            returned_by = f"{self.worker}:{started.start}"
            raise MessageReturnedError(job.job_id, returned_by) from error

    def _attempt_succeeded(self, job: Job, started: Started, result: Result) -> None:
        """Keep the result, unless a later attempt may still do better."""
        is_last = started.attempt >= self._settings.max_attempts
        errors = [image.error for image in result.images if image.error is not None]
        code = next((error.code for error in errors if error.is_retryable), None)
        if not is_last and code is not None:
            self._retry(job, started, code=code)
            return
        timing = result.timing.model_copy(update={"queued_s": started.queued_s})
        self._finish(job, result.model_copy(update={"timing": timing}))

    def _attempt_failed(self, job: Job, started: Started, error: BaseException) -> None:
        match error:
            case JobExpiredError():
                self._expire(job, started)
            case JobCancelledError():
                pass  # final in the ledger before we heard of it
            case HandedBackError():
                self._return(job, started)
                raise MessageReturnedError(job.job_id) from error
            case WorkerError():
                self._return(job, started)
                raise error
            case StorageAwayError() if started.queued_s < self._settings.storage_wait_s:
                self._wait_for_storage(job, started, error)
            case LabelyardError() if error.is_retryable and (
                started.attempt < self._settings.max_attempts
            ):
                self._retry(job, started, code=error.code)
            case LabelyardError():
                self._finish(job, failed(job, Failure.of(error)))
            case _:
                self._attempt_broke(job, started, error)

    def _expire(self, job: Job, started: Started) -> None:
        """Make the job expired; a moment too early by the ledger's clock, look at it again."""
        is_expired = self._patiently(lambda: self._ledger.expire(job.job_id))
        if not is_expired and self._patiently(lambda: self._ledger.state(job.job_id)) == "running":
            self._release(job, started, delay_s=EARLY_S)

    def _release(self, job: Job, started: Started, *, delay_s: float, death: str = "") -> None:
        """End the attempt, and have the job sent again."""
        self._patiently(
            lambda: self._ledger.retry(
                job.job_id, worker=self.worker, delay_s=delay_s, death=death, start=started.start
            )
        )

    def _wait_for_storage(self, job: Job, started: Started, error: StorageAwayError) -> None:
        """Have the job sent again later; the attempt does not count, the storage was away."""
        delay_s = random.uniform(*STORAGE_PAUSE_S)
        fields = {"job_id": job.job_id, "why": str(error), "delay_s": round(delay_s, 2)}
        log.warning("job_waits_for_storage", extra={"fields": fields})
        self._patiently(
            lambda: self._ledger.postpone(
                job.job_id, worker=self.worker, delay_s=delay_s, start=started.start
            )
        )

    def _attempt_broke(self, job: Job, started: Started, error: BaseException) -> None:
        """Count an unexpected exception as a death, and release the job to be republished."""
        log.error("job_broke", exc_info=error, extra={"fields": {"job_id": job.job_id}})
        reason = f"raised {type(error).__name__}: {error}"[:500]
        self._release(job, started, delay_s=0, death=reason)

    def _retry(self, job: Job, started: Started, *, code: str) -> None:
        delay_s = random.uniform(0, backoff_s(started.attempt))
        log.warning(
            "job_retry",
            extra={
                "fields": {
                    "job_id": job.job_id,
                    "code": code,
                    "attempt": started.attempt,
                    "delay_s": round(delay_s, 2),
                }
            },
        )
        self._release(job, started, delay_s=delay_s)

    def _return(self, job: Job, started: Started) -> None:
        self._patiently(
            lambda: self._ledger.hand_back(job.job_id, worker=self.worker, start=started.start)
        )

    def _finish(self, job: Job, result: Result, *, is_dead: bool = False) -> None:
        wanted = deliveries_of(job, result)
        plan = self._delivery.plan(job, wanted) if self._delivery and wanted else ("", 0.0)
        deliverer, due_in_s = plan
        pending = Pending(wanted, deliverer=deliverer, due_in_s=due_in_s)
        is_first = self._patiently(lambda: self._write(job, result, pending, is_dead=is_dead))
        self.finished += 1
        self.last_finished_at = time.monotonic()
        log.info(
            "job_done",
            extra={
                "fields": {
                    "job_id": job.job_id,
                    "status": result.status,
                    "first": is_first,
                    "images": len(job.images),
                    **({"trace": job.trace} if job.trace else {}),
                    **result.timing.model_dump(),
                }
            },
        )
        if is_first and deliverer and self._delivery:
            self._delivery.offer(job, result, wanted)

    def _write(self, job: Job, result: Result, pending: Pending, *, is_dead: bool) -> bool:
        """Write the result, with a new record if the ledger lost the old one meanwhile."""

        def finish() -> bool:
            return self._ledger.finish(job.job_id, result, pending=pending, is_dead=is_dead)

        if finish():
            return True
        if self._ledger.state(job.job_id) is not None:
            return False
        if not self._ledger.adopt(job, queue=Queue.BULK):
            return False
        return finish()

    def _bury(self, job: Job, started: Started) -> None:
        log.error(
            "job_dead_lettered",
            extra={"fields": {"job_id": job.job_id, "deaths": started.deaths}},
        )
        failure = Failure.of(JobDeadLetteredError(started.reason))
        self._finish(job, failed(job, failure), is_dead=True)

    def _patiently(self, step: Callable[[], Answer]) -> Answer:
        """Do a step on the ledger, waiting out its absence: the job's fate must be written.

        Raises:
            LedgerAwayError: The worker shuts down and cannot wait any longer.
        """
        delay_s = 0.1
        while True:
            try:
                return step()
            except LedgerUnavailableError as error:
                if self.is_draining:
                    raise LedgerAwayError(str(error)) from error
                log.warning("ledger_unavailable", extra={"fields": {"delay_s": delay_s}})
                time.sleep(random.uniform(0, delay_s))
                delay_s = min(2.0, delay_s * 2)


def expiring(job: Job, expires_at: float | None) -> Job:
    """Return *job* with the earlier one of its own expiry and that of its call."""
    if expires_at is None or (job.expires_at and job.expires_at.timestamp() <= expires_at):
        return job
    return job.model_copy(update={"expires_at": datetime.fromtimestamp(expires_at, UTC)})


def receipt_of(job: Job, *, published_at: float, returned_by: str) -> Receipt:
    """Describe the receipt of a job's message for the ledger."""
    return Receipt(
        call=new_call_id(),
        tenant=job.tenant,
        digest=job_digest(job),
        published_at=published_at,
        returned_by=returned_by,
    )


def id_in(message: Any) -> str:
    """Read the id of a message that is not a job otherwise; empty if it has none."""
    try:
        if isinstance(message, str):
            message = json.loads(message)
        return JOB_ID.validate_python(message["job_id"])
    except (ValidationError, LookupError, TypeError, ValueError, RecursionError):
        return ""


def failed(job: Job, failure: Failure) -> Result:
    """Make the result of a job that failed as a whole."""
    images = tuple(ImageResult(id=image.id, uri=image.uri, error=failure) for image in job.images)
    return Result(
        job_id=job.job_id, status="failed", tenant=job.tenant, images=images, error=failure
    )
