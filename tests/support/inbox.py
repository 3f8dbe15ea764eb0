"""A consumer and a producer of plain messages, in this process."""

import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

from kombu import Connection, Consumer, Queue
from kombu.message import Message

from labelyard_worker.broker.transport import install, to_atomic_url
from tests.support.waiting import wait_until

install()


class Inbox:
    """A consumer in this process, with what it was given and did not yet acknowledge."""

    def __init__(self, connection: Connection, queues: list[str], prefetch: int) -> None:
        self.connection = connection
        self.channel: Any = connection.channel()
        self.messages: list[Message] = []
        bound = [Queue(name, channel=self.channel) for name in queues]
        self.consumer = Consumer(self.channel, bound, on_message=self.messages.append)
        self.consumer.qos(prefetch_count=prefetch)
        self.consumer.consume()

    def turn(self, *, timeout: float = 0.05) -> None:
        """Run one turn of the transport's event loop."""
        with suppress(TimeoutError):
            self.connection.drain_events(timeout=timeout)

    def await_messages(self, count: int, *, within_s: float = 30.0) -> list[Message]:
        """Turn until *count* messages have come in all."""
        due = time.monotonic() + within_s
        while len(self.messages) < count and time.monotonic() < due:
            self.turn()
        assert len(self.messages) >= count, f"only {len(self.messages)} of {count} came"
        return self.messages

    def await_quiet(self) -> None:
        """Turn until the channel knows that its queues are empty."""
        wait_until(lambda: self.turn() or self.channel.empty_queues.names)


@contextmanager
def inbox(
    url: str, *queues: str, prefetch: int = 0, is_atomic: bool = True, **options: Any
) -> Iterator[Inbox]:
    """Open a connection that consumes *queues*."""
    address = to_atomic_url(url) if is_atomic else url
    with Connection(address, transport_options=options) as connection:
        opened = Inbox(connection, list(queues or ["bulk"]), prefetch)
        yield opened
        opened.channel.qos._delivered.clear()  # else closing restores what a test left


def publish(url: str, *bodies: str, queue: str = "bulk", **options: Any) -> None:
    """Publish as any producer does: through stock kombu, with one LPUSH each."""
    transport_options = options.pop("transport_options", {})
    with (
        Connection(url, transport_options=transport_options) as connection,
        connection.Producer() as producer,
    ):
        for body in bodies:
            producer.publish(body, routing_key=queue, **options)


def bodies(messages: list[Message]) -> list[str]:
    """Read the bodies of the published messages."""
    return [message.payload for message in messages]
