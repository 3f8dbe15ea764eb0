"""Prefetch count for each RabbitMQ queue; Celery's queues for delayed tasks are not declared.

Celery asks for the same number of messages from each queue, as many as there are threads: bulk jobs
could take them all, and a message without a thread waits where no other worker gets it. With a
prefetch count for each queue, and a thread for each message of all of them, interactive jobs always
find a thread, and every delivered message is running.
"""

from typing import Any

from celery.worker.consumer import Consumer as StockConsumer
from kombu import Queue


class PrefetchQueue(Queue):  # type: ignore[misc]
    """Queue that delivers at most ``prefetch_count`` unacknowledged messages to its consumer."""

    attrs = (*Queue.attrs, ("prefetch_count", int))

    def consume(self, *args: Any, **kwargs: Any) -> Any:
        """Start consuming; a channel's prefetch count holds for the consumers that start after it."""
        self.channel.basic_qos(0, self.prefetch_count, False)
        return super().consume(*args, **kwargs)


def with_prefetch(queue: Queue, prefetch_count: int) -> PrefetchQueue:
    """Return a copy of *queue* with a prefetch count of its own."""
    return PrefetchQueue(**queue.as_dict(), prefetch_count=prefetch_count)


class RabbitConsumer(StockConsumer):  # type: ignore[misc]
    """Celery's consumer without its 28 quorum queues for delayed tasks: we have none."""

    def on_connection_error_after_connected(self, exc: Exception) -> None:
        """Drop the events' connection too, without a closing handshake that may never be answered."""
        if self.event_dispatcher and self.event_dispatcher.connection:
            self.event_dispatcher.connection.collect()
        super().on_connection_error_after_connected(exc)

    class Blueprint(StockConsumer.Blueprint):  # type: ignore[misc]
        """The steps of a consumer, in their order."""

        default_steps = tuple(
            step
            for step in StockConsumer.Blueprint.default_steps
            if not step.endswith(":DelayedDelivery")
        )
