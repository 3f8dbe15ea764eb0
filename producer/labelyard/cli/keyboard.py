"""Keys that a person presses while a command shows something, without waiting for Enter."""

import os
import select
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TextIO

try:
    import termios
    import tty
except ImportError:  # not a Unix: Ctrl-C is left
    termios = tty = None  # type: ignore[assignment]


class Keyboard:
    """The keys of a terminal; none comes if standard input is not one."""

    def __init__(self, stream: TextIO | None) -> None:
        self._stream = stream

    def wait(self, within_s: float) -> str:
        """Wait for a key; returns an empty text after *within_s* seconds without one."""
        if self._stream is None:
            time.sleep(max(0.0, within_s))
            return ""
        ready, _, _ = select.select([self._stream], [], [], max(0.0, within_s))
        return os.read(self._stream.fileno(), 1).decode(errors="replace") if ready else ""


@contextmanager
def open_keyboard() -> Iterator[Keyboard]:
    """Read single keys from the terminal while the block runs; it is as before afterwards."""
    if termios is None or not sys.stdin.isatty():
        yield Keyboard(None)
        return
    before = termios.tcgetattr(sys.stdin)
    try:
        tty.setcbreak(sys.stdin)
        yield Keyboard(sys.stdin)
    finally:
        termios.tcsetattr(sys.stdin, termios.TCSADRAIN, before)
