"""Calls of the script that adds to counts of answers."""

from collections.abc import Mapping

from labelyard.ledger.commands import Command
from labelyard.ledger.limits import COUNTS_TTL_S


def add_counts(key: str, counts: Mapping[str, int], *, worker: str, number: int) -> Command:
    """Add to the counts under a key.

    Args:
        counts: Increments by name.
        worker: Name of the worker.
        number: Number of the call: one that is repeated with it adds nothing.
    """
    pairs = [text for name, count in counts.items() for text in (name, str(count))]
    return Command("add_counts", [key], [str(COUNTS_TTL_S), f"{worker}:{number}", *pairs])
