"""Samples of bounded size from a stream of lines; equal lines and seeds give equal samples."""

import hashlib
from collections import Counter
from collections.abc import Hashable
from dataclasses import dataclass, field
from typing import Generic, TypeVar

Item = TypeVar("Item")
Key = TypeVar("Key", bound=Hashable)


def priority(seed: int, text: str) -> float:
    """Return a number of 0 to 1 that depends on the seed and the text alone.

    The k items of lowest priority are a uniform sample, in whatever order they come.
    """
    seeded = f"{seed}\0{text}".encode(errors="surrogatepass")
    digest = hashlib.blake2b(seeded, digest_size=7).digest()
    return int.from_bytes(digest) / 2**56


@dataclass(slots=True)
class LowestItems(Generic[Item]):
    """The *size* items with the lowest ranks, each identity once.

    Attributes:
        size: Most items to keep; 0 keeps none.
        highest: An item must rank below this to be kept.
    """

    size: int
    highest: tuple[float, float] = (float("inf"), 0.0)
    _kept: list[tuple[tuple[float, float], str, Item]] = field(default_factory=list)

    def accepts(self, rank: tuple[float, float]) -> bool:
        """Return whether an item of this rank would be kept, if its identity is new."""
        return rank < self.highest

    def offer(self, rank: tuple[float, float], identity: str, item: Item) -> None:
        """Keep an item if its rank is among the lowest.

        Args:
            rank: Rank, then a priority that decides between equal ranks.
            identity: Of two items with the same identity, that of lower rank is kept.
        """
        if rank >= self.highest:
            return
        for place, (other, known, _) in enumerate(self._kept):
            if known == identity:
                if rank >= other:
                    return
                del self._kept[place]
                break
        self._kept.append((rank, identity, item))
        self._kept.sort(key=lambda entry: entry[0])
        del self._kept[self.size :]
        if len(self._kept) == self.size:
            self.highest = self._kept[-1][0] if self._kept else (float("-inf"), 0.0)

    def items(self) -> list[Item]:
        """Return the items, lowest rank first."""
        return [item for _, _, item in self._kept]


class HeavyHitters(Generic[Key]):
    """Counts of the most frequent keys of a stream, in bounded memory.

    A key of more than 1/*capacity* of the stream is always among them; a count is exact until
    ``is_exact`` turns false, and a lower bound after it.

    Source: Misra and Gries 1982, doi 10.1016/0167-6423(82)90012-0.
    """

    def __init__(self, capacity: int) -> None:
        """Keep at most *capacity* keys."""
        self.capacity: int = capacity
        self.is_exact: bool = True
        self._counts: Counter[Key] = Counter()

    def add(self, key: Key) -> bool:
        """Count a key; return whether it is kept."""
        counts = self._counts
        if key in counts or len(counts) < self.capacity:
            counts[key] += 1
            return True
        self.is_exact = False
        self._counts = Counter({known: count - 1 for known, count in counts.items() if count > 1})
        return False

    def count(self, key: Key) -> int:
        """Return the count of a key, 0 if it is not kept."""
        return self._counts[key]

    def most_common(self, number: int) -> list[tuple[Key, int]]:
        """Return the most frequent keys with their counts; equal counts in the keys' order."""
        ranked = sorted(self._counts.items(), key=lambda entry: (-entry[1], str(entry[0])))
        return ranked[:number]


class DistinctSample:
    """Counts of a uniform sample of the distinct digests of a stream, in bounded memory.

    Up to *capacity* distinct digests every one is counted; then the share that is sampled
    halves as often as needed, and totals are estimates.

    Source: Gibbons 2001, "Distinct sampling for highly-accurate answers to distinct values
    queries and event reports", VLDB.
    """

    def __init__(self, capacity: int = 2**16) -> None:
        """Keep at most *capacity* digests."""
        self.capacity: int = capacity
        self._halvings = 0
        self._counts: dict[int, int] = {}

    def add(self, digest: str) -> None:
        """Count a digest, which is hexadecimal and evenly spread as SHA-256 is."""
        try:
            key = int(digest[:16], 16)
        except ValueError:
            return
        if key & (2**self._halvings - 1):
            return
        self._counts[key] = self._counts.get(key, 0) + 1
        while len(self._counts) > self.capacity:
            self._halvings += 1
            mask = 2**self._halvings - 1
            self._counts = {one: count for one, count in self._counts.items() if not one & mask}

    @property
    def is_exact(self) -> bool:
        """Whether every digest was counted."""
        return self._halvings == 0

    def distinct(self) -> int:
        """Return the number of distinct digests."""
        return len(self._counts) << self._halvings

    def repeats(self) -> int:
        """Return the number of digests that had come before."""
        return (sum(self._counts.values()) - len(self._counts)) << self._halvings
