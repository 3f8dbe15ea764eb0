"""A Valkey that can lose its last writes, as a machine does whose power fails."""

from pathlib import Path

import redis

from labelyard_worker.local.servers import ValkeyServer


class PowerFailure:
    """From its making on, nothing that the server writes reaches the disk for good.

    With ``appendfsync no`` the server calls no fsync: what it writes is only in the page cache, and
    no barrier ends. A failing power supply leaves the file as it was.
    """

    def __init__(self, server: ValkeyServer) -> None:
        self._server = server
        with redis.Redis.from_url(server.url) as client:
            client.config_set("appendfsync", "no")
        self._file = append_only_file(server)
        self._safe_bytes = self._file.stat().st_size

    def strike(self) -> None:
        """Kill the server, drop what is not on disk, and start it as it was."""
        self._server.kill()
        with self._file.open("r+b") as file:
            file.truncate(self._safe_bytes)
        self._server.start()


def append_only_file(server: ValkeyServer) -> Path:
    """Find the file that the server appends to at present."""
    return max((server.data_dir / "appendonlydir").glob("*.incr.aof"))
