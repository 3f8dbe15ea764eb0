"""Executor: brings one delivery of any kind of work to an end that may be acknowledged.

Celery retries nothing here. A message is acknowledged when the ledger holds the job's
result, or the time at which the job is to be sent again; until then it stays with the
broker. Redis counts no deliveries, so the ledger counts the deaths of a job's workers: a
job that killed some is run alone (quarantine), and one that kills its worker even then is
split or buried (dead letter).
"""

import logging
from typing import Any

from labelyard.errors import IdempotencyConflictError, InvalidMessageError, LedgerUnavailableError
from labelyard.ledger import Isolation, Ledger, Receipt, Started
from labelyard.ledger.commands import new_call_id
from labelyard.ledger.set_aside import SetAsideMessage
from labelyard_worker import spans
from labelyard_worker.jobs.cancellation import HandedBackError, RunningJobs, Token
from labelyard_worker.jobs.completer import Completer, EndedAttempt
from labelyard_worker.jobs.delivery.pool import DeliveryPool
from labelyard_worker.jobs.errors import LedgerAwayError, MessageReturnedError
from labelyard_worker.jobs.invalid_messages import InvalidMessages
from labelyard_worker.jobs.isolation import Quarantine
from labelyard_worker.jobs.ledger_retry import LedgerRetry
from labelyard_worker.jobs.single_flight import SingleFlight
from labelyard_worker.jobs.verdicts import Standing, judge_error, judge_result
from labelyard_worker.jobs.watchdog import Watchdog
from labelyard_worker.jobs.work import ReadWork, ReceivedMessage, Work
from labelyard_worker.settings import WorkerSettings

log = logging.getLogger(__name__)


class Executor:
    """Executor of received messages; one for a worker process, called from many threads.

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
        self._ledger = ledger
        self._ledger_retry = LedgerRetry(should_stop=lambda: self.is_draining)
        self._completer = Completer(
            worker=worker, ledger=ledger, ledger_retry=self._ledger_retry, deliveries=delivery
        )
        self._invalid_messages = InvalidMessages(ledger, settings, self._ledger_retry)
        self._watchdog = watchdog
        self._running = running
        self._settings = settings
        self._single_flight = SingleFlight(is_on=not settings.stock_celery)
        self._quarantine = Quarantine()

    @property
    def finished(self) -> int:
        """Number of jobs that this worker finished."""
        return self._completer.finished

    @property
    def last_finished_at(self) -> float:
        """Monotonic time of the last finish, or of the start of the worker."""
        return self._completer.last_finished_at

    def run(self, message: ReceivedMessage, read: ReadWork) -> str:
        """Bring one delivered message to an end that may be acknowledged.

        Args:
            read: Reads the job in the message, of the kind that the message's task is for.

        Returns:
            The job's id, or the id under which the message was failed.

        Raises:
            MessageReturnedError: The message must go back to the broker.
            WorkerError: The same, and the worker must stop.
        """
        try:
            work = read(message)
        except InvalidMessageError as error:
            return self._invalid_messages.refuse(message.body, error, task_id=message.task_id)
        receipt = receipt_of(message, work)
        with self._single_flight.hold(work.job_id):
            if message.queue.rules.is_exclusive:
                self._run_suspect(work, message, receipt)
            else:
                with self._quarantine.ordinary():
                    self._follow(work, self._start(work, message, receipt))
        return work.job_id

    def _run_suspect(self, work: Work[Any], message: ReceivedMessage, receipt: Receipt) -> None:
        """Run a job that may have killed workers: beside no other suspect, or alone."""
        with self._quarantine.suspect():
            started = self._start(work, message, receipt, "suspect")
            if started.verdict != "isolate":
                self._follow(work, started)
                return
            with self._quarantine.alone(
                should_stop=lambda: self.is_draining,
                on_company=lambda: self._note_company(work.job_id),
            ) as is_alone:
                isolation: Isolation = "alone" if is_alone else "crowded"
                self._follow(work, self._start(work, message, receipt, isolation))

    def _note_company(self, job_id: str) -> None:
        """Note in the ledger that a suspect's death from now on need not be its own."""
        try:
            self._ledger.crowd(job_id, worker=self.worker)
        except LedgerUnavailableError as error:
            fields = {"job_id": job_id, "code": error.code}
            log.warning("company_not_noted", extra={"fields": fields})

    def _start(
        self,
        work: Work[Any],
        message: ReceivedMessage,
        receipt: Receipt,
        isolation: Isolation = "none",
    ) -> Started:
        """Request a start from the ledger; adopt the job if it came without a record."""
        started = self._ledger_retry.call(lambda: self._request_start(work, receipt, isolation))
        if started.verdict == "missing":
            try:
                self._ledger_retry.call(lambda: work.adopt(self._ledger, queue=message.queue))
            except IdempotencyConflictError:  # another job's message was first: START says so
                log.info("adoption_came_second", extra={"fields": {"job_id": work.job_id}})
            started = self._ledger_retry.call(lambda: self._request_start(work, receipt, isolation))
        return started

    def _request_start(self, work: Work[Any], receipt: Receipt, isolation: Isolation) -> Started:
        return self._ledger.start(
            work.job_id,
            worker=self.worker,
            isolation=isolation,
            quarantine_after=self._settings.quarantine_after,
            dead_after=self._settings.dead_after,
            receipt=receipt,
        )

    def _follow(self, work: Work[Any], started: Started) -> None:
        """Carry out the ledger's verdict on a delivered job."""
        fields: dict[str, object] = {"job_id": work.job_id}
        match started.verdict:
            case "run":
                self._run_attempt(work, started)
            case "to_quarantine":
                # The ledger made it due in the quarantine queue.
                fields["deaths"] = started.deaths
                log.warning("job_quarantined", extra={"fields": fields})
            case "dead":
                self._completer.bury(work, started)
            case "elsewhere":
                fields["worker"] = started.runner
                log.info("job_runs_elsewhere", extra={"fields": fields})
            case "conflict" | "outlived":
                self._invalid_messages.set_apart(work, started)
            case _:
                pass  # final: its pending deliveries stand in the ledger

    def _run_attempt(self, work: Work[Any], started: Started) -> None:
        """Make one attempt, and carry out the verdict on it, in a span of its own."""
        is_first = started.attempt == 1
        span = spans.tracer().attempt(
            work.trace,
            queued_s=started.queued_s if is_first else None,
            attributes={
                "messaging.message.id": work.job_id,
                "labelyard.tenant": work.tenant,
                "labelyard.attempt": started.attempt,
                "labelyard.deaths": started.deaths,
                "labelyard.queued_s": round(started.queued_s, 6),
                "labelyard.worker": self.worker,
                **work.attributes(None),
            },
        )
        with spans.working_in(span):
            ended = self._attempt(work, started)
            span.set({"labelyard.verdict": ended.verdict.action, **work.attributes(ended.result)})
            if code := ended.failure_code:
                span.fail(code)
            self._complete(ended)

    def _attempt(self, work: Work[Any], started: Started) -> EndedAttempt:
        """Make one attempt, guarded by token and watchdog, and judge it."""
        standing = Standing(
            attempt=started.attempt,
            max_attempts=self._settings.max_attempts,
            queued_s=started.queued_s,
            storage_wait_s=self._settings.storage_wait_s,
        )
        token = Token(
            work.job_id,
            timeout_s=work.timeout_s or self._settings.job_timeout_s,
            expires_in_s=started.expires_in_s,  # by the ledger's clock, not by ours
            start=started.start,
        )
        try:
            with self._running.holding(token), self._watchdog.guarding(token):
                if self.is_draining:
                    raise HandedBackError(work.job_id)
                result = work.run(token, queued_s=started.queued_s)
                code = work.retryable_code(result)
        except BaseException as error:  # noqa: BLE001 - SystemExit is the job's end, not ours
            return EndedAttempt(work, started, judge_error(error, standing), error=error)
        return EndedAttempt(work, started, judge_result(code, standing), result=result)

    def _complete(self, ended: EndedAttempt) -> None:
        """Write the end of the attempt, or give it back with the message if the ledger is away."""
        try:
            self._completer.complete(ended)
        except LedgerAwayError as error:
            spans.current().fail(spans.code_of(error))
            returned_by = f"{self.worker}:{ended.started.start}"
            raise MessageReturnedError(ended.work.job_id, returned_by) from error

    def set_aside(self, message: SetAsideMessage) -> None:
        """Keep a message that no worker can run, and fail the job whose producer waits for it.

        Raises:
            MessageReturnedError: The message must go back to the broker.
        """
        self._invalid_messages.set_aside(message)

    def state(self, job_id: str) -> str:
        """Read a job's state; empty if there is no record.

        Raises:
            MessageReturnedError: The ledger is away, and the worker shuts down.
        """
        return self._ledger_retry.call(lambda: self._ledger.state(job_id)) or ""


def receipt_of(message: ReceivedMessage, work: Work[Any]) -> Receipt:
    """Describe the receipt of a job's message for the ledger."""
    return Receipt(
        call=new_call_id(),
        tenant=work.tenant,
        digest=work.digest,
        published_at=message.published_at,
        returned_by=message.returned_by,
    )
