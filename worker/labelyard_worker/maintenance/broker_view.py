"""View of the broker's queues and unacknowledged messages, as the reconciler needs it."""

import json
import logging
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Protocol

import redis

from labelyard.errors import LedgerUnavailableError
from labelyard.ledger import Ledger
from labelyard.ledger.maintenance import MaintenanceLedger
from labelyard.publisher import Publisher
from labelyard.queues import Queue, is_amqp
from labelyard.redis_connections import SOCKET_OPTIONS
from labelyard.settings import ConnectionSettings
from labelyard.tenant_lines.counts import count_messages
from labelyard.tenant_lines.keys import BrokerKeys
from labelyard.tenant_lines.scripts import SCRIPTS

log = logging.getLogger(__name__)

NOTE_EVERY_S = 1.0


@dataclass(frozen=True, slots=True)
class QueueSnapshot:
    """State of one queue.

    Attributes:
        is_empty: Whether no message is queued.
        next_published_at: When the oldest message was published, by the ledger's clock; 0 if
            unknown. Lists and tenants' lines are first in, first out: all messages published
            before it have left the queue.
    """

    is_empty: bool
    next_published_at: float = 0.0


@dataclass(frozen=True, slots=True)
class BrokerSnapshot:
    """State of all queues, and the ids of jobs with unacknowledged messages."""

    queues: Mapping[str, QueueSnapshot] = field(default_factory=dict)
    unacked_job_ids: frozenset[str] = frozenset()


# Parsing a message of any content raises nothing else.
UNREADABLE = (ValueError, TypeError, LookupError, OverflowError, RecursionError)


def read_job_ids(unacked: Iterable[bytes | str]) -> frozenset[str]:
    """Read the job ids out of the record of unacknowledged messages; an odd message has none."""
    ids = set()
    for entry in unacked:
        with suppress(*UNREADABLE):
            ids.add(json.loads(entry)[0]["headers"]["id"])
    return frozenset(ids)


class BrokerView(Protocol):
    """Interface to the broker's messages, as the reconciler needs it."""

    def note_received(self, queue: str, published_at: float) -> None:
        """Note the publishing time of a message that *queue* has passed on for the first time."""

    def take_snapshot(self) -> BrokerSnapshot:
        """Take a snapshot of the queues."""

    def count_queued(self) -> int:
        """Count the queued messages of all queues."""

    def close(self) -> None:
        """Close the connection."""


class RedisBrokerView:
    """View of kombu's lists and hashes, and of the tenants' lines, on Redis."""

    def __init__(self, settings: ConnectionSettings) -> None:
        self._client = redis.Redis.from_url(
            settings.broker_url, **SOCKET_OPTIONS
        )  # bytes: a message need not be UTF-8
        self._keys = BrokerKeys(settings.namespace)

    def note_received(self, queue: str, published_at: float) -> None:
        """Do nothing: each snapshot holds the next message."""

    def take_snapshot(self) -> BrokerSnapshot:
        """Take one consistent snapshot.

        Raises:
            redis.RedisError: The broker gave no answer.
        """
        lists = [self._keys.queue(queue) for queue in Queue]
        with self._client.pipeline(transaction=True) as pipeline:
            pipeline.eval(SCRIPTS["oldest"], len(lists), *lists)
            pipeline.hvals(self._keys.unacked)
            oldest, unacked = pipeline.execute()
        views: dict[str, QueueSnapshot] = {
            queue.value: QueueSnapshot(is_empty=not at, next_published_at=float(at or 0))
            for queue, at in zip(Queue, oldest, strict=True)
        }
        return BrokerSnapshot(queues=views, unacked_job_ids=read_job_ids(unacked))

    def count_queued(self) -> int:
        """Count the queued messages of all queues."""
        return sum(count_messages(self._client, self._keys).values())

    def close(self) -> None:
        """Close the connection."""
        self._client.close()


class AmqpBrokerView:
    """View of RabbitMQ by the lengths of its queues; RabbitMQ does not list the messages in them.

    Queues are first in, first out. What was published before a message that workers got, or
    before the queue was empty, has left it; and what has left it is running by the next
    snapshot. Workers share these times through the ledger.
    """

    def __init__(self, settings: ConnectionSettings, ledger: Ledger) -> None:
        self._publisher = Publisher(settings)
        self._ledger = MaintenanceLedger(ledger)
        self._noted: dict[str, float] = {}
        self._empty_at: dict[str, float] = {}

    def note_received(self, queue: str, published_at: float) -> None:
        """Share that *queue* has passed on a message; seconds between messages are enough."""
        if published_at < self._noted.get(queue, 0.0) + NOTE_EVERY_S:
            return
        self._noted[queue] = published_at
        try:
            self._ledger.note_passed(queue, published_at)
        except LedgerUnavailableError as error:
            why = type(error.__cause__ or error).__name__
            log.warning("delivery_not_noted", extra={"fields": {"why": why}})

    def take_snapshot(self) -> BrokerSnapshot:
        """Take a snapshot; the next one builds upon it.

        Raises:
            BrokerUnavailableError: The broker gave no answer.
            LedgerUnavailableError: The ledger gave none.
        """
        now = self._ledger.read_clock()
        depths = self._publisher.depths()
        passed = self._ledger.passed()
        for queue, empty_at in self._empty_at.items():
            passed[queue] = max(empty_at, passed.get(queue, 0.0))
        self._empty_at |= {queue: now for queue, depth in depths.items() if not depth}
        return BrokerSnapshot(
            {queue: QueueSnapshot(False, passed.get(queue, 0.0)) for queue in depths}
        )

    def count_queued(self) -> int:
        """Count the queued messages of all queues."""
        return sum(self._publisher.depths().values())

    def close(self) -> None:
        """Close the connection."""
        self._publisher.close()


def connect_broker(settings: ConnectionSettings, ledger: Ledger) -> BrokerView:
    """Connect the view of the broker that ``LABELYARD_BROKER_URL`` names."""
    if is_amqp(settings.broker_url):
        return AmqpBrokerView(settings, ledger)
    return RedisBrokerView(settings)
