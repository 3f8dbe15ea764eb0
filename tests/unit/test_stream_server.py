"""A server of streams closes every connection that it accepted, in whatever state it is."""

import asyncio
import gc
import socket
import warnings

import pytest

from labelyard.stream_server import StreamServer

HOST = "127.0.0.1"
CONNECTIONS = 20


async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while read := await reader.read(100):
            writer.write(read)
            await writer.drain()
    finally:
        writer.close()


def connect(port: int, *, count: int = CONNECTIONS) -> list[socket.socket]:
    return [socket.create_connection((HOST, port), timeout=10) for _ in range(count)]


@pytest.mark.parametrize("turns", range(8))
def test_no_connection_outlives_the_server(turns: int) -> None:
    async def main() -> list[socket.socket]:
        server = StreamServer(echo, limit=1000)
        clients = connect(await server.listen(HOST, 0))
        for _ in range(turns):  # from "not accepted" to "its task waits for bytes"
            await asyncio.sleep(0)
        await server.close()
        return clients

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        clients = asyncio.run(main())
        gc.collect()  # a transport that is still open warns; pytest makes it a failure

    for client in clients:
        with client:
            assert ends(client)


def ends(client: socket.socket) -> bool:
    try:
        return client.recv(1) == b""
    except ConnectionResetError:
        return True


def test_a_stopped_server_ends_what_it_serves() -> None:
    async def main() -> bytes:
        server = StreamServer(echo, limit=1000)
        port = await server.listen(HOST, 0)
        reader, writer = await asyncio.open_connection(HOST, port)
        await server.stop_listening()
        with pytest.raises(ConnectionRefusedError):
            await asyncio.open_connection(HOST, port)
        writer.write(b"still here")
        writer.write_eof()
        answer = await reader.read()
        writer.close()
        await server.wait_until_idle(10)
        await server.close()
        return answer

    assert asyncio.run(main()) == b"still here"


def test_a_fault_of_one_connection_is_reported_and_harms_no_other() -> None:
    async def fail(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.close()
        raise LookupError("a fault")

    async def main() -> list[object]:
        reported: list[object] = []
        asyncio.get_running_loop().set_exception_handler(
            lambda _, context: reported.append(str(context.get("exception")))
        )
        server = StreamServer(fail, limit=1000)
        port = await server.listen(HOST, 0)
        for client in connect(port, count=2):
            with client:
                assert await asyncio.to_thread(ends, client)
        await server.close()
        return reported

    assert asyncio.run(main()) == ["a fault", "a fault"]
