"""Ctrl-C that is not lost: Python drops a KeyboardInterrupt that arises in a destructor."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Final

#: Seconds after which an interrupt that had no effect is raised again.
AGAIN_AFTER_S: Final = 1.0


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

    def interrupt(number: int, frame: FrameType | None) -> None:  # noqa: ARG001 - signal's
        nonlocal interrupted
        interrupted = True
        signal.setitimer(signal.ITIMER_REAL, AGAIN_AFTER_S)
        if not _is_in_destructor(frame):
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


def _is_in_destructor(frame: FrameType | None) -> bool:
    while frame is not None:
        if frame.f_code.co_name == "__del__":
            return True
        frame = frame.f_back
    return False
