"""Sends jobs to the broker: one Celery message each, in batches where there are many."""

import json
import logging
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final, Self, TypeVar

from amqp.exceptions import AMQPError  # type: ignore[import-untyped]
from kombu import Connection, Producer
from kombu.exceptions import KombuError
from redis.exceptions import RedisError

from labelyard.errors import BrokerUnavailableError
from labelyard.ledger_calls import SOCKET_OPTIONS
from labelyard.messages import Job
from labelyard.queues import QUEUE_NAMES, is_amqp, queue_name, queues
from labelyard.settings import ConnectionSettings

log = logging.getLogger(__name__)
Answer = TypeVar("Answer")

TASK: Final = "labelyard.classify"
DELIVER_TASK: Final = "labelyard.deliver"
JOB_ID_HEADER: Final = "labelyard_job_id"
PUBLISHED_AT_HEADER: Final = "labelyard_published_at"
MAX_IDLE_LANES: Final = 8
RETRY_EVERY_S: Final = 0.1
PERSISTENT: Final = 2
BROKER_ERRORS: Final = (KombuError, RedisError, AMQPError, OSError)
# The third part of a body of Celery's message protocol 2: a plain task has none of these.
NO_CANVAS: Final = '{"callbacks":null,"errbacks":null,"chain":null,"chord":null}'


@dataclass(frozen=True, slots=True)
class Outgoing:
    """A message that is to be sent.

    Attributes:
        message: The task's argument as JSON: the job.
        published_at: When, by the ledger's clock: the reconciler tells by it whether
            the message can still be in its queue.
    """

    job_id: str
    message: str
    queue: str
    published_at: float
    task: str = TASK

    @classmethod
    def of(cls, job: Job, *, queue: str, published_at: float) -> Self:
        """Write the message of *job*."""
        return cls(job.job_id, job.model_dump_json(), queue, published_at)

    def body(self) -> str:
        """Write the body: arguments, keyword arguments, canvas."""
        return f"[[{self.message}],{{}},{NO_CANVAS}]"

    def headers(self) -> dict[str, Any]:
        """Write the headers of Celery's message protocol 2, and ours."""
        return {
            "lang": "py",
            "task": self.task,
            "id": self.job_id,
            "root_id": self.job_id,
            "parent_id": None,
            "group": None,
            "retries": 0,
            "eta": None,
            "expires": None,
            "timelimit": [None, None],
            "argsrepr": json.dumps([self.job_id]),  # what monitors show: no labels, no addresses
            "kwargsrepr": "{}",
            "origin": f"{os.getpid()}@{socket.gethostname()}",
            "ignore_result": True,
            JOB_ID_HEADER: self.job_id,
            PUBLISHED_AT_HEADER: self.published_at,
        }


class Lane:
    """One connection to the broker, used by one thread at a time.

    Args:
        timeout_s: Longest that one answer of the broker is waited for.
    """

    def __init__(self, settings: ConnectionSettings, *, timeout_s: float) -> None:
        self._settings = settings
        self._timeout_s = timeout_s
        self._is_amqp = is_amqp(settings.broker_url)
        self._connection = Connection(
            settings.broker_url,
            connect_timeout=timeout_s,
            transport_options=self._transport_options(),
        )
        try:
            self._open()
        except BaseException:
            self.drop()
            raise

    def _transport_options(self) -> dict[str, Any]:
        if self._is_amqp:
            waits = {"read_timeout": self._timeout_s, "write_timeout": self._timeout_s}
            return {"confirm_publish": True, **waits}
        connect_timeout_s = min(SOCKET_OPTIONS["socket_connect_timeout"], self._timeout_s)
        return {
            **SOCKET_OPTIONS,
            "socket_timeout": self._timeout_s,
            "socket_connect_timeout": connect_timeout_s,
        }

    def _open(self) -> None:
        self._connection.ensure_connection(
            max_retries=1, interval_start=0, interval_step=0, timeout=self._timeout_s
        )
        self._channel = self._connection.channel()
        self._producer = Producer(self._channel)
        if self._is_amqp:  # RabbitMQ drops what is sent to a queue that nobody has declared
            for queue in queues(self._settings.namespace, self._settings.broker_url):
                queue(self._channel).declare()

    def send(self, messages: Sequence[Outgoing]) -> None:
        """Send *messages*; on RabbitMQ each is confirmed, on Redis they go in pipelines."""
        if len(messages) == 1:
            self._send_one(messages[0])
            return
        with self._producer.batch():
            for message in messages:
                self._send_one(message)

    def _send_one(self, message: Outgoing) -> None:
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

    def depths(self) -> dict[str, int]:
        """Count the messages that wait in each queue."""
        return {
            name: self._channel.queue_declare(
                queue=queue.name,
                durable=True,
                auto_delete=False,
                arguments=queue.queue_arguments,
            ).message_count
            for name, queue in zip(
                QUEUE_NAMES,
                queues(self._settings.namespace, self._settings.broker_url),
                strict=True,
            )
        }

    def close(self) -> None:
        """Say good-bye to the broker."""
        self._connection.release()

    def drop(self) -> None:
        """Let go of a connection that may be broken, without a word to the broker."""
        self._connection.collect()


class Publisher:
    """Sends jobs to the broker, from any number of threads.

    What cannot be sent in time is not lost: its record is in the ledger, and a worker's
    reconciler sends it.
    """

    def __init__(self, settings: ConnectionSettings, *, timeout_s: float = 3.0) -> None:
        """Connect when there is something to send.

        Args:
            timeout_s: Seconds to go on trying when the broker does not answer.
        """
        self._settings = settings
        self._timeout_s = timeout_s
        self._lock = threading.Lock()
        self._idle: list[Lane] = []
        self._owner = os.getpid()

    def publish(self, job: Job, *, queue: str, published_at: float) -> bool:
        """Send *job*; ``False``, and a warning in the log, if the broker does not take it."""
        return self.publish_many([Outgoing.of(job, queue=queue, published_at=published_at)])

    def publish_many(self, messages: Sequence[Outgoing]) -> bool:
        """Send *messages* in few round trips, in their order.

        After a failure some of them may have been sent, and may be sent again: workers
        run a job once, however often its message comes.
        """
        if not messages:
            return True
        try:
            self._try(lambda lane: lane.send(messages))
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

    def depths(self) -> dict[str, int]:
        """Count the messages that wait in each queue.

        Raises:
            BrokerUnavailableError: The broker gave no answer.
        """
        return self._try(lambda lane: lane.depths())

    def close(self) -> None:
        """Close all connections; the publisher can still be used, and opens new ones."""
        for lane in self._take_idle():
            lane.close()

    def _try(self, do: Callable[[Lane], Answer]) -> Answer:
        deadline = time.monotonic() + self._timeout_s
        while True:
            try:
                with self._lane() as lane:
                    return do(lane)
            except BROKER_ERRORS as error:
                if time.monotonic() + RETRY_EVERY_S >= deadline:
                    raise BrokerUnavailableError(f"{type(error).__name__}: {error}") from error
            time.sleep(RETRY_EVERY_S)

    @contextmanager
    def _lane(self) -> Iterator[Lane]:
        """Lend a connection, and keep it for the next unless it failed."""
        self._forget_if_forked()
        with self._lock:
            lane = self._idle.pop() if self._idle else None
        # Half the time, so that a half-open connection leaves enough to try another.
        lane = lane or Lane(self._settings, timeout_s=self._timeout_s / 2)
        try:
            yield lane
        except BaseException:
            lane.drop()
            for idle in self._take_idle():  # what broke this one has broken them, too
                idle.drop()
            raise
        with self._lock:
            is_kept = len(self._idle) < MAX_IDLE_LANES
            if is_kept:
                self._idle.append(lane)
        if not is_kept:
            lane.close()

    def _take_idle(self) -> list[Lane]:
        with self._lock:
            idle, self._idle = self._idle, []
        return idle

    def _forget_if_forked(self) -> None:
        """Leave the connections of the process that we were forked from to it."""
        if self._owner != os.getpid():
            self._lock = threading.Lock()
            self._idle = []
            self._owner = os.getpid()
