"""Events of a group in a ``for`` loop."""

import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import TypeVar

from labelyard.errors import LedgerUnavailableError
from labelyard.events.models import Event, EventGap, event_fields
from labelyard.events.options import ConsumerOptions
from labelyard.events.reading import Outage, Reading
from labelyard.ledger.event_stream import EventSource

Answer = TypeVar("Answer")


class EventStream:
    """Events that one consumer of a group gets, in the order in which records became final.

    Each loop over it begins with the events that this consumer got and did not acknowledge. For
    one thread at a time; events may be acknowledged in any thread.

    Attributes:
        group: Name of the group, whose consumers share the events.
        consumer: Name of this consumer.
    """

    def __init__(self, options: ConsumerOptions, open_source: Callable[[], EventSource]) -> None:
        """Connect when the loop begins.

        Args:
            open_source: Opens the stream for the time of a loop.
        """
        self.group: str = options.group
        self.consumer: str = options.consumer
        self._options = options
        self._open_source = open_source
        self._reading = Reading(options)
        self._outage = Outage()

    def __iter__(self) -> Iterator[Event | EventGap]:
        """Yield events and gaps until none came for ``timeout_s`` seconds.

        Raises:
            EventGroupNotFoundError: The group was deleted, or does not exist and was to.
            InvalidMessageError: The group has another filter.
            LedgerUnavailableError: The ledger gave no answer at the first call, or for five
                minutes. Another loop over the stream goes on where this one ended.
        """
        source = self._open_source()
        self._reading.begin()
        try:
            if not self._reading.position:
                self._join(source)
            while (found := self._next_items(source)) is not None:
                for item in found:
                    yield item
                    if self._options.is_auto:
                        self._patiently(item.ack)
                    self._reading.note_handled()
        finally:
            self._leave(source)

    def _next_items(self, source: EventSource) -> Iterator[Event | EventGap] | None:
        """Read events, or wait for some; ``None`` ends the loop."""
        reading = self._reading
        read = self._patiently(
            lambda: source.read(self.group, **reading.read_arguments())  # type: ignore[arg-type]
        )
        if read is None:
            self._join(source)
            return iter(())
        gap = reading.take(read)
        if gap is None and not reading.buffer:
            return iter(()) if self._wait(source) else None
        gaps = [EventGap(**gap, _acknowledge=self._ack_gap(source))] if gap else []
        return self._deal(gaps, source)

    def _deal(self, gaps: list[EventGap], source: EventSource) -> Iterator[Event | EventGap]:
        reading = self._reading
        yield from gaps
        while reading.buffer:
            if reading.is_hold_due():
                ids = [one.event_id for one in reading.buffer]
                held = self._patiently(
                    lambda ids=ids: source.hold(  # type: ignore[misc]
                        self.group, consumer=self.consumer, event_ids=ids
                    )
                )
                reading.keep_held(held)
                continue
            entry = reading.buffer.popleft()
            fields = event_fields(entry.event_id, entry.fields, deliveries=entry.deliveries)
            yield Event(**fields, _acknowledge=self._ack(source))

    def _wait(self, source: EventSource) -> bool:
        """Wait for an event; return whether the loop goes on."""
        reading = self._reading
        if reading.is_ready:
            return True
        wait_s = reading.wait_s()
        if wait_s > 0:
            time.sleep(reading.pause_s())
            if not self._patiently(lambda: source.wait(reading.position, for_s=wait_s)):
                reading.rest()
        return wait_s > 0 or reading.left_s() > 0

    def _join(self, source: EventSource) -> None:
        arguments = self._reading.join_arguments()
        self._reading.position = self._patiently(lambda: source.join(self.group, **arguments))

    def _ack(self, source: EventSource) -> Callable[[str], None]:
        return lambda event_id: source.ack(self.group, event_id)

    def _ack_gap(self, source: EventSource) -> Callable[[str], None]:
        return lambda gap_id: source.ack_gap(self.group, gap_id)

    def _patiently(self, call: Callable[[], Answer]) -> Answer:
        """Repeat a call through an outage of the ledger."""
        while True:
            try:
                answer = call()
            except LedgerUnavailableError as error:
                time.sleep(self._outage.pause_s(error, left_s=self._reading.left_s()))
            else:
                self._outage.end()
                return answer

    def _leave(self, source: EventSource) -> None:
        with suppress(LedgerUnavailableError):
            source.leave(self.group, consumer=self.consumer, is_releasing=self._options.is_auto)
        source.close()
