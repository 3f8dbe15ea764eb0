"""Events of a group in an ``async for`` loop."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress
from typing import TypeVar

from labelyard.errors import LedgerUnavailableError
from labelyard.events.models import AsyncEvent, AsyncEventGap, event_fields
from labelyard.events.options import ConsumerOptions
from labelyard.events.reading import Outage, Reading
from labelyard.ledger.event_stream import AsyncEventSource

Answer = TypeVar("Answer")


class AsyncEventStream:
    """Events that one consumer of a group gets; see :class:`labelyard.events.stream.EventStream`.

    Attributes:
        group: Name of the group, whose consumers share the events.
        consumer: Name of this consumer.
    """

    def __init__(
        self, options: ConsumerOptions, open_source: Callable[[], Awaitable[AsyncEventSource]]
    ) -> None:
        """Connect when the loop begins."""
        self.group: str = options.group
        self.consumer: str = options.consumer
        self._options = options
        self._open_source = open_source
        self._reading = Reading(options)
        self._outage = Outage()

    async def __aiter__(self) -> AsyncIterator[AsyncEvent | AsyncEventGap]:
        """Yield events and gaps; raises as a loop over an ``EventStream`` does."""
        source = await self._open_source()
        self._reading.begin()
        try:
            if not self._reading.position:
                await self._join(source)
            while (found := await self._next_items(source)) is not None:
                async for item in found:
                    yield item
                    if self._options.is_auto:
                        await self._patiently(item.ack)
                    self._reading.note_handled()
        finally:
            await self._leave(source)

    async def _next_items(
        self, source: AsyncEventSource
    ) -> AsyncIterator[AsyncEvent | AsyncEventGap] | None:
        """Read events, or wait for some; ``None`` ends the loop."""
        reading = self._reading
        read = await self._patiently(
            lambda: source.read(self.group, **reading.read_arguments())  # type: ignore[arg-type]
        )
        if read is None:
            await self._join(source)
            return self._deal([], source)
        gap = reading.take(read)
        if gap is None and not reading.buffer and not await self._wait(source):
            return None
        gaps = [AsyncEventGap(**gap, _acknowledge=self._ack_gap(source))] if gap else []
        return self._deal(gaps, source)

    async def _deal(
        self, gaps: list[AsyncEventGap], source: AsyncEventSource
    ) -> AsyncIterator[AsyncEvent | AsyncEventGap]:
        reading = self._reading
        for gap in gaps:
            yield gap
        while reading.buffer:
            if reading.is_hold_due():
                ids = [one.event_id for one in reading.buffer]
                held = await self._patiently(
                    lambda ids=ids: source.hold(  # type: ignore[misc]
                        self.group, consumer=self.consumer, event_ids=ids
                    )
                )
                reading.keep_held(held)
                continue
            entry = reading.buffer.popleft()
            fields = event_fields(entry.event_id, entry.fields, deliveries=entry.deliveries)
            yield AsyncEvent(**fields, _acknowledge=self._ack(source))

    async def _wait(self, source: AsyncEventSource) -> bool:
        """Wait for an event; return whether the loop goes on."""
        reading = self._reading
        if reading.is_ready:
            return True
        wait_s = reading.wait_s()
        if wait_s > 0:
            await asyncio.sleep(reading.pause_s())
            if not await self._patiently(lambda: source.wait(reading.position, for_s=wait_s)):
                reading.rest()
        return wait_s > 0 or reading.left_s() > 0

    async def _join(self, source: AsyncEventSource) -> None:
        arguments = self._reading.join_arguments()
        self._reading.position = await self._patiently(lambda: source.join(self.group, **arguments))

    def _ack(self, source: AsyncEventSource) -> Callable[[str], Awaitable[None]]:
        return lambda event_id: source.ack(self.group, event_id)

    def _ack_gap(self, source: AsyncEventSource) -> Callable[[str], Awaitable[None]]:
        return lambda gap_id: source.ack_gap(self.group, gap_id)

    async def _patiently(self, call: Callable[[], Awaitable[Answer]]) -> Answer:
        """Repeat a call through an outage of the ledger."""
        while True:
            try:
                answer = await call()
            except LedgerUnavailableError as error:
                await asyncio.sleep(self._outage.pause_s(error, left_s=self._reading.left_s()))
            else:
                self._outage.end()
                return answer

    async def _leave(self, source: AsyncEventSource) -> None:
        with suppress(LedgerUnavailableError):
            await source.leave(
                self.group, consumer=self.consumer, is_releasing=self._options.is_auto
            )
        await source.close()
