"""TCP server of asyncio whose end closes every connection that it accepted."""

import asyncio
import socket
from collections.abc import Awaitable, Callable
from typing import Final

#: Turns of the loop until a connection that was just accepted is known.
ACCEPT_TURNS: Final = 3

Serve = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


class StreamServer:
    """Serves each connection in a task of its own.

    ``asyncio.Server.close`` of Python 3.11 leaves accepted connections open, and a task that is
    cancelled before its first step cannot close its own.
    """

    def __init__(self, serve: Serve, *, limit: int) -> None:
        """Serve with *serve*, which closes its writer.

        Args:
            serve: Serves one connection.
            limit: Bytes that a reader buffers, as of ``asyncio.StreamReader``.
        """
        self._serve = serve
        self._limit = limit
        self._connections: set[asyncio.BaseTransport] = set()
        self._tasks: set[asyncio.Future[None]] = set()
        self._all_lost = asyncio.Event()
        self._all_lost.set()
        self._server: asyncio.Server | None = None

    async def listen(
        self,
        host: str | None = None,
        port: int = 0,
        *,
        sock: socket.socket | None = None,
        backlog: int = 100,
    ) -> int:
        """Listen on an address or on a socket that listens already; returns the port.

        Raises:
            OSError: The address is in use or not local.
        """
        loop = asyncio.get_running_loop()
        if sock is not None:
            self._server = await loop.create_server(self._protocol, sock=sock)
        else:
            self._server = await loop.create_server(self._protocol, host, port, backlog=backlog)
        return int(self._server.sockets[0].getsockname()[1])

    async def stop_listening(self) -> None:
        """Accept no further connection; those that are open stay."""
        if self._server is None:
            return
        for listener in self._server.sockets:
            asyncio.get_running_loop().remove_reader(listener.fileno())
        for _ in range(ACCEPT_TURNS):  # a closed server breaks off a connection that it accepts
            await asyncio.sleep(0)
        self._server.close()

    async def wait_until_idle(self, within_s: float) -> None:
        """Wait until every connection is served and closed, *within_s* seconds at most."""
        try:
            async with asyncio.timeout(within_s):
                if self._tasks:
                    await asyncio.wait(self._tasks)
                await self._all_lost.wait()
        except TimeoutError:
            pass

    async def close(self) -> None:
        """Stop listening, abort all connections, and cancel what still serves one."""
        await self.stop_listening()
        for connection in list(self._connections):
            if isinstance(connection, asyncio.WriteTransport):
                connection.abort()
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)
        await self._all_lost.wait()

    def _protocol(self) -> asyncio.Protocol:
        reader = asyncio.StreamReader(limit=self._limit, loop=asyncio.get_running_loop())
        return _Connection(reader, self)

    def _begin(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.ensure_future(self._serve(reader, writer))
        self._tasks.add(task)
        task.add_done_callback(self._note_served)

    def _note_served(self, task: "asyncio.Future[None]") -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            asyncio.get_running_loop().call_exception_handler(
                {"message": "a connection was served badly", "exception": error}
            )

    def _note_made(self, connection: asyncio.BaseTransport) -> None:
        self._connections.add(connection)
        self._all_lost.clear()

    def _note_lost(self, connection: asyncio.BaseTransport) -> None:
        self._connections.discard(connection)
        if not self._connections:
            self._all_lost.set()


class _Connection(asyncio.StreamReaderProtocol):
    """A connection that its server knows until it is lost."""

    def __init__(self, reader: asyncio.StreamReader, server: StreamServer) -> None:
        super().__init__(reader, server._begin)  # noqa: SLF001 - a part of the server
        self._connections_of = server
        self._own_transport: asyncio.BaseTransport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._own_transport = transport
        self._connections_of._note_made(transport)  # noqa: SLF001 - a part of the server
        super().connection_made(transport)

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        if self._own_transport is not None:
            self._connections_of._note_lost(self._own_transport)  # noqa: SLF001 - a part of the server
            self._own_transport = None
