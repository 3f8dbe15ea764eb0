"""Run a listener in a thread, for waits in any number of threads."""

import asyncio
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Final

from labelyard.errors import LedgerUnavailableError
from labelyard.forking import abandon, call_in_child
from labelyard.ledger.async_client import AsyncLedger, connect_async
from labelyard.ledger.listener import IDLE_S, Listener, Notify, Wait
from labelyard.ledger.sightings import Sightings
from labelyard.settings import ConnectionSettings

STOP_WITHIN_S: Final = 5.0


class ListenerThread:
    """The listener of a client for threads; its thread runs only while it has something to do."""

    def __init__(self, settings: ConnectionSettings, *, sightings: Sightings) -> None:
        """Start nothing yet."""
        self._settings = settings
        self._sightings = sightings
        self._lock = threading.Lock()
        self._life: _Life | None = None
        call_in_child(self._renew)

    def _renew(self) -> None:
        """Start without a thread: a forked child does not have its parent's."""
        abandon(self._life)
        self._lock = threading.Lock()
        self._life = None

    @contextmanager
    def notifying(self, job_ids: Iterable[str], notify: Notify) -> Iterator[None]:
        """Call *notify* for *job_ids*, in the listener's thread, while the block runs.

        Raises:
            LedgerUnavailableError: The system starts no further thread.
        """
        wait = Wait(job_ids, notify)
        with self._lock:
            if self._life is None or self._life.is_over:
                self._life = _Life(self._settings, self._sightings, self._lock)
            life = self._life
            life.add(wait)
        try:
            yield
        finally:
            with self._lock:
                life.remove(wait)

    def close(self) -> None:
        """End the thread; the next wait starts another one."""
        with self._lock:
            life, self._life = self._life, None
        if life is not None:
            life.stop()


class _Life:
    """One life of the thread: it ends when it has been idle for :data:`IDLE_S`, or is stopped.

    Attributes:
        is_over: Whether the thread takes no further waits. Guarded by the lock.
    """

    def __init__(
        self, settings: ConnectionSettings, sightings: Sightings, lock: threading.Lock
    ) -> None:
        self.is_over = False
        self._lock = lock
        self._waits = 0
        self._loop = asyncio.new_event_loop()
        self._stop = asyncio.Event()
        self._ledger = AsyncLedger(connect_async(settings), settings, sightings=sightings)
        self._listener = Listener(self._ledger, connect_async(settings, retries=0))
        self._thread = threading.Thread(target=self._run, name="labelyard-listener", daemon=True)
        try:
            self._thread.start()
        except RuntimeError as error:
            self._loop.close()
            raise LedgerUnavailableError(f"no thread to listen in: {error}") from error

    def add(self, wait: Wait) -> None:
        """Take a wait; call it with the lock."""
        self._waits += 1
        self._loop.call_soon_threadsafe(self._listener.add, wait)

    def remove(self, wait: Wait) -> None:
        """Let a wait go; call it with the lock."""
        self._waits -= 1
        if not self.is_over:
            self._loop.call_soon_threadsafe(self._listener.remove, wait)

    def stop(self) -> None:
        """End the thread, and wait for its end."""
        with self._lock:
            if not self.is_over:
                self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(timeout=STOP_WITHIN_S)

    def _run(self) -> None:
        try:
            self._loop.run_until_complete(self._serve())
        finally:
            with self._lock:
                self.is_over = True
            self._loop.run_until_complete(self._loop.shutdown_asyncgens())
            self._loop.close()

    async def _serve(self) -> None:
        try:
            while not await self._is_stopped() and not self._end_if_idle():
                pass
        finally:
            await self._listener.close()
            await self._ledger.client.aclose()

    async def _is_stopped(self) -> bool:
        """Wait a while for :meth:`stop`."""
        try:
            async with asyncio.timeout(IDLE_S):
                return await self._stop.wait()
        except TimeoutError:
            return False

    def _end_if_idle(self) -> bool:
        with self._lock:
            self.is_over = self._waits == 0
        return self.is_over
