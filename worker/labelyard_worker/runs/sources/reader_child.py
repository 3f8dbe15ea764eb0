"""Program of a source's reader: parses a manifest or a listing in a process of its own.

Started as ``python -m labelyard_worker.runs.sources.reader_child FD WORKER_PID``. The first frame
on the socket FD names the source; then each order to take lines is answered once. While the
worker stores a part, the reader reads on for the next one.
"""

import json
import os
import resource
import socket
import sys
from typing import Any, Final

from labelyard.errors import LabelyardError
from labelyard_worker.intake import child_hardening
from labelyard_worker.intake.frames import FrameChannel
from labelyard_worker.intake.sources.s3_settings import S3Settings
from labelyard_worker.intake.storage_away import StorageAwayError
from labelyard_worker.runs.sources.plan_parts import RunSourceError
from labelyard_worker.runs.sources.run_sources import OpenedSource, SourceOpener

#: Memory of its own that a reader may take: a Parquet file may unpack to any size.
MAX_MEMORY_BYTES: Final = 2 * 1024**3
MAX_ORDER_BYTES: Final = 16 * 1024 * 1024  # with certificates
TOO_LARGE: Final = f"reading it takes more than {MAX_MEMORY_BYTES >> 30} GiB of memory"
NICENESS: Final = 5


def open_source(order: dict[str, Any]) -> OpenedSource:
    """Open the source that the first frame names."""
    opener = SourceOpener(S3Settings.from_json(order["settings"]))
    return opener.open(
        order["uri"],
        form=order["form"],
        columns=order["columns"],
        checkpoint=order["checkpoint"],
    )


def serve(channel: FrameChannel, source: OpenedSource) -> None:
    """Answer orders until the worker is gone."""
    while (order := channel.read()) is not None:
        max_lines = int(order.head["max_lines"])
        part = source.take(max_lines)
        if part is None:
            channel.write({"op": "end"})
            continue
        head = {
            "op": "part",
            "first_line": part.first_line,
            "lines": part.lines,
            "images": part.images,
            "checkpoint": dict(part.checkpoint),
        }
        channel.write(head, part.body)
        source.read_ahead(max_lines)


def describe(error: Exception) -> dict[str, Any]:
    """Write an error as the worker reads it."""
    if isinstance(error, MemoryError):
        error = RunSourceError(TOO_LARGE)
    if isinstance(error, StorageAwayError):
        return {"op": "storage_away", "uri": error.args[0], "reason": error.args[1]}
    is_ours = isinstance(error, LabelyardError)
    reason = str(error.args[0]) if is_ours else f"{type(error).__name__}: {error}"
    return {"op": "refused", "reason": reason[:2_000]}


def main() -> None:
    """Read until the worker is gone; then exit without cleaning up."""
    child_hardening.harden()
    child_hardening.end_with_parent(int(sys.argv[2]))
    os.nice(NICENESS)
    resource.setrlimit(resource.RLIMIT_DATA, (MAX_MEMORY_BYTES, MAX_MEMORY_BYTES))
    connection = socket.socket(fileno=int(sys.argv[1]))
    channel = FrameChannel(connection, max_payload_bytes=MAX_ORDER_BYTES)
    order = channel.read()
    if order is None:
        return
    try:
        source = open_source(json.loads(order.payload))
        channel.write({"op": "opened"})
        serve(channel, source)
    except (EOFError, OSError):
        return
    except Exception as error:  # noqa: BLE001 - a library's error is one of the source
        channel.write(describe(error))


if __name__ == "__main__":
    main()
    os._exit(0)
