"""Republish jobs that have no message in the broker: retries when they are due, lost messages later.

The ledger is the truth, the queue only carries. One worker, elected by a lock in
Redis, compares them: a job that is not final, that nobody runs, that is not
unacknowledged and that its queue must have passed on has lost its message. So an
emptied broker loses nothing, nor what was submitted while it was down.

Rounds go on while they find something to do, interactive jobs first: an emptied broker is filled
again at the speed at which messages can be published.
"""

import json
import logging
import math
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from typing import cast

from redis.exceptions import RedisError

from labelyard.errors import LabelyardError
from labelyard.ledger import Ledger, Record
from labelyard.publisher import Outgoing, Publisher
from labelyard_worker.durability.broker_view import Broker, BrokerView, QueueView

log = logging.getLogger(__name__)

LOOK_EVERY_S = 0.25
LEADER_TTL_S = 10.0
LEASE_S = 10.0
AT_ONCE = 1000
# Seconds after which a round ends although there is more: the next one looks at the broker anew.
ROUND_S = 5.0
# The publishing clock is the ledger's; two messages sent at once may overtake each other.
OVERTAKING_S = 2.0

# Become the leader, or stay it.
# KEYS: the lock. ARGV: worker, its life in ms. Returns 1 for the leader, else 0.
_LEAD = """
local leader = redis.call('GET', KEYS[1])
if leader and leader ~= ARGV[1] then return 0 end
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
return 1
"""
# Take what is due out of a sorted set, for the length of a lease: if the taker dies before it is
# sent, it becomes due again.
# KEYS: the sorted set. ARGV: lease_s, most members. Returns {lease's end, members...}.
_TAKE_DUE = """
local clock = redis.call('TIME')
local now = tonumber(clock[1]) + tonumber(clock[2]) / 1000000
local ids = redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', now, 'LIMIT', 0, ARGV[2])
local lease = string.format('%.6f', now + tonumber(ARGV[1]))
for _, id in ipairs(ids) do redis.call('ZADD', KEYS[1], lease, id) end
table.insert(ids, 1, lease)
return ids
"""
# KEYS: the sorted set. ARGV: most members. Returns the members that are due, oldest first.
_DUE = """
local clock = redis.call('TIME')
local now = tonumber(clock[1]) + tonumber(clock[2]) / 1000000
return redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', now, 'LIMIT', 0, ARGV[1])
"""
# Look through jobs that were not sent, begun or looked at for a while, and find those that their
# queue has passed on. The others are looked at again after as long a while, and their records
# live on: a backlog may be longer than open_ttl_s. What has no record any more is dropped.
# KEYS: the open jobs. ARGV: namespace, latest score, most jobs, offset, queue ('' = all),
#   open_ttl_s, then for each queue its name and the time before which it has passed on what was
#   published.
# Returns {jobs looked at, jobs of other queues, ids of those that their queue has passed on...}.
_TAKE_PASSED = """
local clock = redis.call('TIME')
local now = tonumber(clock[1]) + tonumber(clock[2]) / 1000000
local passed, found, others = {}, {0, 0}, 0
for i = 7, #ARGV, 2 do passed[ARGV[i]] = tonumber(ARGV[i + 1]) end
local ids = redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', ARGV[2], 'LIMIT', ARGV[4], ARGV[3])
for _, id in ipairs(ids) do
  local key = ARGV[1] .. ':job:' .. id
  local job = redis.call('HMGET', key, 'queue', 'published_at')
  if not job[1] then
    redis.call('ZREM', KEYS[1], id)
  elseif ARGV[5] ~= '' and job[1] ~= ARGV[5] then
    others = others + 1
  elseif passed[job[1]] and tonumber(job[2]) < passed[job[1]] then
    found[#found + 1] = id
  else
    redis.call('ZADD', KEYS[1], now, id)
    redis.call('EXPIRE', key, ARGV[6])
    redis.call('EXPIRE', KEYS[1], ARGV[6])
  end
end
found[1], found[2] = #ids, others
return found
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
    return queue is not None and record.published_at < passed_before(queue)


def passed_before(queue: QueueView) -> float:
    """Return the time before which *queue* has passed on every message that was published."""
    return math.inf if queue.is_empty else queue.next_published_at - OVERTAKING_S


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
        self._due = ledger.client.register_script(_DUE)
        self._take_passed = ledger.client.register_script(_TAKE_PASSED)
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
        return bool(
            self._lead(keys=[self._key("leader")], args=[self.worker, int(LEADER_TTL_S * 1000)])
        )

    def send_due(self) -> int:
        """Publish the jobs whose retry is due; return how many."""
        sent, until = 0, time.monotonic() + ROUND_S
        while True:
            lease, *due = cast(
                "list[str]", self._take_due(keys=[self._key("due")], args=[LEASE_S, AT_ONCE])
            )
            records = self._ledger.read_many(due)
            waiting = [record for record in records if record and not record.is_final]
            if not self._publish(waiting):
                return sent
            self._ledger.sent_many([(job_id, float(lease)) for job_id in due])
            sent += len(waiting)
            if len(due) < AT_ONCE or time.monotonic() >= until:
                return sent

    def expire_overdue(self) -> int:
        """Make jobs expired whose time is over; return how many were looked at."""
        overdue = cast("list[str]", self._due(keys=[self._key("expiring")], args=[AT_ONCE]))
        expired = self._ledger.expire_many(overdue)
        over = [job_id for job_id, is_ours in zip(overdue, expired, strict=True) if not is_ours]
        if over:  # final before, or without a record
            self._ledger.client.zrem(self._key("expiring"), *over)
        return len(overdue)

    def send_lost(self) -> int:
        """Publish the jobs whose message is lost, for at most ROUND_S; return how many."""
        # Before the view: what is published from now on is not looked for in this round.
        latest = self._now() - self._after_s
        # Before the records: what it passes on meanwhile has left no queue for us. Each round:
        # RabbitMQ shows what it has passed on only from one look to the next.
        view = self._broker.look()
        until = time.monotonic() + ROUND_S
        lost = self._send_passed(view, "interactive", latest=latest, until=until)
        lost += self._send_passed(view, "", latest=latest, until=until)
        if lost:
            log.warning("messages_sent_again", extra={"fields": {"jobs": lost}})
        return lost

    def _send_passed(self, view: BrokerView, only: str, *, latest: float, until: float) -> int:
        """Publish lost jobs of one queue, or of all, in batches.

        Args:
            only: The queue's name; empty means all queues.
            latest: The round's jobs were sent, begun or looked at before, by the ledger's clock.
            until: When to stop, by the monotonic clock.
        """
        passed = [
            part for name, queue in view.queues.items() for part in (name, passed_before(queue))
        ]
        lost = offset = 0
        while time.monotonic() < until:
            looked_at, others, *ids = cast(
                "list[int | str]",
                self._take_passed(
                    keys=[self._key("open")],
                    args=[
                        self._ledger.calls.namespace,
                        latest,
                        AT_ONCE,
                        offset,
                        only,
                        self._ledger.calls.open_ttl_s,
                        *passed,
                    ],
                ),
            )
            sent = self._send_orphans([str(job_id) for job_id in ids], view)
            if sent is None or int(looked_at) < AT_ONCE:
                return lost + (sent or 0)
            lost, offset = lost + sent, offset + int(others)
        return lost

    def _send_orphans(self, job_ids: Sequence[str], view: BrokerView) -> int | None:
        """Publish those of *job_ids* whose message is lost; ``None`` if the broker is away."""
        records = [record for record in self._ledger.read_many(job_ids) if record is not None]
        busy = self._running_or_due(records)
        orphans = [
            record
            for record in records
            if is_orphan(record, view, is_running=record.job_id in busy)
        ]
        if not self._publish(orphans):
            return None
        sent = {record.job_id for record in orphans}
        self._ledger.sent_many([(job_id, None) for job_id in sent])
        held = [job_id for job_id in job_ids if job_id not in sent]
        if held:  # by somebody: they are looked at again after a while
            now = self._now()
            self._ledger.client.zadd(self._key("open"), dict.fromkeys(held, now), xx=True)
        return len(orphans)

    def _running_or_due(self, records: Sequence[Record]) -> set[str]:
        """Find the jobs that a live worker says it runs, or that will be sent when they are due."""
        runners = sorted({record.runner for record in records if record.runner})
        with self._ledger.client.pipeline(transaction=False) as pipeline:
            for runner in runners:
                pipeline.get(self._key(f"worker:{runner}"))
            for record in records:
                pipeline.zscore(self._key("due"), record.job_id)
            answers = pipeline.execute()
        running = {
            runner: frozenset(json.loads(answer) if answer else ())
            for runner, answer in zip(runners, answers[: len(runners)], strict=True)
        }
        due = answers[len(runners) :]
        return {
            record.job_id
            for record, score in zip(records, due, strict=True)
            if score is not None or record.job_id in running.get(record.runner, ())
        }

    def _publish(self, records: Iterable[Record]) -> bool:
        """Publish jobs from their records, interactive ones first."""
        now = self._now()
        first = sorted(records, key=lambda record: record.queue != "interactive")
        return self._publisher.publish_many(
            [Outgoing(record.job_id, record.message, record.queue, now) for record in first]
        )

    def _now(self) -> float:
        seconds, microseconds = self._ledger.client.time()
        return seconds + microseconds / 1_000_000
