"""Cancellation listener: stops the attempts of jobs that became final elsewhere."""

import threading
from typing import Any, Final

import redis
from redis.exceptions import RedisError

from labelyard.ledger import Ledger
from labelyard.ledger.maintenance import MaintenanceLedger
from labelyard_worker.jobs.cancellation import RunningJobs, cancelled

# redis-py sends one health check a second while the connection is quiet.
MAX_UNANSWERED_CHECKS: Final = 3
RECONNECT_AFTER_S: Final = 1.0


class CancellationListener:
    """CancellationListener is responsible for stopping cancelled jobs that run in this process.

    It subscribes to the ledger's channel of stopped jobs, on a thread and a connection of its own.
    """

    def __init__(self, ledger: Ledger, *, running: RunningJobs) -> None:
        self._ledger = MaintenanceLedger(ledger)
        self._running = running
        self._closed = threading.Event()
        self._thread = threading.Thread(
            target=self._listen, name="labelyard-cancellations", daemon=True
        )

    def start(self) -> None:
        """Start listening."""
        self._thread.start()

    def close(self) -> None:
        """Stop listening."""
        self._closed.set()
        if self._thread.is_alive():
            self._thread.join()

    def _listen(self) -> None:
        """Read the channel until closed; subscribe again after a lost connection."""
        while not self._closed.is_set():
            try:
                with self._ledger.subscribe_stopped() as pubsub:
                    while not self._closed.is_set():
                        self._stop_job(pubsub.get_message(timeout=1.0))
                        refuse_silence(pubsub)
            except (RedisError, OSError):
                self._closed.wait(RECONNECT_AFTER_S)

    def _stop_job(self, message: dict[str, Any] | None) -> None:
        if message is not None:
            self._running.stop(message["data"], cancelled(message["data"]))


def refuse_silence(pubsub: redis.client.PubSub) -> None:
    """Raise if the connection for cancellations is half-open, not merely quiet.

    redis-py sends a check after each ``health_check_interval``, with every read until it has an
    answer, and counts the missing answers; it draws no conclusion.

    Raises:
        redis.ConnectionError: Too many answers are missing.
    """
    if pubsub.health_check_response_counter > MAX_UNANSWERED_CHECKS:
        raise redis.ConnectionError("the ledger does not answer on the cancellations' connection")
