"""A decoder for intake children that does what a file's bytes say, as bad decoders might."""

import os
import signal
import sys
import threading
from pathlib import Path

from labelyard.errors import StorageUnavailableError
from labelyard_worker.intake.images import decode as decode_soundly
from labelyard_worker.intake.spec import ImageLimits, Pixels, PixelSpec

DECODER = f"{__name__}:decode"

CRASH = b"crash"
HANG = b"hang"
HANG_IN_NATIVE_CODE = b"hang in native code"
EAT_MEMORY = b"eat memory"
NAME_MODULES = b"name modules"
NAME_SIGNALS = b"name signals"


def decode(raw: bytes, *, uri: str, spec: PixelSpec, limits: ImageLimits) -> Pixels:
    """Do what *raw* says; decode it if it says nothing."""
    if raw == CRASH:
        os.abort()
    if raw == HANG:
        threading.Event().wait()
    if raw == HANG_IN_NATIVE_CODE:
        hang_with_the_interpreter_locked()
    if raw == EAT_MEMORY:
        hoard = []
        while True:
            hoard.append(bytearray(16 * 2**20))
    if raw == NAME_MODULES:
        return told(" ".join(sys.modules))
    if raw == NAME_SIGNALS:
        return told(Path("/proc/self/status").read_text())
    if raw.startswith(b"once:"):
        fail_the_first_time(Path(os.fsdecode(raw.removeprefix(b"once:"))), uri)
        return told("recovered")
    if raw.startswith(b"die once:"):
        die_the_first_time(Path(os.fsdecode(raw.removeprefix(b"die once:"))))
        return told("recovered")
    return decode_soundly(raw, uri=uri, spec=spec, limits=limits)


def told(text: str) -> Pixels:
    """Send words in a picture's place."""
    raw = text.encode()
    raw += b" " * (-len(raw) % 3)
    return Pixels(raw, 1, len(raw) // 3, 1, 1, "0" * 64)


def hang_with_the_interpreter_locked() -> None:
    """Let no other thread of the child run again."""
    import ctypes

    ctypes.PyDLL(None).pause()


def fail_the_first_time(mark: Path, uri: str) -> None:
    """Fail as storage does, unless *mark* is there."""
    if not mark.exists():
        mark.touch()
        raise StorageUnavailableError(uri, "the first time")


def die_the_first_time(mark: Path) -> None:
    """Be killed as from outside, unless *mark* is there."""
    if not mark.exists():
        mark.touch()
        os.kill(os.getpid(), signal.SIGKILL)
