"""The queues of jobs, declared alike by producers and workers."""

from typing import TYPE_CHECKING, Any, Final, Literal

if TYPE_CHECKING:
    from kombu import Queue

QueueName = Literal["control", "interactive", "bulk", "quarantine"]
# Most urgent first.
QUEUE_NAMES: Final[tuple[QueueName, ...]] = ("control", "interactive", "bulk", "quarantine")
# Far above what our own count of deaths allows: it only stops a loop that nothing else sees.
DELIVERY_LIMIT: Final = 20


def queue_name(namespace: str, queue: str) -> str:
    """Name a queue as the broker knows it."""
    return f"{namespace}.{queue}"


def is_amqp(broker_url: str) -> bool:
    """Return whether an AMQP 0.9.1 broker (RabbitMQ) carries the messages, and not Redis."""
    return broker_url.startswith(("amqp://", "amqps://", "pyamqp://"))


def queues(namespace: str, broker_url: str) -> "list[Queue]":
    """Define all queues for kombu and Celery, the most urgent first.

    Messages go through the default exchange, which needs no binding: on Redis a binding
    is a key, and an emptied broker would have lost it.
    """
    from kombu import Exchange, Queue  # only workers and producers for RabbitMQ have it

    return [
        Queue(
            queue_name(namespace, queue),
            Exchange(""),
            routing_key=queue_name(namespace, queue),
            durable=True,
            queue_arguments=_arguments(namespace, queue) if is_amqp(broker_url) else None,
        )
        for queue in QUEUE_NAMES
    ]


def _arguments(namespace: str, queue: QueueName) -> dict[str, Any]:
    """Choose the RabbitMQ arguments of a queue: replicated, and never redelivering for ever."""
    arguments: dict[str, Any] = {"x-queue-type": "quorum"}
    if queue != "quarantine":
        arguments |= {
            "x-delivery-limit": DELIVERY_LIMIT,
            "x-dead-letter-exchange": "",
            "x-dead-letter-routing-key": queue_name(namespace, "quarantine"),
        }
    return arguments
