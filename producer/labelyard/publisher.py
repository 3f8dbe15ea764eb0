"""Publish jobs to the broker: one Celery message each, in batches if there are many."""

import logging
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Final, Protocol, TypeVar

from labelyard.errors import BrokerUnavailableError, ServiceConfigError
from labelyard.forking import abandon, call_in_child
from labelyard.message_search import MessageSearch
from labelyard.messages import Job
from labelyard.outgoing import (
    DEFAULT_TENANT,
    DELIVER_TASK,
    JOB_ID_HEADER,
    PUBLISHED_AT_HEADER,
    TASK,
    Outgoing,
)
from labelyard.queues import is_amqp
from labelyard.settings import ConnectionSettings

__all__ = [
    "DELIVER_TASK",
    "JOB_ID_HEADER",
    "PUBLISHED_AT_HEADER",
    "TASK",
    "Outgoing",
    "Publisher",
]

log: logging.Logger = logging.getLogger(__name__)
Answer = TypeVar("Answer")

#: Connections that are kept open between two publications.
MAX_IDLE: Final = 8
#: Connections of one publisher; a call beyond them waits for its turn.
MAX_CONNECTIONS: Final = 32
RETRY_EVERY_S: Final = 0.1
#: Bounds of a tenant's weight. Beyond them one job would be charged as thousands of others.
MIN_WEIGHT: Final = 0.01
MAX_WEIGHT: Final = 1000.0


class BrokerConnection(Protocol):
    """One connection to the broker, used by one thread at a time."""

    def send(self, messages: Sequence[Outgoing]) -> None:
        """Publish *messages* in their order."""

    def send_raw(self, raw: bytes, *, queue: str) -> None:
        """Publish a message as it lay in a list on Redis to the queue of that full name."""

    def write_weights(self, weights: Mapping[str, float]) -> None:
        """Replace the weights of all tenants."""

    def depths(self) -> dict[str, int]:
        """Count the waiting messages of each queue."""

    def find(self, job_id: str, *, queue: str, tenant: str) -> MessageSearch:
        """Search for the message of a job, first in *queue* and in the line of *tenant*."""

    def close(self) -> None:
        """Close the connection."""

    def drop(self) -> None:
        """Close a connection that may be broken, without waiting for the broker."""


class Publisher:
    """Publishes jobs to the broker, from any number of threads.

    A job whose message the broker does not take in time is not lost: its record is in the
    ledger, and a worker's reconciler publishes it.
    """

    def __init__(self, settings: ConnectionSettings, *, timeout_s: float = 3.0) -> None:
        """Check the address; connect when there is something to publish.

        Args:
            timeout_s: Seconds to go on trying when the broker does not answer.

        Raises:
            ServiceConfigError: LABELYARD_BROKER_URL is not the address of a broker, or what
                it needs is not installed.
        """
        self._settings = settings
        self._timeout_s = timeout_s
        self._connect, self._errors = _connector(settings)
        self._lock = threading.Lock()
        self._places = threading.BoundedSemaphore(MAX_CONNECTIONS)
        self._idle: list[BrokerConnection] = []
        call_in_child(self._renew)

    def _renew(self) -> None:
        """Start without connections and with locks that no thread holds."""
        abandon(self._idle)
        self._lock = threading.Lock()
        self._places = threading.BoundedSemaphore(MAX_CONNECTIONS)
        self._idle = []

    def publish(self, job: Job, *, queue: str, published_at: float) -> bool:
        """Publish *job*; ``False``, and a warning in the log, if the broker does not take it."""
        return self.publish_many([Outgoing.of(job, queue=queue, published_at=published_at)])

    def publish_many(self, messages: Sequence[Outgoing]) -> bool:
        """Publish *messages* in few round trips, in their order.

        After a failure some of them may have been published, and may be published again:
        workers run a job once, however often its message comes.
        """
        if not messages:
            return True
        try:
            self._try(lambda connection: connection.send(messages))
        except BrokerUnavailableError as error:
            fields = {
                "code": error.code,
                "job_id": messages[0].job_id,
                "jobs": len(messages),
                "reason": error.args[0],
            }
            log.warning("publish_failed", extra={"fields": fields})
            return False
        return True

    def publish_raw(self, raw: bytes, *, queue: str) -> None:
        """Publish a message that was set aside as it came.

        Args:
            queue: Full name of the queue.

        Raises:
            BrokerUnavailableError: The broker did not take it.
        """
        self._try(lambda connection: connection.send_raw(raw, queue=queue))

    def write_weights(self, weights: Mapping[str, float]) -> None:
        """Replace the weights of all tenants; workers on Redis go by them from the next claim on.

        A tenant with twice the weight of another gets twice as many images claimed while both
        have jobs queued. RabbitMQ's queues know no tenants: there this does nothing.

        Args:
            weights: Weight of each tenant, 0.01 to 1000. ``*`` is the weight of all tenants
                without one of their own; without it that is 1.

        Raises:
            ServiceConfigError: A weight is out of bounds; none was written.
            BrokerUnavailableError: The broker did not take them.
        """
        for tenant, weight in weights.items():
            if not MIN_WEIGHT <= weight <= MAX_WEIGHT:
                raise ServiceConfigError(
                    f"the weight of tenant {tenant} is {weight}: "
                    f"give a number from {MIN_WEIGHT} to {MAX_WEIGHT:g}"
                )
        by_tenant = {tenant: float(weight) for tenant, weight in weights.items()}
        self._try(lambda connection: connection.write_weights(by_tenant))

    def depths(self) -> dict[str, int]:
        """Count the waiting messages of each queue.

        Raises:
            BrokerUnavailableError: The broker gave no answer.
        """
        return self._try(lambda connection: connection.depths())

    def find(self, job_id: str, *, queue: str, tenant: str = DEFAULT_TENANT) -> MessageSearch:
        """Search the broker for the message of a job, within bounds.

        Args:
            queue: Name of the queue that is searched first.
            tenant: Tenant whose line in each queue is searched first.

        Raises:
            BrokerUnavailableError: The broker gave no answer.
        """
        return self._try(lambda connection: connection.find(job_id, queue=queue, tenant=tenant))

    def close(self) -> None:
        """Close all connections; the publisher can still be used, and opens new ones."""
        for connection in self._take_idle():
            connection.close()

    def _try(self, act: Callable[[BrokerConnection], Answer]) -> Answer:
        deadline = time.monotonic() + self._timeout_s
        while True:
            try:
                with self._connection(deadline) as connection:
                    return act(connection)
            except self._errors as error:
                if time.monotonic() + RETRY_EVERY_S >= deadline:
                    raise BrokerUnavailableError(f"{type(error).__name__}: {error}") from error
            time.sleep(RETRY_EVERY_S)

    @contextmanager
    def _connection(self, deadline: float) -> Iterator[BrokerConnection]:
        """Lend a connection, and keep it for the next call unless it failed."""
        places = self._places
        if not places.acquire(timeout=max(0.0, deadline - time.monotonic())):
            raise BrokerUnavailableError(f"all {MAX_CONNECTIONS} connections are in use")
        try:
            connection = self._take_one()
            try:
                yield connection
            except BaseException:
                connection.drop()
                for idle in self._take_idle():  # the same fault has broken them, too
                    idle.drop()
                raise
            self._keep(connection)
        finally:
            places.release()

    def _take_one(self) -> BrokerConnection:
        with self._lock:
            if self._idle:
                return self._idle.pop()
        # Half the time, so that a half-open connection leaves enough to try another.
        return self._connect(self._settings, timeout_s=self._timeout_s / 2)

    def _keep(self, connection: BrokerConnection) -> None:
        with self._lock:
            if len(self._idle) < MAX_IDLE:
                self._idle.append(connection)
                return
        connection.close()

    def _take_idle(self) -> list[BrokerConnection]:
        with self._lock:
            idle, self._idle = self._idle, []
        return idle


def _connector(
    settings: ConnectionSettings,
) -> tuple[Callable[..., BrokerConnection], tuple[type[Exception], ...]]:
    """Choose how to connect to the broker, and which exceptions mean that it is away.

    Raises:
        ServiceConfigError: The address is refused, or RabbitMQ's library is not installed.
    """
    if is_amqp(settings.broker_url):
        return _amqp_connector()
    from labelyard.broker_redis import REDIS_ERRORS, RedisBrokerConnection

    RedisBrokerConnection(settings, timeout_s=1.0).close()  # checks the address; no I/O
    return RedisBrokerConnection, REDIS_ERRORS


def _amqp_connector() -> tuple[Any, tuple[type[Exception], ...]]:
    try:
        from labelyard.broker_amqp import AMQP_ERRORS, AmqpBrokerConnection
    except ImportError as error:
        raise ServiceConfigError(
            "LABELYARD_BROKER_URL names RabbitMQ, which needs more libraries: "
            f"pip install 'labelyard[rabbitmq]' ({error})"
        ) from error
    return AmqpBrokerConnection, AMQP_ERRORS
