"""Ctrl-C that is neither lost in a destructor nor cuts the making of an object in two."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Final

#: Seconds after which an interrupt that had no effect is raised again.
AGAIN_AFTER_S: Final = 1.0
#: The same if it came at a moment at which it must not be raised.
SOON_S: Final = 0.05
#: Python drops a KeyboardInterrupt that arises in a destructor. One that arises in a constructor
#: leaves half an object, whose own destructor then complains on standard error: asyncio's event
#: loop did, beside a client's first wait.
DEFERRING: Final = frozenset({"__del__", "__init__"})
#: Interrupts that are deferred at most: a constructor may hang, too.
MAX_DEFERRED: Final = 40


@contextmanager
def lasting_interrupts() -> Iterator[None]:
    """Raise KeyboardInterrupt at Ctrl-C, again and again until it leaves the block.

    redis-py's parsers have destructors. At least 3 of 24 interrupts right after a submit fell into
    one, and the command went on as if nothing had been pressed.
    """
    is_main = threading.current_thread() is threading.main_thread()
    if not is_main or signal.getsignal(signal.SIGINT) is not signal.default_int_handler:
        yield
        return
    interrupted = False
    deferred = 0

    def interrupt(number: int, frame: FrameType | None) -> None:  # noqa: ARG001 - signal's
        nonlocal interrupted, deferred
        interrupted = True
        if _must_defer(frame) and deferred < MAX_DEFERRED:
            deferred += 1
            signal.setitimer(signal.ITIMER_REAL, SOON_S)
            return
        signal.setitimer(signal.ITIMER_REAL, AGAIN_AFTER_S)
        raise KeyboardInterrupt

    alarm = signal.signal(signal.SIGALRM, interrupt)
    signal.signal(signal.SIGINT, interrupt)
    try:
        yield
    finally:
        if interrupted:
            signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        signal.signal(signal.SIGALRM, alarm)


def _must_defer(frame: FrameType | None) -> bool:
    while frame is not None:
        if frame.f_code.co_name in DEFERRING:
            return True
        frame = frame.f_back
    return False
