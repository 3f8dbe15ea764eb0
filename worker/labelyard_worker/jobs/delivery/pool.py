"""Delivery pool: delivers finished results on one asyncio thread, apart from the job slots.

A job's message is acknowledged before its result is delivered: pending deliveries are in
the ledger. A worker delivers the results of its own jobs from memory, and takes due
deliveries from the ledger: retries, and those that dead or full workers left. So a receiver
that hangs costs neither a slot nor unbounded memory.
"""

import asyncio
import logging
import threading
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Final, TypeVar

from labelyard.errors import InvalidMessageError, LabelyardError
from labelyard.ledger import Ledger, Pending, Record
from labelyard.ledger.commands import RetrySchedule
from labelyard.ledger.deliveries import RETRY_FOR_A_DAY, DeliveryLedger, DeliveryOutcome
from labelyard_worker import metrics, spans
from labelyard_worker.jobs.delivery.breaker import FIRST_PAUSE_S
from labelyard_worker.jobs.delivery.host import Host, PendingJobs
from labelyard_worker.jobs.delivery.permissions import NotPermittedError
from labelyard_worker.jobs.delivery.plan import (
    POLL_EVERY_S,
    UNDELIVERED_EVENTS,
    Delivery,
    Sendable,
    Sender,
    log_outcome,
    start_delivery_span,
    to_delivery,
)

log = logging.getLogger(__name__)
Answer = TypeVar("Answer")

CALLS_AT_ONCE: Final = 64
# Maximum number of jobs whose deliveries are in memory; the rest wait in the ledger.
MAX_HELD: Final = 256
# A lease younger than this outlives the longest call.
RENEW_AFTER_S: Final = 15.0
# Threads that write to the ledger: each waits for one round trip.
LEDGER_THREADS: Final = 4
# Seconds that close() leaves running calls when the drain's time is over already.
CLOSE_WITHIN_S: Final = 1.0
JOIN_S: Final = 3.0


class DeliveryPool:
    """Thread that delivers results; one for a worker process."""

    def __init__(
        self,
        *,
        worker: str,
        ledger: Ledger,
        senders: Mapping[str, Sender],
        schedule: RetrySchedule = RETRY_FOR_A_DAY,
        breaker_pause_s: float = FIRST_PAUSE_S,
        poll_every_s: float = POLL_EVERY_S,
    ) -> None:
        """Prepare; nothing is delivered before :meth:`start`.

        Args:
            schedule: Times of the attempts at a delivery that fails.
            breaker_pause_s: Seconds for which a failing host is left alone at first.
            poll_every_s: Seconds between two reads of due deliveries in the ledger.
        """
        self.worker = worker
        self._poll_every_s = poll_every_s
        self._records = ledger
        self._ledger = DeliveryLedger(ledger, worker=worker, schedule=schedule)
        self._breaker_pause_s = breaker_pause_s
        self._senders = senders
        self._hosts: dict[str, Host] = {}
        self._backlog = PendingJobs()
        self._held: dict[str, Delivery] = {}
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._finish_by: float | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._threads = ThreadPoolExecutor(LEDGER_THREADS, "labelyard-delivery-ledger")
        self._thread = threading.Thread(target=self._run, name="labelyard-delivery", daemon=True)
        self._closing = asyncio.Event()
        self._slots = asyncio.Semaphore(CALLS_AT_ONCE)

    def start(self) -> None:
        """Start the thread."""
        self._loop = asyncio.new_event_loop()
        self._thread.start()

    @property
    def is_alive(self) -> bool:
        """Return whether the thread runs."""
        return self._thread.is_alive()

    @property
    def hosts_failing(self) -> list[str]:
        """Receivers and buckets whose circuit breaker is open."""
        return [name for name, host in self._hosts.copy().items() if host.is_failing]

    @property
    def has_room(self) -> bool:
        """Return whether this worker may hold the deliveries of another job in memory."""
        return len(self._tasks) < MAX_HELD and self._finish_by is None and self.is_alive

    def count_circuits(self) -> Counter[str]:
        """Count the hosts whose circuit is not closed, by state; thread-safe."""
        states: Counter[str] = Counter(host.circuit for host in list(self._hosts.values()))
        del states["closed"]
        return states

    def plan(self, job: Sendable, names: tuple[str, ...]) -> Pending:
        """Choose the worker for the deliveries of a result that is about to be written.

        Returns:
            The deliveries with this worker's name if it makes them at once, else with none,
            and with the seconds after which any worker with room may take them.
        """
        pauses = [self._pause_s(job, name) for name in names]
        if self.has_room and not any(pauses):
            return Pending(names, deliverer=self.worker if names else "")
        return Pending(names, due_in_s=max(pauses, default=0.0))

    def _pause_s(self, job: Sendable, name: str) -> float:
        try:
            host = self._hosts.get(self._senders[name].host_of(job))
        except NotPermittedError:
            return 0.0
        postponed = host.postponement() if host is not None else None
        return (postponed.retry_in_s or 0.0) if postponed else 0.0

    def offer(self, delivery: Delivery) -> None:
        """Deliver a result that this worker has just finished, with a lease from FINISH."""
        self._call_soon(lambda: self._accept(delivery))

    def drain(self, within_s: float) -> None:
        """Take no more deliveries from the ledger; calls in flight may end within *within_s*."""
        self._finish_by = time.monotonic() + within_s

    def close(self) -> None:
        """Stop the thread: calls in flight get their time, the rest goes back to the ledger."""
        if self._thread.is_alive():
            self._call_soon(self._closing.set)
            # A ledger that is away can hold its calls for longer than a worker may take to end.
            self._thread.join(max(0.0, (self._finish_by or 0.0) - time.monotonic()) + JOIN_S)
        self._threads.shutdown(wait=False, cancel_futures=True)

    def _call_soon(self, call: Callable[[], object]) -> None:
        with suppress(RuntimeError):  # the loop is closed: another worker delivers it
            if self._loop is not None:
                self._loop.call_soon_threadsafe(call)

    def _run(self) -> None:
        assert self._loop is not None  # noqa: S101 - start() made it
        try:
            self._loop.run_until_complete(self._serve())
        except Exception:
            log.exception("delivery_thread_failed")
        finally:
            self._loop.close()

    async def _serve(self) -> None:
        while not self._closing.is_set():
            with suppress(TimeoutError):
                async with asyncio.timeout(self._poll_every_s):
                    await self._closing.wait()
            if self.has_room:
                await self._take_due()
        await self._end()

    async def _take_due(self) -> None:
        """Take due deliveries from the ledger, up to the limit in memory."""
        try:
            taken = await self._in_thread(lambda: self._ledger.take(MAX_HELD - len(self._tasks)))
            self._backlog.jobs = taken.pending
            records = await self._in_thread(lambda: self._records.read_many(taken.job_ids))
            for record in filter(None, records):
                await self._accept_record(record, now=taken.now)
        except LabelyardError as error:
            log.warning("deliveries_wait", extra={"fields": {"code": error.code}})
        except Exception:
            log.exception("deliveries_not_taken")

    async def _accept_record(self, record: Record, *, now: float) -> None:
        """Start the due deliveries of a record; refuse them if the job cannot be read any more."""
        try:
            delivery = to_delivery(record, now=now)
        except InvalidMessageError as error:
            refused = dict.fromkeys(record.undelivered, DeliveryOutcome("refused", str(error)))
            for name, outcome in refused.items():
                log_outcome(record.job_id, name, outcome)
            await self._in_thread(lambda: self._ledger.settle(record.job_id, refused))
            return
        if delivery is not None:
            self._accept(delivery)

    def _accept(self, delivery: Delivery) -> None:
        job_id = delivery.job.job_id
        if job_id not in self._tasks:
            self._held[job_id] = delivery
            self._tasks[job_id] = asyncio.get_running_loop().create_task(self._deliver(delivery))

    async def _deliver(self, delivery: Delivery) -> None:
        """Try the deliveries of one job, and write into the ledger how they ended."""
        job_id = delivery.job.job_id
        try:
            attempts = (self._attempt(delivery, name) for name in delivery.names)
            ended = dict(zip(delivery.names, await asyncio.gather(*attempts), strict=True))
            outcomes = {name: outcome for name, outcome in ended.items() if outcome}
            if outcomes:
                await self._in_thread(lambda: self._ledger.settle(job_id, outcomes))
        except LabelyardError as error:
            # The lease ends, and the deliveries are tried again: a receiver sees the same id.
            fields = {"job_id": job_id, "code": error.code}
            log.warning("delivery_not_noted", extra={"fields": fields})
        except Exception:
            log.exception("delivery_broke", extra={"fields": {"job_id": job_id}})
        finally:
            del self._tasks[job_id], self._held[job_id]

    async def _attempt(self, delivery: Delivery, name: str) -> DeliveryOutcome | None:
        """Try one delivery; one that is not permitted is refused. No address is logged."""
        sender = self._senders[name]
        job = delivery.job
        try:
            key = sender.host_of(job)
        except NotPermittedError as error:
            outcome: DeliveryOutcome | None = DeliveryOutcome("refused", str(error))
        else:
            host = self._hosts.get(key) or Host(self._backlog, pause_s=self._breaker_pause_s)
            self._hosts[key] = host
            outcome = await host.call(
                lambda: self._send(sender, delivery, name),
                worker_slots=self._slots,
                hold=lambda: self._hold(delivery),
            )
            if host.is_idle:
                self._hosts.pop(key, None)
        if outcome is not None:
            metrics.DELIVERIES.labels(name, outcome.kind).inc()
            log_outcome(job.job_id, name, outcome)
        return outcome

    async def _send(self, sender: Sender, delivery: Delivery, name: str) -> DeliveryOutcome:
        delivery.is_calling = True
        with spans.working_in(start_delivery_span(delivery, name)) as span:
            try:
                with metrics.DELIVERY_SECONDS.labels(name).time():
                    outcome = await sender.send(delivery.job, delivery.result)
            except Exception as error:
                fields = {"job_id": delivery.job.job_id, "delivery": name}
                log.exception("delivery_broke", extra={"fields": fields})
                outcome = DeliveryOutcome("failed", type(error).__name__)
            span.set({"labelyard.outcome": outcome.kind})
            if outcome.kind in UNDELIVERED_EVENTS:
                span.fail(outcome.reason)
        return outcome

    async def _hold(self, delivery: Delivery) -> bool:
        """Renew a lease that grew old in memory; return whether this worker still holds it."""
        if time.monotonic() < delivery.held_at + RENEW_AFTER_S:
            return True
        is_held = await self._in_thread(lambda: self._ledger.hold(delivery.job.job_id))
        delivery.held_at = time.monotonic()
        return is_held

    async def _end(self) -> None:
        """Wait for calls in flight within the limit, and give the rest back to the ledger."""
        finish_by = max(self._finish_by or 0.0, time.monotonic() + CLOSE_WITHIN_S)
        self._finish_by = finish_by
        calling = [job_id for job_id, delivery in self._held.items() if delivery.is_calling]
        given_back = [job_id for job_id in self._held if job_id not in calling]
        await self._cancel(given_back)
        if calling:
            tasks = [self._tasks[job_id] for job_id in calling]
            await asyncio.wait(tasks, timeout=max(0.0, finish_by - time.monotonic()))
        given_back += list(self._tasks)
        await self._cancel(list(self._tasks))
        await self._give_back(given_back)

    async def _cancel(self, job_ids: list[str]) -> None:
        tasks = [self._tasks[job_id] for job_id in job_ids]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _give_back(self, job_ids: list[str]) -> None:
        """Give deliveries back, so that other workers take them before the leases end."""
        now = DeliveryOutcome("postponed", "its worker shut down", 0.0)
        outcomes = dict.fromkeys(self._senders, now)

        def settle_all() -> None:
            for job_id in job_ids:
                self._ledger.settle(job_id, outcomes)

        with suppress(LabelyardError):  # the leases end by themselves
            await self._in_thread(settle_all)

    def _in_thread(self, call: Callable[[], Answer]) -> Awaitable[Answer]:
        return asyncio.get_running_loop().run_in_executor(self._threads, call)
