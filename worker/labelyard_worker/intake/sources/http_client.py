"""Send one GET over HTTP/1.1 to a given address, and stream its answer, on asyncio and h11.

Libraries that resolve names, follow redirects or read proxies by themselves would undo
the guards of the https source; h11 does the protocol alone.
"""

import asyncio
import ssl
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass

import h11

from labelyard_worker.intake.sources.source import PIECE_BYTES

READ_BYTES = 64 * 1024
MAX_HEADER_BYTES = 64 * 1024


class HttpProtocolError(OSError):
    """The peer does not speak HTTP/1.1, or broke off."""


@dataclass(frozen=True, slots=True)
class Peer:
    """A server: the address to connect to, and the name it answers for.

    Attributes:
        address: IP address, or a name that may resolve to anything.
        port: Port.
        host: Value of the Host header.
        server_name: Name that the certificate must have; ``None`` without TLS.
    """

    address: str
    port: int
    host: str
    server_name: str | None


class HttpAnswer:
    """Status and headers of an answer, and its body in pieces."""

    def __init__(
        self, response: h11.Response, connection: h11.Connection, reader: asyncio.StreamReader
    ) -> None:
        self.status = response.status_code
        self._headers = {
            name.decode("ascii", "replace"): value.decode("latin-1")
            for name, value in response.headers
        }
        self._connection = connection
        self._reader = reader
        self._is_over = False

    def header(self, name: str) -> str:
        """Return a header's value; empty if there is none."""
        return self._headers.get(name.lower(), "")

    @property
    def length(self) -> int | None:
        """Announced size of the body, if any."""
        value = self.header("content-length")
        return int(value) if value.isdigit() and not self.header("transfer-encoding") else None

    async def read_piece(self) -> bytes:
        """Return the next piece of the body; empty at its end.

        Raises:
            HttpProtocolError: The connection broke off.
        """
        piece = bytearray()
        while len(piece) < PIECE_BYTES and not self._is_over:
            event = await next_event(self._connection, self._reader)
            if isinstance(event, h11.Data):
                piece += event.data
            else:
                self._is_over = True
        return bytes(piece)


@asynccontextmanager
async def get(
    peer: Peer,
    target: str,
    *,
    headers: Mapping[str, str],
    ssl_context: ssl.SSLContext | None,
) -> AsyncIterator[HttpAnswer]:
    """Send a GET request; its answer can be read while the block runs.

    Raises:
        HttpProtocolError: The peer sent no answer that HTTP/1.1 allows.
        OSError: The connection failed.
    """
    reader, writer = await asyncio.open_connection(
        peer.address,
        peer.port,
        ssl=ssl_context,
        server_hostname=peer.server_name if ssl_context is not None else None,
        limit=READ_BYTES,
    )
    try:
        connection = h11.Connection(h11.CLIENT, max_incomplete_event_size=MAX_HEADER_BYTES)
        named = {"Host": peer.host, **headers, "Connection": "close"}
        try:
            request = h11.Request(method="GET", target=target, headers=list(named.items()))
            writer.write(connection.send(request) or b"")
            writer.write(connection.send(h11.EndOfMessage()) or b"")
        except h11.LocalProtocolError as error:
            raise HttpProtocolError("not a request that HTTP can carry") from error
        await writer.drain()
        event = await next_event(connection, reader)
        while isinstance(event, h11.InformationalResponse):
            event = await next_event(connection, reader)
        if not isinstance(event, h11.Response):
            raise HttpProtocolError("no answer")
        yield HttpAnswer(event, connection, reader)
    finally:
        writer.transport.abort()
        with suppress(OSError):
            await writer.wait_closed()


async def next_event(connection: h11.Connection, reader: asyncio.StreamReader) -> object:
    """Return the next part of the answer."""
    try:
        while (event := connection.next_event()) is h11.NEED_DATA:
            connection.receive_data(await reader.read(READ_BYTES))
    except h11.RemoteProtocolError as error:
        raise HttpProtocolError("the connection broke off") from error
    if isinstance(event, h11.ConnectionClosed):
        raise HttpProtocolError("the connection broke off")
    return event
