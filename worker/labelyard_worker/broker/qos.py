"""Bookkeeping of a channel's unacknowledged messages: recorded, acknowledged, restored.

It takes the place of kombu's ``QoS`` on Redis. The claim script (``claim.py``) has already written
a message's record; acknowledgements leave in groups (``acks.py``); a message goes back to its queue
as it came (``restore.py``).
"""

import logging
from typing import Any

from kombu.transport import redis as kombu_redis
from redis import Redis

from labelyard_worker.broker.acks import Acks
from labelyard_worker.broker.restore import restore
from labelyard_worker.broker.visibility import index_key, list_overdue_tags, stamp

log = logging.getLogger(__name__)


class UnackedMessages(kombu_redis.QoS):  # type: ignore[misc]
    """Unacknowledged messages of a channel, with the queue of each."""

    def __init__(self, channel: Any, prefetch_count: int = 0) -> None:
        super().__init__(channel, prefetch_count)
        self._acks = Acks(channel)
        self._queue_by_tag: dict[str, str] = {}
        self._queue_by_shard: dict[str, str] = {}

    def count_in_flight(self, queue: str) -> int:
        """Count the unacknowledged messages of *queue* on this channel."""
        return list(self._queue_by_tag.values()).count(queue)

    def count_all_in_flight(self) -> int:
        """Count the unacknowledged messages of all queues on this channel."""
        return len(self._queue_by_tag)

    def count_shards_in_flight(self, queue: str) -> int:
        """Count the unacknowledged shards of runs of *queue* on this channel."""
        return list(self._queue_by_shard.values()).count(queue)

    def append(self, message: Any, delivery_tag: str) -> None:
        queue, is_shard = self.channel.claimed.pop(delivery_tag, (None, False))
        if queue is None:  # popped by basic_get, or given back by a cancelled consumer
            super().append(message, delivery_tag)
            # kombu wrote this machine's time, which other workers cannot compare.
            stamp(self._bare_client(), index_key(self.channel), [delivery_tag])
            return
        self._queue_by_tag[delivery_tag] = queue
        if is_shard:
            self._queue_by_shard[delivery_tag] = queue
        # The claim wrote the record already: skip kombu's, keep the bookkeeping above it.
        super(kombu_redis.QoS, self).append(message, delivery_tag)

    def ack(self, delivery_tag: str) -> None:
        self._acks.add(delivery_tag)
        if self.channel.closed or not self.channel.connection.cycle.has_event_loop:
            self._acks.flush()
        # The acks above replace kombu's command: keep the bookkeeping above it.
        super(kombu_redis.QoS, self).ack(delivery_tag)
        self._release(delivery_tag)

    def flush_acks(self) -> None:
        """Send the acknowledgements of this turn of the event loop."""
        self._acks.flush()

    def reject(self, delivery_tag: str, requeue: bool = False) -> None:
        super().reject(delivery_tag, requeue=requeue)
        self._release(delivery_tag)

    def forget(self, delivery_tag: str) -> None:
        """Forget a message that left the broker's record without acknowledgement or rejection."""
        super(kombu_redis.QoS, self).ack(delivery_tag)
        self._release(delivery_tag)

    def _release(self, delivery_tag: str) -> None:
        """Count a message no longer."""
        self._queue_by_tag.pop(delivery_tag, None)
        self._queue_by_shard.pop(delivery_tag, None)

    def restore_by_tag(self, tag: Any, client: Any = None, leftmost: bool = False) -> None:  # noqa: ARG002 - kombu's signature
        """Return a message, unchanged, to the queue that it was claimed from."""
        restore(self.channel, tag if isinstance(tag, str) else tag.decode(), is_next=not leftmost)

    def restore_visible(self, start: int = 0, num: int | None = 10, interval: int = 10) -> None:  # noqa: ARG002 - kombu's signature
        """Return messages with an overdue stamp to their queues, by the broker's clock."""
        self._vrestore_count += 1
        if (self._vrestore_count - 1) % (interval or 1):
            return
        with self.channel.conn_or_acquire() as client:
            try:
                with kombu_redis.Mutex(client, self.unacked_mutex_key, self.unacked_mutex_expire):
                    tags = list_overdue_tags(
                        self._bare_client(),
                        index_key(self.channel),
                        timeout_s=self.visibility_timeout,
                        limit=num,
                    )
                    for tag in tags:
                        self.restore_by_tag(tag, client)
            except kombu_redis.MutexHeld:
                return

    def restore_unacked_once(self, stderr: Any = None) -> None:
        """Return the messages of unfinished jobs to their queues; acknowledge the finished ones."""
        try:
            self._acks.flush()
        except self.channel.connection_errors as error:  # finished jobs come again, and end at once
            log.warning("acks_lost", extra={"fields": {"error": repr(error)}})
        super().restore_unacked_once(stderr)

    def _bare_client(self) -> Redis:
        """Make a client without kombu's key prefix, which knows one key of a script only."""
        return Redis(connection_pool=self.channel.pool)
