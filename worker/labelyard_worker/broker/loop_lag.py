"""Lag of Celery's event loop, which receives the messages: how late its timers fire."""

import time
from typing import Any, Final

from celery import bootsteps

from labelyard_worker.metrics import LOOP_LAG

EVERY_S: Final = 1.0


class LoopLag:
    """Timer on an event loop that observes its own delay.

    Args:
        hub: Celery's event loop.
        every_s: Seconds between two timers.
    """

    def __init__(self, hub: Any, *, every_s: float = EVERY_S) -> None:
        self._hub = hub
        self._every_s = every_s
        self._schedule()

    def stop(self) -> None:
        """Cancel the timer."""
        self._timer.cancel()

    def _schedule(self) -> None:
        self._due_at = time.monotonic() + self._every_s
        self._timer = self._hub.call_later(self._every_s, self._observe)

    def _observe(self) -> None:
        LOOP_LAG.observe(max(0.0, time.monotonic() - self._due_at))
        self._schedule()


class LoopLagStep(bootsteps.StartStopStep):  # type: ignore[misc]
    """Consumer step that measures the lag while the consumer has an event loop."""

    requires = ("celery.worker.consumer.tasks:Tasks",)

    def __init__(self, parent: Any, **kwargs: Any) -> None:
        super().__init__(parent, **kwargs)
        self._lag: LoopLag | None = None

    def start(self, parent: Any) -> None:
        """Start the timer; called again after each reconnect."""
        self.stop(parent)
        if parent.hub is not None:
            self._lag = LoopLag(parent.hub)

    def stop(self, parent: Any) -> None:  # noqa: ARG002 - Celery's signature
        """Cancel the timer."""
        if self._lag is not None:
            self._lag.stop()
            self._lag = None

    terminate = shutdown = stop
