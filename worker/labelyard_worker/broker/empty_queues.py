"""Queues that a claim found empty, remembered until the server pushes a change."""

from collections.abc import Iterable
from time import monotonic


class EmptyQueues:
    """Cache of the last empty reply, so that an idle channel sends no claims.

    Attributes:
        names: Queues that the last claim found empty.
        is_invalidated: Whether the server has pushed a change of one of their lists since.
    """

    def __init__(self) -> None:
        self.names: frozenset[str] = frozenset()
        self.is_invalidated = False
        self._expires_at = 0.0

    def remember(self, names: Iterable[str], *, at_most_s: float) -> None:
        """Note that queues were empty; a lost push delays their next claim by *at_most_s*."""
        self.names = frozenset(names)
        self._expires_at = monotonic() + at_most_s

    def invalidate(self, _push: object = None) -> None:
        """Note that the server pushed a change of a list that was empty."""
        self.is_invalidated = True

    def clear(self) -> None:
        """Forget the last reply and any push."""
        self.names = frozenset()
        self.is_invalidated = False

    def covers(self, names: Iterable[str]) -> bool:
        """Return whether all of *names* are still known to be empty."""
        is_known = self.names.issuperset(names) and monotonic() < self._expires_at
        return is_known and not self.is_invalidated
