"""A decoder for intake children that crashes, hangs or lies as a file's bytes order."""

import json
import os
import pickle
import signal
import socket
import struct
import sys
import threading
from contextlib import suppress
from pathlib import Path

from labelyard.errors import StorageUnavailableError
from labelyard_worker.intake.decode import decode as decode_soundly
from labelyard_worker.pixels import ImageFacts, ImageLimits, Pixels, PixelSpec

DECODER = f"{__name__}:decode"

CRASH = b"crash"
HANG = b"hang"
HANG_IN_NATIVE_CODE = b"hang in native code"
EAT_MEMORY = b"eat memory"
NAME_MODULES = b"name modules"
NAME_SIGNALS = b"name signals"
LOUD = b"loud"
NONSENSE = [
    b"nonsense:too many bytes",
    b"nonsense:wrong size",
    b"nonsense:not a number",
    b"nonsense:no digest",
    b"nonsense:no facts",
    b"nonsense:another image",
    b"nonsense:not JSON",
    b"nonsense:not an object",
    b"nonsense:unknown error",
    b"nonsense:huge length",
    b"nonsense:pickle",
]


def decode(raw: bytes, *, uri: str, spec: PixelSpec, limits: ImageLimits) -> Pixels:
    """Misbehave as *raw* orders; decode it if it is an ordinary file."""
    if raw == CRASH:
        os.abort()
    if raw == HANG:
        threading.Event().wait()
    if raw == HANG_IN_NATIVE_CODE:
        hang_with_the_interpreter_locked()
    if raw == EAT_MEMORY:
        hoard = []
        while True:
            hoard.append(bytes(16 * 2**20))  # zeros that take address space alone: at once
    if raw == NAME_MODULES:
        return told(" ".join(sys.modules))
    if raw == NAME_SIGNALS:
        return told(Path("/proc/self/status").read_text())
    if raw == LOUD:
        for _ in range(100_000):
            with suppress(OSError):  # C code does not look
                os.write(2, b"bad code word at scanline of a fax image\n")
        return told("loud")
    if raw in NONSENSE:
        answer_nonsense(raw.partition(b":")[2].decode())
    if raw.startswith(b"once:"):
        fail_the_first_time(Path(os.fsdecode(raw.removeprefix(b"once:"))), uri)
        return told("recovered")
    if raw.startswith(b"die once:"):
        die_the_first_time(Path(os.fsdecode(raw.removeprefix(b"die once:"))))
        return told("recovered")
    return decode_soundly(raw, uri=uri, spec=spec, limits=limits)


def answer_nonsense(kind: str) -> None:
    """Write to the worker's socket what a taken-over decoder might."""
    socket_fd = next(
        int(one.name)
        for one in Path("/proc/self/fd").iterdir()
        if is_stream_to_worker(int(one.name))
    )
    head: dict[str, object] = {
        "op": "pixels",
        "id": current_number(),
        "height": 8,
        "width": 8,
        "facts": {"sha256": "0" * 64, "width": 8, "height": 8},
    }
    payload = bytes(8 * 8 * 3)
    changes: dict[str, dict[str, object]] = {
        "wrong size": {"height": 9},
        "not a number": {"height": "8"},
        "no digest": {"facts": {"sha256": "../../etc/passwd", "width": 8, "height": 8}},
        "no facts": {"facts": None},
        "another image": {"id": 10**9},
        "unknown error": {"op": "error", "code": "job_cancelled", "reason": ""},
    }
    text = json.dumps(head | changes.get(kind, {})).encode()
    if kind == "not JSON":
        text = b"{" * 40
    if kind == "not an object":
        text = b"[" * 2000 + b"]" * 2000
    if kind == "pickle":
        text = pickle.dumps(os.getcwd)
    length = 2**32 - 1 if kind in ("too many bytes", "huge length") else len(payload)
    os.write(socket_fd, struct.pack("!II", len(text), length) + text + payload)
    threading.Event().wait()


def is_stream_to_worker(fd: int) -> bool:
    """Find the one connected Unix socket of this process that carries frames."""
    try:
        found = socket.socket(fileno=os.dup(fd))
    except OSError:
        return False
    with found:
        try:
            return found.family == socket.AF_UNIX and found.getpeername() in ("", b"")
        except OSError:
            return False


def current_number() -> int:
    """Find the number of the image at work, in the frame that the decoder loop holds."""
    frame = sys._getframe()
    while frame.f_back is not None and "order" not in frame.f_locals:
        frame = frame.f_back
    return int(frame.f_locals["order"].head["id"])


def told(text: str) -> Pixels:
    """Send words in a picture's place."""
    raw = text.encode()
    raw += b" " * (-len(raw) % 3)
    return Pixels(raw, 1, len(raw) // 3, ImageFacts("0" * 64, width=1, height=1))


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
