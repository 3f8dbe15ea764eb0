"""Publishes this worker's presence and running jobs, and listens for cancelled jobs.

A job whose worker is no longer present when the job is delivered again has seen its
worker die; that is how deaths are counted. A job that its worker does not name has ended
there, whatever the ledger says: the ledger may have lost its last second.
"""

import json
import logging
import threading
from typing import Any

import redis
from redis.exceptions import RedisError

from labelyard.ledger import Ledger
from labelyard.ledger.scripts import PRESENCE_S
from labelyard_worker.jobs.cancellation import RunningJobs, cancelled

log = logging.getLogger(__name__)

UNANSWERED = 3  # one a second


class Presence:
    """A key with a short life, renewed by a thread, on a connection of its own."""

    def __init__(
        self, ledger: Ledger, *, worker: str, visibility_timeout_s: float, running: RunningJobs
    ) -> None:
        self._ledger = ledger
        self._key = ledger.keys.worker(worker)
        # It must be gone before the broker gives the dead worker's messages to another.
        self._ttl_s = max(1.0, min(PRESENCE_S, visibility_timeout_s / 2))
        self._running = running
        self._closed = threading.Event()
        self._threads = [
            threading.Thread(target=self._renew, name="labelyard-presence", daemon=True),
            threading.Thread(target=self._hear, name="labelyard-cancellations", daemon=True),
        ]

    def start(self) -> None:
        """Start renewing the presence key and listening for cancellations."""
        for thread in self._threads:
            thread.start()

    def _renew(self) -> None:
        while True:
            try:
                running = json.dumps([token.job_id for token in self._running.all()])
                self._ledger.client.set(self._key, running, px=int(self._ttl_s * 1000))
            except (RedisError, OSError) as error:
                log.warning("presence_failed", extra={"fields": {"why": type(error).__name__}})
            if self._closed.wait(self._ttl_s / 4):
                return

    def _hear(self) -> None:
        """Stop the attempts of jobs that became final elsewhere, until closed."""
        while not self._closed.is_set():
            try:
                with self._ledger.client.pubsub(  # type: ignore[no-untyped-call]
                    ignore_subscribe_messages=True
                ) as pubsub:
                    pubsub.subscribe(self._ledger.keys.stopped_channel)
                    while not self._closed.is_set():
                        self._heard(pubsub.get_message(timeout=1.0))
                        refuse_silence(pubsub)
            except (RedisError, OSError):
                self._closed.wait(1.0)

    def _heard(self, message: dict[str, Any] | None) -> None:
        if message is not None:
            self._running.stop(message["data"], cancelled(message["data"]))

    def close(self) -> None:
        """Stop renewing, and delete the presence key: jobs handed back have not seen a death."""
        self._closed.set()
        for thread in self._threads:
            if thread.is_alive():
                thread.join()
        try:
            self._ledger.client.delete(self._key)
        except (RedisError, OSError, redis.ConnectionError):
            return


def refuse_silence(pubsub: redis.client.PubSub) -> None:
    """Raise if the connection for cancellations is half-open, not merely quiet.

    redis-py asks after each ``health_check_interval``, with every look until it has an answer,
    and counts what is missing; it draws no conclusion.

    Raises:
        redis.ConnectionError: Too many answers are missing.
    """
    if pubsub.health_check_response_counter > UNANSWERED:
        raise redis.ConnectionError("the ledger does not answer on the cancellations' connection")
