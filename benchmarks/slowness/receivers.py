"""Webhook receivers that are slow, silent or away."""

import asyncio
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress

DRIP_EVERY_S = 2.0


async def drip(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Answer with a status line, then a byte of a header now and then."""
    with suppress(OSError):
        await reader.read(65536)
        writer.write(b"HTTP/1.1 200 OK\r\nx: ")
        while not writer.is_closing():
            writer.write(b"x")
            await writer.drain()
            await asyncio.sleep(DRIP_EVERY_S)


async def hold(reader: asyncio.StreamReader, _writer: asyncio.StreamWriter) -> None:
    """Read, and never answer."""
    with suppress(OSError):
        while await reader.read(65536):
            pass


@contextmanager
def running_receiver(*, is_dripping: bool) -> Iterator[str]:
    """Run a receiver on 127.0.0.1 while the block runs, and yield its address."""
    listening = socket.create_server(("127.0.0.1", 0), backlog=1024)
    loop = asyncio.new_event_loop()
    ended = asyncio.Event()

    async def serve() -> None:
        server = await asyncio.start_server(drip if is_dripping else hold, sock=listening)
        await ended.wait()
        server.close()

    thread = threading.Thread(target=loop.run_until_complete, args=(serve(),), daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{listening.getsockname()[1]}/"
    finally:
        loop.call_soon_threadsafe(ended.set)
        thread.join()


@contextmanager
def refusing_receiver() -> Iterator[str]:
    """Hold a port on which nobody listens, and yield its address."""
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        yield f"http://127.0.0.1:{bound.getsockname()[1]}/"
