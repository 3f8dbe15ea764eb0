"""Give objects fresh locks and connections in a child process after ``os.fork``."""

import os
from collections.abc import Callable
from typing import Any
from weakref import WeakMethod

# What a child must not close: it shares its parent's sockets and event loops.
_abandoned: list[Any] = []
_renewals: "set[WeakMethod[Callable[[], None]]]" = set()


def call_in_child(renew: Callable[[], None]) -> None:
    """Call *renew* in every child that is forked while its object lives.

    Args:
        renew: Bound method that replaces locks, threads and connections: another thread may
            have held them at the fork, and does not exist in the child.
    """
    _renewals.add(WeakMethod(renew, _renewals.discard))


def abandon(*things: object) -> None:
    """Keep *things* of the parent for ever, so that this child does not close them."""
    _abandoned.extend(things)


def _renew_all() -> None:
    for reference in list(_renewals):
        renew = reference()
        if renew is not None:
            renew()


os.register_at_fork(after_in_child=_renew_all)
