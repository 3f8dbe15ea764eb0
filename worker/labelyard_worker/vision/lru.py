"""A cache that is bounded in bytes and drops what was not used for longest."""

import threading
from collections import OrderedDict
from collections.abc import Hashable
from typing import Generic, TypeVar

Key = TypeVar("Key", bound=Hashable)
Value = TypeVar("Value")


class ByteLru(Generic[Key, Value]):
    """Least recently used first out; safe between threads."""

    def __init__(self, capacity_bytes: int) -> None:
        """Make it empty.

        Args:
            capacity_bytes: Most bytes held. One value larger than that is still
                kept, alone: to compute it again for every job would cost more.
        """
        self.capacity_bytes = capacity_bytes
        self.held_bytes = 0
        self._lock = threading.Lock()
        self._values: OrderedDict[Key, tuple[Value, int]] = OrderedDict()

    def __len__(self) -> int:
        """Count the values."""
        return len(self._values)

    def get(self, key: Key) -> Value | None:
        """Look up *key*, and count that as a use."""
        with self._lock:
            found = self._values.get(key)
            if found is None:
                return None
            self._values.move_to_end(key)
            return found[0]

    def put(self, key: Key, value: Value, *, size_bytes: int) -> None:
        """Keep *value*, in place of what was kept under *key*."""
        with self._lock:
            _, before_bytes = self._values.pop(key, (None, 0))
            self._values[key] = (value, size_bytes)
            self.held_bytes += size_bytes - before_bytes
            while self.held_bytes > self.capacity_bytes and len(self._values) > 1:
                _, (_, freed_bytes) = self._values.popitem(last=False)
                self.held_bytes -= freed_bytes
