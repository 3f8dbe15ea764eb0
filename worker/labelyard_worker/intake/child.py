"""What runs in an intake child: fetch and decode, one image after another.

A child never imports torch: it stays small, starts in milliseconds, and shares no lock
with the model. It may hang, crash or run out of memory; its lane in the parent sees to
that.
"""

import importlib
import mmap
import multiprocessing
import os
import resource
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from multiprocessing.connection import Connection
from pathlib import Path

from labelyard.errors import ImageTooLargeError, LabelyardError
from labelyard.messages import ImageRef
from labelyard_worker.intake.addresses import shown
from labelyard_worker.intake.spec import ImageLimits, Pixels, PixelSpec, Unchanged
from labelyard_worker.intake.storage import Storage, StorageSettings

DECODER = "labelyard_worker.intake.images:decode"
READY = "ready"

# A hung child whose parent is gone ends by itself this long after its image's time.
ALARM_GRACE_S = 5.0

Outcome = Pixels | Unchanged | LabelyardError
Decode = Callable[..., Pixels]


@dataclass(frozen=True, slots=True)
class ChildSettings:
    """What a child is told when it starts.

    Attributes:
        spec: What the checkpoint's image processor does.
        limits: What a picture may cost.
        storage: Where to fetch from.
        image_timeout_s: Seconds for one image.
        nice: Added to the process's niceness.
        decoder: ``module:function`` to decode with, called as ``images.decode`` is.
    """

    spec: PixelSpec
    limits: ImageLimits
    storage: StorageSettings
    image_timeout_s: float = 30.0
    nice: int = 0
    decoder: str = DECODER


def serve(connection: Connection, settings: ChildSettings) -> None:
    """Answer each image that comes, in order, until the parent is gone."""
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    os.nice(settings.nice)
    module, _, function = settings.decoder.partition(":")
    decode: Decode = getattr(importlib.import_module(module), function)
    storage = Storage(settings.storage)
    connection.send(READY)
    while True:
        try:
            image, known_etag = connection.recv()
        except EOFError:
            return
        # Its default action needs no cooperation from whatever hangs.
        signal.setitimer(signal.ITIMER_REAL, settings.image_timeout_s + ALARM_GRACE_S)
        outcome = take_in(
            image, known_etag=known_etag, storage=storage, decode=decode, settings=settings
        )
        signal.setitimer(signal.ITIMER_REAL, 0)
        connection.send(outcome)


def take_in(
    image: ImageRef,
    *,
    known_etag: str | None,
    storage: Storage,
    decode: Decode,
    settings: ChildSettings,
) -> Outcome:
    """Fetch and decode one image; our errors are returned, all others end the child."""
    uri = shown(image.uri)
    try:
        file = storage.fetch(image, if_none_match=known_etag)
        if isinstance(file, Unchanged):
            return file
        with memory_limited(settings.limits.max_memory_bytes):
            pixels = decode(file.data, uri=uri, spec=settings.spec, limits=settings.limits)
        return replace(pixels, etag=file.etag)
    except LabelyardError as error:
        return error
    except MemoryError:
        return ImageTooLargeError(uri, "decoding takes more memory than is allowed")


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


def _end_with_parent() -> None:
    """Wait for the parent's death, and follow it; a child that decodes notices no other way."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)
