"""A read that takes its caller a bounded time, however long a server takes to answer."""

import logging
import threading
import time
from collections.abc import Callable
from typing import Final, Generic, TypeVar

log = logging.getLogger(__name__)
Value = TypeVar("Value")

FRESH_S: Final = 2.0
WITHIN_S: Final = 1.0


class CachedRead(Generic[Value]):
    """The last answer of a server, read again by a thread if it is too old.

    At most one thread reads at a time, so callers cannot pile up threads on a server that is
    away.

    Args:
        read: Reads the value; may raise, and then there is none for a while.
        name: Of the thread.
        fresh_s: Seconds for which an answer is given again.
        within_s: Seconds that a caller waits for a new one.
    """

    def __init__(
        self,
        read: Callable[[], Value],
        *,
        name: str,
        fresh_s: float = FRESH_S,
        within_s: float = WITHIN_S,
    ) -> None:
        self._read = read
        self._name = name
        self._fresh_s = fresh_s
        self._within_s = within_s
        self._value: Value | None = None
        self._read_at = float("-inf")
        self._is_reading = False
        self._changed = threading.Condition()

    def get(self) -> Value | None:
        """Return an answer of the last seconds; ``None`` if there is none."""
        with self._changed:
            if not self._is_fresh():
                if not self._is_reading:
                    self._is_reading = True
                    threading.Thread(target=self._refresh, name=self._name, daemon=True).start()
                self._changed.wait_for(lambda: not self._is_reading, self._within_s)
            return self._value if self._is_fresh() else None

    def _is_fresh(self) -> bool:
        return time.monotonic() < self._read_at + self._fresh_s

    def _refresh(self) -> None:
        value: Value | None = None
        try:
            value = self._read()
        except Exception as error:  # noqa: BLE001 - any error means that there is no value
            fields = {"what": self._name, "why": type(error).__name__}
            log.warning("figures_not_read", extra={"fields": fields})
        finally:
            with self._changed:
                self._value, self._read_at = value, time.monotonic()
                self._is_reading = False
                self._changed.notify_all()
