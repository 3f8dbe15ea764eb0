"""Sets an allowance (prefetch count) for each RabbitMQ queue; keeps Celery's many queues away.

Celery asks for the same number of messages from each queue, as many as there are threads: bulk jobs
could take them all, and what has no thread yet waits where no other worker gets it. With an
allowance for each queue, and a thread for each message of all of them, interactive jobs always find
room, and what was delivered is in work.
"""

from typing import Any

from celery.worker.consumer import Consumer as StockConsumer
from kombu import Queue


class MeteredQueue(Queue):  # type: ignore[misc]
    """A queue that sends its consumer at most ``prefetch_count`` messages at once."""

    attrs = (*Queue.attrs, ("prefetch_count", int))

    def consume(self, *args: Any, **kwargs: Any) -> Any:
        """Begin to consume, by the allowance that the channel has just now."""
        self.channel.basic_qos(0, self.prefetch_count, False)
        return super().consume(*args, **kwargs)


def metered(queue: Queue, prefetch_count: int) -> MeteredQueue:
    """Return a copy of *queue* with an allowance of its own."""
    return MeteredQueue(**queue.as_dict(), prefetch_count=prefetch_count)


class Consumer(StockConsumer):  # type: ignore[misc]
    """Celery's consumer without the 28 quorum queues for tasks that start later: we have none."""

    def on_connection_error_after_connected(self, exc: Exception) -> None:
        """Leave the events' connection too without a good-bye, which may never be answered."""
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
