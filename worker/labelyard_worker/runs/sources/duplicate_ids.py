"""Find custom ids that occur twice, by 64-bit fingerprints in a compact table."""

from collections.abc import Sequence
from typing import Final, TypeAlias

import numpy as np
from numpy.typing import NDArray

Fingerprints: TypeAlias = NDArray[np.uint64]
Flags: TypeAlias = NDArray[np.bool_]

FIRST_SLOTS: Final = 1 << 12
# Linear probing looks at 2.8 slots for a new fingerprint at this load, and at 8.5 at 0.75.
MAX_LOAD: Final = 0.62
# Fingerprints that are inserted at once while the table grows.
SLICE: Final = 1 << 16
# Odd, so that no two values become equal; spreads them over the table.
_MIX: Final = np.uint64(0x9E3779B97F4A7C15)


class DuplicateIds:
    """Set of the ids that were seen; 13 to 26 bytes of memory for each of them.

    Python's own hash of a text is the fingerprint: its key is new in each process, so that
    nobody can choose ids that collide. At 10 million ids the chance that one id is mistaken
    for another one is 3 in a million.
    """

    def __init__(self) -> None:
        """Make an empty table."""
        self._used = 0
        self._slots: Fingerprints = np.zeros(FIRST_SLOTS, dtype=np.uint64)

    def __len__(self) -> int:
        """Count the distinct ids."""
        return self._used

    @property
    def held_bytes(self) -> int:
        """Bytes of memory that the table takes."""
        return self._slots.nbytes

    def add(self, ids: Sequence[str]) -> Flags:
        """Add *ids*, and return which of them were there before, or earlier among *ids*."""
        hashes = np.fromiter(map(hash, ids), dtype=np.int64, count=len(ids))
        return self.add_fingerprints(hashes.view(np.uint64))

    def add_fingerprints(self, fingerprints: Fingerprints) -> Flags:
        """Add *fingerprints*, and return which of them are repeated."""
        values = fingerprints * _MIX
        values[values == 0] = 1  # 0 is an empty slot
        distinct, places = np.unique(values, return_index=True)
        while self._used + len(distinct) > MAX_LOAD * len(self._slots):
            self._grow()
        is_old = self._insert(distinct)
        self._used += len(distinct) - int(np.count_nonzero(is_old))
        is_repeated = np.ones(len(values), dtype=np.bool_)
        is_repeated[places] = is_old
        return is_repeated

    def _insert(self, values: Fingerprints) -> Flags:
        """Insert distinct values, and return which of them were there before."""
        slots = self._slots
        places = values >> np.uint64(64 - len(slots).bit_length() + 1)
        is_old = np.zeros(len(values), dtype=np.bool_)
        pending = np.arange(len(values))
        last = np.uint64(len(slots) - 1)
        while len(pending):
            found = slots[places]
            is_free = found == 0
            slots[places[is_free]] = values[is_free]  # of several, the last one gets the slot
            is_in = slots[places] == values
            is_old[pending[is_in & ~is_free]] = True
            is_left = ~is_in
            pending, values = pending[is_left], values[is_left]
            places = (places[is_left] + np.uint64(1)) & last
        return is_old

    def _grow(self) -> None:
        """Double the table; only its values are copied, so that the peak stays low."""
        values = self._slots[self._slots != 0]
        size = 2 * len(self._slots)
        self._slots = np.zeros(0, dtype=np.uint64)  # frees the old table first
        self._slots = np.zeros(size, dtype=np.uint64)
        for start in range(0, len(values), SLICE):
            self._insert(values[start : start + SLICE])
