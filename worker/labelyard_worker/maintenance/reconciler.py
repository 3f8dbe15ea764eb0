"""Republish jobs that have no message in the broker: retries when they are due, lost messages later.

The ledger is the truth, the broker only carries messages. The leader (``leader.py``) compares
them: a job that is not final, not running, not unacknowledged, and that its queue must have passed
on has lost its message. So an emptied broker loses no job, nor does one that was down during a
submit.

Rounds go on while they find something to do, interactive jobs first: an emptied broker is filled
again at the speed at which messages can be published.
"""

import logging
import math
import threading
import time
from collections.abc import Iterable, Sequence

from redis.exceptions import RedisError

from labelyard.errors import LabelyardError
from labelyard.ledger import Ledger, Record
from labelyard.ledger.maintenance import MaintenanceLedger
from labelyard.publisher import Outgoing, Publisher
from labelyard.queues import Queue
from labelyard_worker import metrics
from labelyard_worker.maintenance.broker_view import BrokerSnapshot, BrokerView, QueueSnapshot
from labelyard_worker.maintenance.leader import LeaderElection

log = logging.getLogger(__name__)

LOOK_EVERY_S = 0.25
LEASE_S = 10.0
AT_ONCE = 1000
# Seconds after which a round ends although there is more: the next one takes a new snapshot.
ROUND_S = 5.0
# The publishing clock is the ledger's; two messages sent at once may overtake each other.
OVERTAKING_S = 2.0


def is_orphan(record: Record, snapshot: BrokerSnapshot, *, is_running: bool) -> bool:
    """Decide whether the message of a job that is not final is lost.

    Args:
        is_running: Whether the presence key of the worker that began it last names it.
    """
    if record.is_final or is_running:
        return False
    if record.job_id in snapshot.unacked_job_ids:
        return False
    queue = snapshot.queues.get(record.queue)
    return queue is not None and record.published_at < passed_before(queue)


def passed_before(queue: QueueSnapshot) -> float:
    """Return the time before which *queue* has passed on every message that was published."""
    return math.inf if queue.is_empty else queue.next_published_at - OVERTAKING_S


class Reconciler:
    """Reconciler is responsible for publishing due retries and lost messages, and for expiry.

    Args:
        leader: Election; rounds run only while this worker leads.
        every_s: Seconds between two searches for lost messages.
        after_s: Seconds after its last publishing from which a job's message may be lost.
        is_on: Whether lost messages are searched for; due retries are always published.
    """

    def __init__(
        self,
        *,
        leader: LeaderElection,
        ledger: Ledger,
        publisher: Publisher,
        broker: BrokerView,
        every_s: float,
        after_s: float,
        is_on: bool = True,
    ) -> None:
        self._leader = leader
        self._ledger = ledger
        self._publisher = publisher
        self._broker = broker
        self._every_s = every_s
        self._after_s = after_s
        self._is_on = is_on
        self._maintenance = MaintenanceLedger(ledger)
        self._examined_until = "-inf"
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._run, name="labelyard-reconciler", daemon=True)

    def start(self) -> None:
        """Start the rounds."""
        self._thread.start()

    def close(self) -> None:
        """End the rounds, and let another worker lead at once."""
        self._closed.set()
        if self._thread.is_alive():
            self._thread.join()
        self._leader.resign()

    def _run(self) -> None:
        reconcile_at = time.monotonic() + self._every_s
        while not self._closed.wait(LOOK_EVERY_S):
            try:
                if not self._is_leader():
                    continue
                self.send_due()
                self.expire_overdue()
                if self._is_on and time.monotonic() >= reconcile_at:
                    is_done = self.send_lost() < AT_ONCE
                    reconcile_at = time.monotonic() + (self._every_s if is_done else 0)
            except (LabelyardError, RedisError, OSError) as error:
                log.warning("reconciler_waits", extra={"fields": {"why": type(error).__name__}})
                self._closed.wait(1.0)
            except Exception:
                log.exception("reconciler_failed")
                self._closed.wait(1.0)

    def _is_leader(self) -> bool:
        """Renew or win the leadership; a worker that lost it starts its searches anew."""
        is_leader = self._leader.is_leader()
        if not is_leader:
            self._examined_until = "-inf"
        return is_leader

    def send_due(self) -> int:
        """Publish the jobs with a due retry; return their number."""
        sent, until = 0, time.monotonic() + ROUND_S
        while True:
            lease, due = self._maintenance.take_due(lease_s=LEASE_S, limit=AT_ONCE)
            records = self._ledger.read_many(due)
            waiting = [record for record in records if record and not record.is_final]
            if not self._publish(waiting):
                return sent
            self._maintenance.sent_many([(job_id, lease) for job_id in due])
            sent += len(waiting)
            metrics.REPUBLISHED.labels("retry").inc(len(waiting))
            if len(due) < AT_ONCE or time.monotonic() >= until:
                return sent

    def expire_overdue(self) -> int:
        """Expire overdue jobs; return the number of examined jobs."""
        overdue = self._maintenance.list_overdue(limit=AT_ONCE)
        expired = self._maintenance.expire_many(overdue)
        metrics.EXPIRED.inc(sum(expired))
        over = [job_id for job_id, is_ours in zip(overdue, expired, strict=True) if not is_ours]
        if over:  # final before, or without a record
            self._maintenance.forget_expiry(over)
        return len(overdue)

    def send_lost(self) -> int:
        """Publish the jobs with a lost message; return their number.

        First all interactive ones, then others for at most ROUND_S.
        """
        # Before the snapshot: messages published from now on are not searched for in this round.
        latest = self._maintenance.read_clock() - self._after_s
        # Before the records: a message passed on meanwhile must not count as lost. Once a round:
        # RabbitMQ shows the messages that it has passed on only from one snapshot to the next.
        snapshot = self._broker.take_snapshot()
        lost = self._send_interactive(snapshot, latest=latest)
        until = time.monotonic() + ROUND_S
        lost += self._send_passed(snapshot, "", latest=latest, until=until)[0]
        if lost:
            log.warning("messages_sent_again", extra={"fields": {"jobs": lost}})
        return lost

    def _send_interactive(self, snapshot: BrokerSnapshot, *, latest: float) -> int:
        """Publish lost interactive jobs, past any number of jobs of other queues.

        Jobs examined in an earlier round are not examined again: no interactive job is left
        among them. So a long recovery pays for this once.
        """
        lost, is_done = self._send_passed(
            snapshot, Queue.INTERACTIVE, earliest=self._examined_until, latest=latest
        )
        if is_done:
            self._examined_until = f"({latest}"
        return lost

    def _send_passed(
        self,
        snapshot: BrokerSnapshot,
        only: str,
        *,
        earliest: str = "-inf",
        latest: float,
        until: float = math.inf,
    ) -> tuple[int, bool]:
        """Publish lost jobs of one queue, or of all, in batches.

        Args:
            only: The queue's name; empty means all queues.
            earliest: Only jobs published, begun or examined since, as a bound of ZRANGEBYSCORE.
            latest: Only jobs published, begun or examined before, by the ledger's clock.
            until: When to stop, by the monotonic clock.

        Returns:
            Number of published jobs, and whether all jobs were examined.
        """
        passed = {name: passed_before(queue) for name, queue in snapshot.queues.items()}
        lost = offset = 0
        while time.monotonic() < until and self._is_leader():
            found = self._maintenance.take_passed(
                passed, only=only, earliest=earliest, latest=latest, offset=offset, limit=AT_ONCE
            )
            sent = self._send_orphans(found.job_ids, snapshot)
            if sent is None:
                return lost, False
            lost, offset = lost + sent, offset + found.others
            if found.looked_at < AT_ONCE:
                return lost, True
        return lost, False

    def _send_orphans(self, job_ids: Sequence[str], snapshot: BrokerSnapshot) -> int | None:
        """Publish those of *job_ids* whose message is lost; ``None`` if the broker is away."""
        records = [record for record in self._ledger.read_many(job_ids) if record is not None]
        busy = self._maintenance.running_or_due(records)
        orphans = [
            record
            for record in records
            if is_orphan(record, snapshot, is_running=record.job_id in busy)
        ]
        if not self._publish(orphans):
            return None
        sent = {record.job_id for record in orphans}
        self._maintenance.sent_many([(job_id, None) for job_id in sent])
        metrics.REPUBLISHED.labels("lost").inc(len(sent))
        held = [job_id for job_id in job_ids if job_id not in sent]
        if held:  # by a worker or a queue: examined again after a while
            self._maintenance.touch(held)
        return len(orphans)

    def _publish(self, records: Iterable[Record]) -> bool:
        """Publish jobs from their records, interactive ones first."""
        now = self._maintenance.read_clock()
        first = sorted(records, key=lambda record: record.queue != Queue.INTERACTIVE)
        return self._publisher.publish_many(
            [Outgoing.of_record(record, published_at=now) for record in first]
        )
