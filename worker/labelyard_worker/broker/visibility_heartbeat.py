"""Visibility heartbeat: renew the messages of running jobs, so that a long one runs once.

kombu stamps a message once, when it is claimed; past the visibility timeout another worker takes it
for lost and starts it again beside the first. A thread with its own connection renews the stamps
four times in each timeout, so the timeout can be short: it is also the time after which the jobs
of a killed worker come back.
"""

import logging
import threading
from typing import Any

from celery import bootsteps
from redis import Redis
from redis.exceptions import RedisError

from labelyard_worker.broker.visibility import index_key, stamp

log = logging.getLogger(__name__)

RENEWALS_PER_TIMEOUT = 4
# After a failed renewal the next one comes sooner: stamps are ageing while the broker is away.
RETRY_S = 1.0


class VisibilityHeartbeat:
    """VisibilityHeartbeat is responsible for renewing the unacknowledged messages of one channel.

    It runs on a thread and a connection of its own.

    Args:
        channel: Channel of kombu's Redis transport whose messages it renews.
    """

    def __init__(self, channel: Any) -> None:
        self.channel = channel
        self.interval_s = channel.qos.visibility_timeout / RENEWALS_PER_TIMEOUT
        self.index_key = index_key(channel)
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="labelyard-heartbeat", daemon=True)
        # Its own pool: the channel's is closed under our feet when the connection is renewed.
        self._redis = Redis(connection_pool=channel._get_pool())  # noqa: SLF001

    def start(self) -> None:
        """Start renewing."""
        self._thread.start()

    def stop(self) -> None:
        """Stop renewing; a renewal that waits for the broker may end later."""
        self._stopping.set()

    def join(self, timeout: float) -> None:
        """Wait for the thread, at most *timeout* seconds."""
        self._thread.join(timeout)

    def is_alive(self) -> bool:
        """Return whether the thread runs."""
        return self._thread.is_alive()

    def renew(self) -> int:
        """Stamp every delivered message with the broker's present time.

        Returns:
            Number of unacknowledged messages.

        Raises:
            RedisError: The broker is away; the stamps stay as they were.
        """
        tags = list_delivered_tags(self.channel.qos)
        if tags:
            stamp(self._redis, self.index_key, tags)
        return len(tags)

    def _run(self) -> None:
        wait_s = self.interval_s
        while not self._stopping.wait(wait_s):
            wait_s = self.interval_s
            try:
                self.renew()
            except (RedisError, OSError) as error:
                wait_s = min(self.interval_s, RETRY_S)
                log.warning("heartbeat_failed", extra={"fields": {"error": repr(error)}})
        self._redis.connection_pool.disconnect()


def list_delivered_tags(qos: Any) -> list[str]:
    """List the tags that were delivered and not yet acknowledged; callable from any thread."""
    while True:
        try:
            return [tag for tag in list(qos._delivered) if tag not in qos._dirty]  # noqa: SLF001
        except RuntimeError:  # the consuming thread changed the dictionary meanwhile: look again
            continue


class HeartbeatStep(bootsteps.StartStopStep):  # type: ignore[misc]
    """Consumer step that runs the heartbeat of the present channel; does nothing on RabbitMQ.

    Add it with ``app.steps["consumer"].add(HeartbeatStep)``.
    """

    requires = ("celery.worker.consumer.tasks:Tasks",)

    def __init__(self, parent: Any, **kwargs: Any) -> None:
        super().__init__(parent, **kwargs)
        self.heartbeat: VisibilityHeartbeat | None = None

    def start(self, parent: Any) -> None:
        """Start a heartbeat for the channel of *parent*; called again after each reconnect."""
        self._end()
        if parent.connection.transport.driver_type == "redis":
            self.heartbeat = VisibilityHeartbeat(parent.task_consumer.channel)
            self.heartbeat.start()

    def stop(self, parent: Any) -> None:
        """Keep renewing: a draining worker stops consuming first, and its last jobs run on."""

    terminate = stop

    def shutdown(self, parent: Any) -> None:  # noqa: ARG002 - Celery's signature
        """Stop the heartbeat; called after the pool has ended."""
        self._end()

    def _end(self) -> None:
        if self.heartbeat is not None:
            self.heartbeat.stop()
            self.heartbeat = None
