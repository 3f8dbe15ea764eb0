"""What the broker holds, as far as the reconciler must know it."""

import json
import logging
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Protocol

import redis

from labelyard.ledger import SOCKET_OPTIONS
from labelyard.publisher import PUBLISHED_AT_HEADER, Publisher
from labelyard.queues import QUEUE_NAMES, queue_name
from labelyard.settings import ConnectionSettings

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class QueueView:
    """One queue.

    Attributes:
        is_empty: Whether no message waits.
        next_published_at: When the message that is next was published, by the
            ledger's clock; 0 if nobody can tell. Queues are first in, first out: what
            was published before it has left the queue.
    """

    is_empty: bool
    next_published_at: float = 0.0


@dataclass(frozen=True, slots=True)
class BrokerView:
    """All queues, and which jobs are delivered but not acknowledged."""

    queues: Mapping[str, QueueView] = field(default_factory=dict)
    unacked_job_ids: frozenset[str] = frozenset()


def published_at(message: str | None) -> float:
    """Read when a message was published; 0 if it does not say."""
    try:
        return float(json.loads(message or "")["headers"][PUBLISHED_AT_HEADER])
    except (ValueError, TypeError, KeyError):
        return 0.0


def job_ids(unacked: Iterable[str]) -> frozenset[str]:
    """Read the job ids out of kombu's record of unacknowledged messages."""
    ids = set()
    for entry in unacked:
        try:
            ids.add(json.loads(entry)[0]["headers"]["id"])
        except (ValueError, TypeError, KeyError, IndexError):
            log.warning("unacked_unreadable")
    return frozenset(ids)


class Broker(Protocol):
    """Something that can say what the broker holds."""

    def look(self) -> BrokerView:
        """Take one look."""

    def waiting(self) -> int:
        """Count the messages that wait in all queues."""

    def close(self) -> None:
        """Close the connection."""


class RedisBroker:
    """Looks into kombu's lists and hashes on Redis."""

    def __init__(self, settings: ConnectionSettings) -> None:
        self._client = redis.Redis.from_url(
            settings.broker_url, decode_responses=True, **SOCKET_OPTIONS
        )
        self._unacked_key = unacked_key(settings.namespace)
        self._queues: dict[str, str] = {
            name: queue_name(settings.namespace, name) for name in QUEUE_NAMES
        }

    def look(self) -> BrokerView:
        """Take one consistent look.

        Raises:
            redis.RedisError: The broker gave no answer.
        """
        with self._client.pipeline(transaction=True) as pipeline:
            for queue in self._queues.values():
                pipeline.lindex(queue, -1)
            pipeline.hvals(self._unacked_key)
            *oldest, unacked = pipeline.execute()
        views: dict[str, QueueView] = {
            name: QueueView(is_empty=message is None, next_published_at=published_at(message))
            for name, message in zip(self._queues, oldest, strict=True)
        }
        return BrokerView(queues=views, unacked_job_ids=job_ids(unacked))

    def waiting(self) -> int:
        """Count the messages that wait in all queues."""
        return sum(int(self._client.llen(queue)) for queue in self._queues.values())

    def close(self) -> None:
        """Close the connection."""
        self._client.close()


class AmqpBroker:
    """Asks RabbitMQ how long its queues are; what is in them it does not tell.

    What was delivered to a worker that lives is not known either, so an empty queue
    is all that says that a message is gone: it may be sent twice, which costs little.
    """

    def __init__(self, settings: ConnectionSettings) -> None:
        self._publisher = Publisher(settings)

    def look(self) -> BrokerView:
        """Take one look.

        Raises:
            BrokerUnavailableError: The broker gave no answer.
        """
        depths = self._publisher.depths()
        return BrokerView({name: QueueView(is_empty=not depth) for name, depth in depths.items()})

    def waiting(self) -> int:
        """Count the messages that wait in all queues."""
        return sum(self._publisher.depths().values())

    def close(self) -> None:
        """Close the connection."""
        self._publisher.close()


def unacked_key(namespace: str) -> str:
    """Name kombu's record of unacknowledged messages."""
    return f"{namespace}.unacked"
