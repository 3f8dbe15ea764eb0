"""Lines that a worker under test leaves, and orders that it takes from a folder."""

import os
import time
from functools import cache
from pathlib import Path

from tests.support.apps.clock import real_time


@cache
def effects() -> int:
    """Open the file that ``TEST_EFFECTS`` names, to append to it."""
    return os.open(os.environ["TEST_EFFECTS"], os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)


def note(event: str, job_id: str) -> None:
    """Append one line to the effects; a short write is atomic, also from several processes."""
    slot = os.environ.get("TEST_SLOT", "0")
    os.write(effects(), f"{event} {job_id} {slot} {os.getpid()} {real_time():.3f}\n".encode())


def is_ordered(flag: str) -> bool:
    """Take an order out of the folder ``TEST_FLAGS``; one worker gets it, once."""
    try:
        Path(os.environ["TEST_FLAGS"], flag).unlink()
    except FileNotFoundError:
        return False
    note("obey", flag)
    return True


def hang() -> None:
    """Hang as native code does: no signal and no cancellation gets through."""
    while True:
        time.sleep(3600)
