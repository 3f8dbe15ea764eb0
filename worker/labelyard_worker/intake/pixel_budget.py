"""Limit on decoded images in memory, from the start of decoding to the model's answer."""

import threading
from collections.abc import Callable
from typing import Final

#: One place of so many is for interactive images alone: they never wait until the model has
#: answered a bulk one.
PLACES_FOR_ONE_RESERVED: Final = 8


class PixelBudget:
    """A semaphore of places for decoded images, and for images that are being decoded.

    Args:
        places: Number of places; at least one.
    """

    def __init__(self, places: int) -> None:
        self._lock = threading.Lock()
        self._free = self.places = max(1, places)
        self._reserved = self.places // PLACES_FOR_ONE_RESERVED
        #: Called when a place is free again, in the thread that gave it back.
        self.on_freed: Callable[[], None] = _do_nothing

    def take(self, *, is_bulk: bool) -> bool:
        """Take one place, if one is free; bulk images leave those that are reserved."""
        with self._lock:
            is_free = self._free > (self._reserved if is_bulk else 0)
            self._free -= is_free
        return is_free

    def give_back(self) -> None:
        """Free one place."""
        with self._lock:
            was_full = self._free in {0, self._reserved}
            self._free += 1
        if was_full:
            self.on_freed()

    @property
    def taken(self) -> int:
        """Places in use."""
        return self.places - self._free


def _do_nothing() -> None:
    """Ignore a freed place."""
