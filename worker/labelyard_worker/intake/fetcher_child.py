"""Program of a fetcher child: many fetches at once on asyncio; fetchers alone have credentials.

Started as ``python -m labelyard_worker.intake.fetcher_child FD WORKER_PID``. The first frame on
the socket FD holds the settings; then each order is answered once, cancelled ones too.
"""

import asyncio
import json
import os
import socket
import sys
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from labelyard.errors import LabelyardError, StorageUnavailableError
from labelyard_worker.intake import child_hardening
from labelyard_worker.intake.child_answers import describe_error
from labelyard_worker.intake.frames import FrameChannel, close_fd
from labelyard_worker.intake.image_uri import redact
from labelyard_worker.intake.sources.byte_budget import ByteBudget
from labelyard_worker.intake.sources.fetcher_settings import FetcherSettings, OpenSources
from labelyard_worker.intake.sources.source import FetchOrder, SourceDownError, Transfer
from labelyard_worker.pixels import Unchanged

# Names are resolved, and requests signed, in threads; a slow name server may hold some.
MAX_THREADS = 64
MAX_SETTINGS_BYTES = 16 * 1024 * 1024


class Fetcher:
    """Serves the worker's orders; belongs to one event loop."""

    def __init__(self, channel: FrameChannel, settings: FetcherSettings) -> None:
        self._channel = channel
        self._loop = asyncio.get_running_loop()
        self._limits = settings.limits
        self._budget = ByteBudget(settings.fetching_bytes)
        self._sources = OpenSources(settings.sources)
        self._tasks: dict[int, asyncio.Task[None]] = {}
        self.is_over = asyncio.Event()

    def read_orders(self) -> None:
        """Start the orders of the worker; called when the socket is readable."""
        try:
            while (frame := self._channel.read()) is not None:
                self._start_order(frame.head)
        except (EOFError, OSError):
            self.is_over.set()

    def _start_order(self, head: dict[str, Any]) -> None:
        number, op = head["id"], head["op"]
        if op == "cancel":
            if number in self._tasks:
                self._tasks[number].cancel()
            return
        work = self._probe(head) if op == "probe" else self._fetch(head)
        task = self._loop.create_task(work)
        self._tasks[number] = task
        task.add_done_callback(lambda _: self._tasks.pop(number, None))

    async def _fetch(self, head: dict[str, Any]) -> None:
        order = FetchOrder(
            uri=head["uri"],
            etag=head["etag"],
            version_id=head["version_id"],
            known_etag=head["known_etag"],
            known_stamp=head["known_stamp"],
            tenant=head["tenant"],
            is_suspect=head["is_suspect"],
        )
        transfer = Transfer(order, self._limits, self._budget)
        try:
            file = await self._sources.choose(order.uri).fetch(order, transfer)
        except asyncio.CancelledError:
            self._answer(head, {"op": "cancelled"})
        except LabelyardError as error:
            is_down = isinstance(error, SourceDownError)
            self._answer(head, {**describe_error(error), "is_source_down": is_down})
        except Exception as error:  # noqa: BLE001 - a library's panic is one image's error
            ours = StorageUnavailableError(redact(order.uri), f"{type(error).__name__}")
            self._answer(head, {**describe_error(ours), "is_source_down": False})
        else:
            if isinstance(file, Unchanged):
                self._answer(head, {"op": "unchanged", "etag": file.etag})
            else:
                answer = {
                    "op": "file",
                    "size": file.size_bytes,
                    "etag": file.etag,
                    "is_md5": file.is_md5,
                    "stamp": file.stamp,
                }
                self._answer(head, answer, fd=file.fd)
        finally:
            transfer.close()

    async def _probe(self, head: dict[str, Any]) -> None:
        try:
            is_down = await self._sources.choose(head["uri"]).is_down(head["uri"])
        except LabelyardError:
            is_down = False
        except Exception:  # noqa: BLE001 - a library's panic answers nothing
            is_down = True
        self._answer(head, {"op": "probed", "is_down": is_down})

    def _answer(
        self, order: dict[str, Any], head: dict[str, Any], *, fd: int | None = None
    ) -> None:
        try:
            self._channel.write({**head, "id": order["id"]}, fd=fd)
        except OSError:
            self.is_over.set()
            return
        finally:
            close_fd(fd)
        self._watch()

    def _flush(self) -> None:
        try:
            self._channel.flush()
        except OSError:
            self.is_over.set()
        self._watch()

    def _watch(self) -> None:
        """Send the rest of a frame once the socket is writable."""
        if self._channel.has_unsent:
            self._loop.add_writer(self._channel.socket, self._flush)
        else:
            self._loop.remove_writer(self._channel.socket)


async def serve(channel: FrameChannel, settings: FetcherSettings) -> None:
    """Answer orders until the worker is gone."""
    loop = asyncio.get_running_loop()
    loop.set_default_executor(ThreadPoolExecutor(MAX_THREADS, thread_name_prefix="fetcher"))
    fetcher = Fetcher(channel, settings)
    loop.add_reader(channel.socket, fetcher.read_orders)
    channel.write({"op": "ready", "id": 0})
    await fetcher.is_over.wait()


def main() -> None:
    """Run until the worker is gone; then exit without cleaning up."""
    child_hardening.harden()
    child_hardening.end_with_parent(int(sys.argv[2]))
    connection = socket.socket(fileno=int(sys.argv[1]))
    channel = FrameChannel(connection, max_payload_bytes=MAX_SETTINGS_BYTES)
    settings = channel.read()
    if settings is None:
        return
    connection.setblocking(False)
    asyncio.run(serve(channel, FetcherSettings.from_json(json.loads(settings.payload))))


if __name__ == "__main__":
    try:
        main()
    except BaseException as error:  # noqa: BLE001 - a source that cannot be opened, or a defect
        sys.stderr.write(f"{type(error).__name__}: {error}\n")  # the worker logs it
        sys.stderr.flush()
        os._exit(1)
    os._exit(0)
