"""Replace the locks and connections of objects in a child process after ``os.fork``."""

import os
from collections.abc import Callable
from typing import Any
from weakref import ReferenceType

# What a child must not close: it shares its parent's sockets and event loops.
_abandoned: list[Any] = []
_renewals: dict[ReferenceType[Any], Callable[[Any], None]] = {}


def call_in_child(renew: Callable[[], None]) -> None:
    """Call *renew* in every child that is forked while its object lives.

    Args:
        renew: Bound method that replaces locks, threads and connections: another thread may
            have held them at the fork, and does not exist in the child.
    """
    owner: Any = renew.__self__  # type: ignore[attr-defined]
    function: Any = renew.__func__  # type: ignore[attr-defined]
    _renewals[ReferenceType(owner, _renewals.pop)] = function


def abandon(*things: object) -> None:
    """Keep *things* of the parent for ever, so that this child does not close them."""
    _abandoned.extend(things)


def _renew_all() -> None:
    for reference, renew in list(_renewals.items()):
        owner = reference()
        if owner is not None:
            renew(owner)


os.register_at_fork(after_in_child=_renew_all)
