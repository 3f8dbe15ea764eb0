"""Completer: carries out the verdict on an attempt in the ledger, and starts deliveries."""

import logging
import random
import time
from dataclasses import dataclass
from typing import Any, Final, assert_never

from labelyard.errors import JobDeadLetteredError, LabelyardError
from labelyard.ledger import Ledger, Pending, Started
from labelyard.messages import Failure
from labelyard.queues import Queue
from labelyard_worker import metrics, observations
from labelyard_worker.jobs.delivery.plan import Delivery
from labelyard_worker.jobs.delivery.pool import DeliveryPool
from labelyard_worker.jobs.errors import MessageReturnedError
from labelyard_worker.jobs.ledger_retry import LedgerRetry
from labelyard_worker.jobs.verdicts import Action, Verdict
from labelyard_worker.jobs.work import Work
from labelyard_worker.spans import code_of, stage

log = logging.getLogger(__name__)
#: Pause before a job is run again that expired a moment too early for the ledger.
EARLY_S: Final = 0.5
NOTHING_PENDING: Final = Pending()
#: Ends that others chose: a drain, a cancellation, an expiry.
NOT_AT_FAULT: Final[frozenset[Action]] = frozenset({"hand_back", "drop", "expire"})


@dataclass(frozen=True, slots=True)
class EndedAttempt:
    """An attempt that ended, and the verdict on it.

    Attributes:
        result: What the work returned; ``None`` if it raised.
        error: What the work raised, if it did.
    """

    work: Work[Any]
    started: Started
    verdict: Verdict
    result: Any = None
    error: BaseException | None = None

    @property
    def failure_code(self) -> str:
        """Code of the fault that ended the attempt; empty if nothing was at fault."""
        if self.verdict.action in NOT_AT_FAULT:
            return ""
        if self.error is not None:
            return code_of(self.error)
        return self.verdict.code or self.work.failure_code(self.result)


class Completer:
    """Completer of attempts; one for a worker process, called from many threads.

    Args:
        deliveries: Makes the deliveries of results; without one they stay pending in the
            ledger, for whichever worker has room.
    """

    def __init__(
        self,
        *,
        worker: str,
        ledger: Ledger,
        ledger_retry: LedgerRetry,
        deliveries: DeliveryPool | None,
    ) -> None:
        self.finished = 0
        self.last_finished_at = time.monotonic()
        self._worker = worker
        self._ledger = ledger
        self._ledger_retry = ledger_retry
        self._deliveries = deliveries

    def complete(self, ended: EndedAttempt) -> None:
        """Carry the verdict out.

        Raises:
            MessageReturnedError: The message must go back to the broker.
            WorkerError: The same, and the worker must stop.
        """
        action = ended.verdict.action
        metrics.ATTEMPTS.labels(action, observations.code_label(ended.failure_code)).inc()
        match action:
            case "finish":
                self._finish(ended.work, ended.result)
            case "fail":
                self._fail(ended)
            case "retry":
                self._retry(ended)
            case "postpone":
                self._postpone(ended)
            case "hand_back" | "stop_worker":
                self._hand_back(ended)
            case "expire":
                self._expire(ended)
            case "count_death":
                self._count_death(ended)
            case "drop":
                pass
            case _:
                assert_never(action)

    def bury(self, work: Work[Any], started: Started) -> None:
        """Split a job that keeps killing its workers, or make it a dead letter."""
        fields = {"job_id": work.job_id, "deaths": started.deaths}
        result = self._ledger_retry.call(lambda: work.split(self._ledger, reason=started.reason))
        if result is not None:
            log.warning("job_split", extra={"fields": fields})
            self._finish(work, result)
            return
        log.error("job_dead_lettered", extra={"fields": fields})
        failure = Failure.of(JobDeadLetteredError(started.reason))
        self._finish(work, work.failed(failure), is_dead=True)

    def _finish(self, work: Work[Any], result: Any, *, is_dead: bool = False) -> None:
        """Write the result, then start its deliveries: one that fails never fails the job."""
        delivery = work.delivery(result)
        pending = self._plan(delivery)
        with stage("finish"):
            is_first = self._ledger_retry.call(
                lambda: self._write(work, result, pending, is_dead=is_dead)
            )
        self.finished += 1
        self.last_finished_at = time.monotonic()
        description = work.describe(result)
        if is_first:
            outcome = "dead_lettered" if is_dead else str(description.get("status", "succeeded"))
            observations.count_job(work.tenant, outcome, work.image_outcomes(result))
            work.count(result)
            if is_dead:
                metrics.DEAD_LETTERS.inc()
        fields = {"job_id": work.job_id, "first": is_first, **description}
        log.info("job_done", extra={"fields": fields})
        if is_first and delivery and pending.deliverer and self._deliveries:
            self._deliveries.offer(delivery)

    def _plan(self, delivery: Delivery | None) -> Pending:
        """Choose the worker that makes the deliveries; the record names it from the first."""
        if delivery is None:
            return NOTHING_PENDING
        if self._deliveries is None:
            return Pending(delivery.names)
        return self._deliveries.plan(delivery.job, delivery.names)

    def _write(self, work: Work[Any], result: Any, pending: Pending, *, is_dead: bool) -> bool:
        """Write the result, with a new record if the ledger lost the old one meanwhile."""

        def finish() -> bool:
            return work.finish(self._ledger, result, pending=pending, is_dead=is_dead)

        if finish():
            return True
        if self._ledger.state(work.job_id) is not None:
            return False
        if not work.adopt(self._ledger, queue=Queue.BULK):
            return False
        return finish()

    def _fail(self, ended: EndedAttempt) -> None:
        assert isinstance(ended.error, LabelyardError)  # noqa: S101 - the table says so
        self._finish(ended.work, ended.work.failed(Failure.of(ended.error)))

    def _retry(self, ended: EndedAttempt) -> None:
        delay_s = random.uniform(*ended.verdict.delay_s)
        fields = {
            "job_id": ended.work.job_id,
            "code": ended.verdict.code,
            "attempt": ended.started.attempt,
            "delay_s": round(delay_s, 2),
        }
        log.warning("job_retry", extra={"fields": fields})
        self._release(ended, delay_s=delay_s)

    def _postpone(self, ended: EndedAttempt) -> None:
        """Have the job sent again later; the attempt does not count, its storage is away."""
        job_id, start = ended.work.job_id, ended.started.start
        delay_s = random.uniform(*ended.verdict.delay_s)
        fields = {"job_id": job_id, "why": str(ended.error), "delay_s": round(delay_s, 2)}
        log.warning("job_waits_for_storage", extra={"fields": fields})
        self._ledger_retry.call(
            lambda: self._ledger.postpone(job_id, worker=self._worker, delay_s=delay_s, start=start)
        )

    def _hand_back(self, ended: EndedAttempt) -> None:
        """End an attempt that does not count; the broker brings the message again."""
        job_id, start = ended.work.job_id, ended.started.start
        self._ledger_retry.call(
            lambda: self._ledger.hand_back(job_id, worker=self._worker, start=start)
        )
        if ended.verdict.action == "stop_worker" and ended.error is not None:
            raise ended.error
        raise MessageReturnedError(job_id) from ended.error

    def _expire(self, ended: EndedAttempt) -> None:
        """Make the job expired; if the ledger's clock is a moment behind, have it run again."""
        job_id = ended.work.job_id
        is_expired = self._ledger_retry.call(lambda: self._ledger.expire(job_id))
        if is_expired:
            observations.count_job(ended.work.tenant, "expired", ())
            return
        if self._ledger_retry.call(lambda: self._ledger.state(job_id)) == "running":
            self._release(ended, delay_s=EARLY_S)

    def _count_death(self, ended: EndedAttempt) -> None:
        """Count an unexpected exception as a death, and have the job sent again at once."""
        error = ended.error
        log.error("job_broke", exc_info=error, extra={"fields": {"job_id": ended.work.job_id}})
        reason = f"raised {type(error).__name__}: {error}"[:500]
        self._release(ended, delay_s=0, death=reason)

    def _release(self, ended: EndedAttempt, *, delay_s: float, death: str = "") -> None:
        """End an attempt that counts, and have the job sent again."""
        job_id, start = ended.work.job_id, ended.started.start
        self._ledger_retry.call(
            lambda: self._ledger.retry(
                job_id, worker=self._worker, delay_s=delay_s, death=death, start=start
            )
        )
