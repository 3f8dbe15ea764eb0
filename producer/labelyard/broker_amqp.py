"""Publish messages to RabbitMQ, each confirmed by the broker; needs the extra ``rabbitmq``."""

import json
from base64 import b64decode
from collections.abc import Mapping, Sequence
from typing import Any, Final

from amqp.exceptions import AMQPError, MessageNacked  # type: ignore[import-untyped]
from kombu import Connection, Producer
from kombu.exceptions import KombuError

from labelyard.message_search import MessageSearch
from labelyard.outgoing import PERSISTENT, Outgoing
from labelyard.queues import Queue, kombu_queues, queue_name
from labelyard.settings import ConnectionSettings

#: Exceptions that mean that RabbitMQ did not take a message or gave no answer. kombu and
#: py-amqp raise the last three for answers that they cannot read.
AMQP_ERRORS: Final[tuple[type[Exception], ...]] = (
    KombuError,
    AMQPError,
    MessageNacked,
    OSError,
    ValueError,
    LookupError,
    AttributeError,
)


class AmqpBrokerConnection:
    """One connection to RabbitMQ, used by one thread at a time.

    Args:
        timeout_s: Seconds that one answer of the broker is waited for.
    """

    def __init__(self, settings: ConnectionSettings, *, timeout_s: float) -> None:
        self._settings = settings
        self._timeout_s = timeout_s
        self._queues = kombu_queues(settings.namespace, settings.broker_url)
        self._connection = Connection(
            settings.broker_url,
            connect_timeout=timeout_s,
            transport_options={
                "confirm_publish": True,
                "read_timeout": timeout_s,
                "write_timeout": timeout_s,
            },
        )
        try:
            self._open()
        except BaseException:
            self.drop()
            raise

    def _open(self) -> None:
        self._connection.ensure_connection(
            max_retries=1, interval_start=0, interval_step=0, timeout=self._timeout_s
        )
        self._channel = self._connection.channel()
        self._producer = Producer(self._channel)
        for queue in self._queues:  # RabbitMQ drops a message to an undeclared queue
            queue(self._channel).declare()

    def send(self, messages: Sequence[Outgoing]) -> None:
        """Publish *messages* in their order; each is confirmed."""
        for message in messages:
            self._producer.publish(
                message.body(),
                routing_key=queue_name(self._settings.namespace, message.queue),
                content_type="application/json",
                content_encoding="utf-8",
                headers=message.headers(),
                delivery_mode=PERSISTENT,
                correlation_id=message.job_id,
                message_id=message.job_id,
                timeout=self._timeout_s,
                confirm_timeout=self._timeout_s,
            )

    def send_raw(self, raw: bytes, *, queue: str) -> None:
        """Publish a former AMQP message, from the form that it would have in a list."""
        item = json.loads(raw)
        self._producer.publish(
            b64decode(item["body"]),
            routing_key=queue,
            content_type=item["content-type"],
            content_encoding=item["content-encoding"],
            headers=item["headers"] or {},
            delivery_mode=PERSISTENT,
            timeout=self._timeout_s,
            confirm_timeout=self._timeout_s,
        )

    def write_weights(self, weights: Mapping[str, float]) -> None:
        """Do nothing: a queue of RabbitMQ is one line, and serves no tenant before another."""

    def depths(self) -> dict[str, int]:
        """Count the waiting messages of each queue."""
        return {
            queue.value: self._count(declared)
            for queue, declared in zip(Queue, self._queues, strict=True)
        }

    def find(self, job_id: str, *, queue: str, tenant: str) -> MessageSearch:  # noqa: ARG002 - see the result
        """Count the waiting messages: RabbitMQ does not let a message be looked at in its queue."""
        return MessageSearch(can_search=False, lengths=self.depths())

    def _count(self, queue: Any) -> int:
        declared = self._channel.queue_declare(
            queue=queue.name, durable=True, auto_delete=False, arguments=queue.queue_arguments
        )
        return int(declared.message_count)

    def close(self) -> None:
        """Close the connection."""
        self._connection.release()

    def drop(self) -> None:
        """Close the socket of a connection that may be broken, without a farewell."""
        self._connection.collect()
