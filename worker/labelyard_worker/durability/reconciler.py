"""Sends again what no queue holds: due retries at once, lost messages after a while.

The ledger is the truth, the queue only carries. One worker, elected by a lock in
Redis, compares them: a job that is not final, that nobody runs, that is not
unacknowledged and that its queue must have passed on has lost its message. So an
emptied broker loses nothing, nor what was submitted while it was down.
"""

import json
import logging
import threading
import time
from collections.abc import Callable
from typing import cast

from redis.exceptions import RedisError

from labelyard.errors import LabelyardError
from labelyard.ledger import Ledger, Record
from labelyard.publisher import DELIVER_TASK, Outgoing, Publisher
from labelyard_worker.durability.broker_view import Broker, BrokerView

log = logging.getLogger(__name__)

LOOK_EVERY_S = 0.25
LEADER_TTL_S = 10.0
LEASE_S = 10.0
AT_ONCE = 500
# The publishing clock is the ledger's; two messages sent at once may overtake each other.
OVERTAKING_S = 2.0

_LEAD = """
local leader = redis.call('GET', KEYS[1])
if leader and leader ~= ARGV[1] then return 0 end
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
return 1
"""
# Who takes due jobs puts them off by a lease: if he dies before they are sent, they
# become due again.
_TAKE_DUE = """
local clock = redis.call('TIME')
local now = tonumber(clock[1]) + tonumber(clock[2]) / 1000000
local ids = redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', now, 'LIMIT', 0, ARGV[2])
for _, id in ipairs(ids) do redis.call('ZADD', KEYS[1], now + tonumber(ARGV[1]), id) end
return ids
"""
_TAKE_OLD = """
local clock = redis.call('TIME')
local now = tonumber(clock[1]) + tonumber(clock[2]) / 1000000
return redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', now - tonumber(ARGV[1]), 'LIMIT', 0, ARGV[2])
"""


def is_orphan(record: Record, view: BrokerView, *, is_running: bool) -> bool:
    """Decide whether the message of a job that is not final is lost.

    Args:
        is_running: Whether the worker that began it last says that it runs it.
    """
    if record.is_final or is_running:
        return False
    if record.job_id in view.unacked_job_ids:
        return False
    queue = view.queues.get(record.queue)
    if queue is None:
        return False
    return queue.is_empty or record.published_at < queue.next_published_at - OVERTAKING_S


class Reconciler:
    """The elected worker's rounds.

    Args:
        every_s: Seconds between two looks for lost messages.
        after_s: Seconds since a job was last sent, from which it is looked for.
        is_on: Whether lost messages are looked for; due retries are always sent.
    """

    def __init__(
        self,
        *,
        worker: str,
        ledger: Ledger,
        publisher: Publisher,
        broker: Broker,
        every_s: float,
        after_s: float,
        is_on: bool = True,
    ) -> None:
        self.worker = worker
        self._ledger = ledger
        self._publisher = publisher
        self._broker = broker
        self._every_s = every_s
        self._after_s = after_s
        self._is_on = is_on
        self._key: Callable[[str], str] = ledger.calls.key
        self._lead = ledger.client.register_script(_LEAD)
        self._take_due = ledger.client.register_script(_TAKE_DUE)
        self._take_old = ledger.client.register_script(_TAKE_OLD)
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._run, name="labelyard-reconciler", daemon=True)

    def start(self) -> None:
        """Begin the rounds."""
        self._thread.start()

    def close(self) -> None:
        """End the rounds, and let another worker lead at once."""
        self._closed.set()
        if self._thread.is_alive():
            self._thread.join()
        try:
            if self._ledger.client.get(self._key("leader")) == self.worker:
                self._ledger.client.delete(self._key("leader"))
        except (RedisError, OSError):
            return

    def _run(self) -> None:
        reconcile_at = time.monotonic() + self._every_s
        while not self._closed.wait(LOOK_EVERY_S):
            try:
                if not self._is_leader():
                    continue
                self.send_due()
                self.expire_overdue()
                self.send_owed()
                if self._is_on and time.monotonic() >= reconcile_at:
                    reconcile_at = time.monotonic() + self._every_s
                    self.send_lost()
            except (LabelyardError, RedisError, OSError) as error:
                log.warning("reconciler_waits", extra={"fields": {"why": type(error).__name__}})
                self._closed.wait(1.0)
            except Exception:
                log.exception("reconciler_failed")
                self._closed.wait(1.0)

    def _is_leader(self) -> bool:
        return bool(
            self._lead(keys=[self._key("leader")], args=[self.worker, int(LEADER_TTL_S * 1000)])
        )

    def send_due(self) -> int:
        """Send the jobs whose retry is due; returns how many."""
        due = cast("list[str]", self._take_due(keys=[self._key("due")], args=[LEASE_S, AT_ONCE]))
        return sum(self._send(self._ledger.read(job_id), job_id) for job_id in due)

    def send_owed(self) -> int:
        """Have deliveries tried again that are due; returns how many."""
        owed = cast("list[str]", self._take_due(keys=[self._key("owed")], args=[60, AT_ONCE]))
        self._publisher.publish_many(
            [
                Outgoing(job_id, json.dumps(job_id), "control", self._now(), task=DELIVER_TASK)
                for job_id in owed
            ]
        )
        return len(owed)

    def expire_overdue(self) -> int:
        """Make final what nobody wants any more; returns how many."""
        overdue = cast("list[str]", self._take_old(keys=[self._key("expiring")], args=[0, AT_ONCE]))
        for job_id in overdue:
            if not self._ledger.expire(job_id):
                self._ledger.client.zrem(self._key("expiring"), job_id)
        return len(overdue)

    def send_lost(self) -> int:
        """Send the jobs whose message is lost; returns how many."""
        # Before the records: what it passes on meanwhile has left no queue for us. Each round:
        # RabbitMQ shows what it has passed on only from one look to the next.
        view = self._broker.look()
        old = cast(
            "list[str]", self._take_old(keys=[self._key("open")], args=[self._after_s, AT_ONCE])
        )
        if not old:
            return 0
        records = {job_id: self._ledger.read(job_id) for job_id in old}
        lost = 0
        for job_id, record in records.items():
            if record is None:
                self._ledger.client.zrem(self._key("open"), job_id)
            elif is_orphan(record, view, is_running=self._is_running(record)):
                lost += self._send(record, job_id)
            else:
                # Looked at, and held by somebody: come to the others next time.
                self._ledger.client.zadd(self._key("open"), {job_id: self._now()}, xx=True)
        if lost:
            log.warning("messages_sent_again", extra={"fields": {"jobs": lost}})
        return lost

    def _is_running(self, record: Record) -> bool:
        if not record.runner:
            return False
        running = self._ledger.client.get(self._key(f"worker:{record.runner}"))
        return running is not None and record.job_id in json.loads(running)

    def _send(self, record: Record | None, job_id: str) -> bool:
        """Publish a job's message from its record, and note that it was sent."""
        if record is None or record.is_final:
            self._ledger.client.zrem(self._key("due"), job_id)
            self._ledger.client.zrem(self._key("open"), job_id)
            return False
        message = Outgoing(job_id, record.message, record.queue, self._now())
        if not self._publisher.publish_many([message]):
            return False
        self._ledger.sent(job_id)
        return True

    def _now(self) -> float:
        seconds, microseconds = self._ledger.client.time()
        return seconds + microseconds / 1_000_000
