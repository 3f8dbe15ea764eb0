"""Queues that carry jobs from producers to workers: their names, their order and their rules."""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Final, Literal, TypeAlias

if TYPE_CHECKING:
    from kombu import Queue as KombuQueue

# Far above what our own count of deaths allows: it only stops a loop that nothing else sees.
DELIVERY_LIMIT: Final = 20


class Priority(StrEnum):
    """Priority of a job's images inside a worker: in the intake, the batches and the text cache."""

    INTERACTIVE = "interactive"
    BULK = "bulk"


@dataclass(frozen=True, slots=True)
class QueueRules:
    """Rules of one queue.

    Attributes:
        priority: Priority of its jobs' images inside a worker.
        slots: Most of its messages that a worker holds at once: a number, ``all`` of
            LABELYARD_CONCURRENCY, or LABELYARD_BULK_SHARE of it. Each queue is counted alone:
            two queues with ``bulk_share`` may together leave no slot to interactive jobs.
        holds_jobs: Whether its messages have records; one from another queue is set aside.
        accepts_submits: Whether clients may submit to it.
        is_exclusive: Whether a worker runs its jobs one at a time, because they may kill it.
    """

    priority: Priority
    slots: int | Literal["all", "bulk_share"]
    holds_jobs: bool = True
    accepts_submits: bool = False
    is_exclusive: bool = False


class Queue(StrEnum):
    """Queue of the broker, by its name without the namespace; the most urgent first.

    A new queue needs a member here, its rules in ``RULES``, and its name in
    ``SubmitQueueName`` if clients may submit to it.
    """

    CONTROL = "control"
    INTERACTIVE = "interactive"
    BULK = "bulk"
    QUARANTINE = "quarantine"

    @property
    def rules(self) -> QueueRules:
        """Rules of this queue."""
        return RULES[self]

    def slots(self, *, concurrency: int, bulk_share: float) -> int:
        """Return the most messages of this queue that a worker holds at once.

        Args:
            concurrency: Jobs that the worker runs at once.
            bulk_share: Part of these that bulk jobs may take, so that interactive jobs
                always find a free slot.
        """
        match self.rules.slots:
            case "all":
                return concurrency
            case "bulk_share":
                return max(1, int(concurrency * bulk_share))
            case number:
                return number

    def amqp_arguments(self, namespace: str) -> dict[str, Any]:
        """Return the RabbitMQ arguments: replicated, with a limit on redeliveries."""
        arguments: dict[str, Any] = {"x-queue-type": "quorum"}
        if self is not Queue.QUARANTINE:
            arguments |= {
                "x-delivery-limit": DELIVERY_LIMIT,
                "x-dead-letter-exchange": "",
                "x-dead-letter-routing-key": queue_name(namespace, Queue.QUARANTINE),
            }
        return arguments


RULES: Final[Mapping[Queue, QueueRules]] = {
    # Plans and ends of runs, which run no model; messages of earlier versions about deliveries.
    Queue.CONTROL: QueueRules(Priority.BULK, slots=2),
    Queue.INTERACTIVE: QueueRules(Priority.INTERACTIVE, slots="all", accepts_submits=True),
    Queue.BULK: QueueRules(Priority.BULK, slots="bulk_share", accepts_submits=True),
    Queue.QUARANTINE: QueueRules(Priority.BULK, slots=1, is_exclusive=True),
}
#: Names of the queues that clients may submit to.
SubmitQueueName: TypeAlias = Literal["interactive", "bulk"]
#: Queue that a producer names, as a member or as plain text.
SubmitQueue: TypeAlias = Queue | SubmitQueueName
#: Names of the queues that hold jobs.
JobQueueName: TypeAlias = Literal["control", "interactive", "bulk", "quarantine"]
#: Queue of a job, as a member or as plain text.
JobQueue: TypeAlias = Queue | JobQueueName
JOB_QUEUES: Final = tuple(queue for queue in Queue if queue.rules.holds_jobs)
SUBMIT_QUEUES: Final = tuple(queue for queue in Queue if queue.rules.accepts_submits)


def queue_name(namespace: str, queue: str) -> str:
    """Return the full name of a queue, as the broker knows it."""
    return f"{namespace}.{queue}"


def is_amqp(broker_url: str) -> bool:
    """Return whether an AMQP 0.9.1 broker (RabbitMQ) carries the messages, and not Redis."""
    return broker_url.startswith(("amqp://", "amqps://", "pyamqp://"))


def messaging_system(broker_url: str) -> str:
    """Return the attribute ``messaging.system`` of spans."""
    return "rabbitmq" if is_amqp(broker_url) else "redis"


def kombu_queues(namespace: str, broker_url: str) -> "list[KombuQueue]":
    """Declare all queues for kombu and Celery, the most urgent first.

    Messages go through the default exchange, which needs no binding: on Redis a binding
    is a key, and an emptied broker would have lost it.
    """
    from kombu import Exchange  # only workers and producers for RabbitMQ have it
    from kombu import Queue as KombuQueue

    return [
        KombuQueue(
            queue_name(namespace, queue),
            Exchange(""),
            routing_key=queue_name(namespace, queue),
            durable=True,
            queue_arguments=queue.amqp_arguments(namespace) if is_amqp(broker_url) else None,
        )
        for queue in Queue
    ]
