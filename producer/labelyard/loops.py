"""Connections of an asyncio client: one set for each event loop that uses it."""

import asyncio
import threading
from collections.abc import AsyncGenerator
from typing import Final

from labelyard.forking import abandon, call_in_child
from labelyard.ledger import AsyncLedger, connect_async
from labelyard.ledger.listener import Listener
from labelyard.ledger.sightings import Sightings
from labelyard.settings import ConnectionSettings


class LoopConnections:
    """The ledger and the listener of one event loop.

    An asynchronous generator closes them when the loop shuts down its generators, which
    ``asyncio.run``, pytest-asyncio and ``async_to_sync`` do at their end.
    """

    def __init__(self, settings: ConnectionSettings, sightings: Sightings) -> None:
        self.ledger: Final = AsyncLedger(connect_async(settings), settings, sightings=sightings)
        self.listener: Final = Listener(self.ledger, connect_async(settings, retries=0))
        self._closer: Final = self._close_with_loop()

    async def open(self) -> None:
        """Register with the running loop, to be closed with it."""
        await anext(self._closer)

    async def close(self) -> None:
        """Close the connections."""
        await self._closer.aclose()

    async def _close_with_loop(self) -> AsyncGenerator[None, None]:
        try:
            yield
        finally:
            await self.listener.close()
            await self.ledger.client.aclose()


class ConnectionsByLoop:
    """The connections of each event loop; a loop that has none gets them at its first call."""

    def __init__(self, settings: ConnectionSettings) -> None:
        """Check the address; connect when there is something to do.

        Raises:
            ServiceConfigError: LABELYARD_LEDGER_URL is not the address of a Redis.
        """
        connect_async(settings)
        self._settings = settings
        self._sightings = Sightings(result_ttl_s=settings.result_ttl_s)
        self._lock = threading.Lock()
        self._by_loop: dict[asyncio.AbstractEventLoop, LoopConnections] = {}
        call_in_child(self._renew)

    def _renew(self) -> None:
        """Start without connections: a forked child must not touch its parent's loops."""
        abandon(self._by_loop)
        self._lock = threading.Lock()
        self._by_loop = {}

    async def here(self) -> LoopConnections:
        """Return the connections of the running loop."""
        loop = asyncio.get_running_loop()
        with self._lock:
            found = self._by_loop.get(loop)
            if found is not None:
                return found
            for known in [one for one in self._by_loop if one.is_closed()]:
                del self._by_loop[known]
            made = self._by_loop[loop] = LoopConnections(self._settings, self._sightings)
        await made.open()
        return made

    async def close_here(self) -> None:
        """Close the connections of the running loop; those of others close with their loops."""
        with self._lock:
            found = self._by_loop.pop(asyncio.get_running_loop(), None)
        if found is not None:
            await found.close()
