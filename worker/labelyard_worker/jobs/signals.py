"""Signals: SIGINT and SIGHUP drain the worker as SIGTERM does, and it exits with 0."""

import signal
from types import FrameType
from typing import Any, Final

from celery import bootsteps

#: Celery exits with 1 after SIGINT, and restarts itself after SIGHUP.
AS_SIGTERM: Final = (signal.SIGINT, signal.SIGHUP)


class DrainSignals(bootsteps.StartStopStep):  # type: ignore[misc]
    """Worker step that makes SIGINT and SIGHUP equal to SIGTERM.

    A signal that was ignored when the process began stays ignored: ``nohup`` works. A second
    signal changes nothing: the drain has its own limit, and SIGQUIT ends at once.

    Add it with ``app.steps["worker"].add(DrainSignals)``.
    """

    def __init__(self, parent: Any, **kwargs: Any) -> None:
        super().__init__(parent, **kwargs)
        # Celery installs its handlers after it has built the steps, and before it starts them.
        self._signals = [
            number for number in AS_SIGTERM if signal.getsignal(number) is not signal.SIG_IGN
        ]

    def start(self, parent: Any) -> None:  # noqa: ARG002 - Celery's signature
        """Install the handlers in place of Celery's."""
        for number in AS_SIGTERM:
            signal.signal(number, terminate if number in self._signals else signal.SIG_IGN)


def terminate(signal_number: int, frame: FrameType | None) -> None:  # noqa: ARG001 - signal's
    """Call the handler that Celery installed for SIGTERM."""
    handler = signal.getsignal(signal.SIGTERM)
    if callable(handler):
        handler(signal.SIGTERM, frame)
