"""Program of a decoder child: decode one file after another, without network or keys.

A decoder never imports torch: it stays small, starts in milliseconds, and shares no lock
with the model. It may hang, crash or run out of memory; the decode stage in the worker
replaces it.
"""

import hashlib
import importlib
import mmap
import os
import re
import resource
import signal
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from labelyard.errors import ImageTooLargeError, ImageUndecodableError, LabelyardError
from labelyard_worker.intake import child_hardening
from labelyard_worker.intake.child_answers import describe_error
from labelyard_worker.intake.frames import Frame, FrameChannel, close_fd
from labelyard_worker.pixels import ImageLimits, Pixels, PixelSpec

DECODER = "labelyard_worker.intake.decode:decode"

# A hung child whose worker is gone ends by itself this long after its image's time.
ALARM_GRACE_S = 5.0
# libtiff writes a line for each bad row: 122 MB for one fax of 2 MB.
MAX_STDERR_BYTES = 64 * 1024
KEPT_STDERR_CHARS = 300

Decode = Callable[..., Pixels]
_MD5 = re.compile(r"[0-9a-f]{32}")


@dataclass(frozen=True, slots=True)
class DecoderSettings:
    """Settings of a decoder child.

    Attributes:
        spec: Pixels that the checkpoint's image processor makes.
        limits: Limits on a picture.
        image_timeout_s: Seconds for one image.
        nice: Added to the process's niceness.
        decoder: ``module:function`` to decode with, called like ``decode.decode``.
    """

    spec: PixelSpec
    limits: ImageLimits
    image_timeout_s: float = 30.0
    nice: int = 0
    decoder: str = DECODER


def serve(connection: socket.socket, settings: DecoderSettings) -> None:
    """Decode each file that the worker sends, in order, until the worker is gone."""
    child_hardening.harden()
    child_hardening.scrub_environment()
    child_hardening.end_with_parent(child_hardening.worker_pid())
    os.nice(settings.nice)
    stderr = BoundedStderr()
    module, _, function = settings.decoder.partition(":")
    decode: Decode = getattr(importlib.import_module(module), function)
    channel = FrameChannel(connection)
    channel.write({"op": "ready"})
    while True:
        try:
            order = channel.read()
        except (EOFError, OSError):
            return
        if order is not None:
            # The default action of SIGALRM ends the process even if native code hangs.
            signal.setitimer(signal.ITIMER_REAL, settings.image_timeout_s + ALARM_GRACE_S)
            stderr.begin()
            head, payload = decode_file(order, decode=decode, settings=settings)
            signal.setitimer(signal.ITIMER_REAL, 0)
            channel.write({**head, "id": order.head["id"], **stderr.excerpt()}, payload)


def decode_file(
    order: Frame, *, decode: Decode, settings: DecoderSettings
) -> tuple[dict[str, Any], bytes]:
    """Decode one file into an answer; errors other than ours end the child."""
    uri = str(order.head["uri"])
    raw = b""
    try:
        with memory_limited(settings.limits.max_memory_bytes):
            raw = read_file(order)
            pixels = decode(raw, uri=uri, spec=settings.spec, limits=settings.limits)
    except ImageUndecodableError as error:
        answer = describe_error(error)
        digest = digest_if_cut(raw, order.head.get("etag"))
        return ({**answer, "op": "cut", "md5": digest} if digest else answer), b""
    except LabelyardError as error:
        return describe_error(error), b""
    except MemoryError:
        reason = "decoding takes more memory than is allowed"
        return describe_error(ImageTooLargeError(uri, reason)), b""
    head = {
        "op": "pixels",
        "height": pixels.height,
        "width": pixels.width,
        "facts": pixels.facts.to_fields(),
    }
    return head, pixels.data


def read_file(order: Frame) -> bytes:
    """Read the file that came with an order, and close it."""
    if order.fd is None:
        return b""
    try:
        return os.pread(order.fd, int(order.head["size"]), 0)
    finally:
        close_fd(order.fd)


def digest_if_cut(raw: bytes, etag: object) -> str:
    """Return the MD5 of *raw* if its ETag looks like another MD5, else an empty text.

    An object that was not uploaded in parts has the MD5 of its content as its ETag. Other
    bytes are the rest of a transfer that a proxy cut, with a length that agrees.
    """
    if not isinstance(etag, str) or not _MD5.fullmatch(etag):
        return ""
    digest = hashlib.md5(raw, usedforsecurity=False).hexdigest()
    return "" if digest == etag else digest


class BoundedStderr:
    """Standard error and output of this process, kept in memory up to a limit per image."""

    def __init__(self) -> None:
        self._fd = os.memfd_create("labelyard-stderr")
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)  # a write past the limit just fails
        resource.setrlimit(resource.RLIMIT_FSIZE, (MAX_STDERR_BYTES, MAX_STDERR_BYTES))
        for standard in (1, 2):
            os.dup2(self._fd, standard)

    def begin(self) -> None:
        """Discard the output written about the previous image."""
        if os.lseek(self._fd, 0, os.SEEK_CUR):
            os.ftruncate(self._fd, 0)
            os.lseek(self._fd, 0, os.SEEK_SET)

    def excerpt(self) -> dict[str, Any]:
        """Return the beginning of the output, and whether the limit cut it; empty without output."""
        size = os.lseek(self._fd, 0, os.SEEK_CUR)
        if not size:
            return {}
        start = os.pread(self._fd, KEPT_STDERR_CHARS, 0).decode("utf-8", "replace")
        return {"stderr": start, "is_stderr_cut": size >= MAX_STDERR_BYTES}


@contextmanager
def memory_limited(more_bytes: int) -> Iterator[None]:
    """Let the address space grow by at most *more_bytes* inside the block."""
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    most = pages * mmap.PAGESIZE + more_bytes
    most = most if hard == resource.RLIM_INFINITY else min(most, hard)
    resource.setrlimit(resource.RLIMIT_AS, (most, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))
