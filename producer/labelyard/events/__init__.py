"""The event stream: jobs, runs and shards that became final, read by groups of consumers."""

from labelyard.events.async_stream import AsyncEventStream
from labelyard.events.groups import EventGroup
from labelyard.events.models import AsyncEvent, AsyncEventGap, Event, EventContent, EventGap
from labelyard.events.options import EventOptions
from labelyard.events.stream import EventStream

__all__ = [
    "AsyncEvent",
    "AsyncEventGap",
    "AsyncEventStream",
    "Event",
    "EventContent",
    "EventGap",
    "EventGroup",
    "EventOptions",
    "EventStream",
]
