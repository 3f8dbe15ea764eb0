"""Publish messages to Redis in kombu's format, which Celery workers read."""

import json
import uuid
from base64 import b64encode
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Final

import redis
from redis.backoff import NoBackoff
from redis.exceptions import RedisError
from redis.retry import Retry

from labelyard.message_search import MessageSearch, search_redis
from labelyard.outgoing import PERSISTENT, Outgoing
from labelyard.queues import Queue, queue_name
from labelyard.redis_connections import connection_options, socket_timeouts
from labelyard.settings import ConnectionSettings
from labelyard.tenant_lines.counts import count_messages
from labelyard.tenant_lines.keys import TURNS, BrokerKeys
from labelyard.tenant_lines.scripts import SCRIPTS

#: Exceptions that mean that Redis did not take a message or gave no answer.
REDIS_ERRORS: Final = (RedisError, OSError, UnicodeError)
#: Messages in one pipeline: it is built in memory before it is sent.
PIPELINE_SIZE: Final = 1000


def envelope(message: Outgoing, *, key: str) -> str:
    """Write *message* as kombu's Redis transport does.

    Args:
        key: Name of the queue, which is the key of its list.

    Source:
        kombu 5.7, ``transport/virtual/base.py`` (Channel.prepare_message and
        ``_inplace_augment_message``); docs/message-contract.md shows the result.
    """
    return json.dumps(
        {
            "body": b64encode(message.body().encode()).decode("ascii"),
            "content-encoding": "utf-8",
            "content-type": "application/json",
            "headers": message.headers(),
            "properties": {
                "correlation_id": message.job_id,
                "message_id": message.job_id,
                "delivery_mode": PERSISTENT,
                "delivery_info": {"exchange": "", "routing_key": key},
                "priority": 0,
                "body_encoding": "base64",
                "delivery_tag": str(uuid.uuid4()),
            },
        }
    )


class RedisBrokerConnection:
    """One connection to a Redis broker, used by one thread at a time.

    Args:
        timeout_s: Seconds that one answer of the broker is waited for.
    """

    def __init__(self, settings: ConnectionSettings, *, timeout_s: float) -> None:
        self._namespace = settings.namespace
        self._keys = BrokerKeys(settings.namespace)
        self._client = redis.Redis(
            connection_pool=redis.ConnectionPool(
                **connection_options(
                    settings.broker_url,
                    setting="LABELYARD_BROKER_URL",
                    retry=Retry(NoBackoff(), 0),
                    **socket_timeouts(timeout_s),
                ),
                max_connections=1,
            )
        )

    def send(self, messages: Sequence[Outgoing]) -> None:
        """Publish *messages* in their order, in pipelines."""
        if len(messages) == 1:
            self._client.lpush(*self._entry(messages[0]))
            return
        for start in range(0, len(messages), PIPELINE_SIZE):
            with self._client.pipeline(transaction=False) as pipeline:
                for message in messages[start : start + PIPELINE_SIZE]:
                    pipeline.lpush(*self._entry(message))
                pipeline.execute()

    def send_raw(self, raw: bytes, *, queue: str) -> None:
        """Push a message as it lay in a list before."""
        self._client.lpush(queue, raw)

    def write_weights(self, weights: Mapping[str, float]) -> None:
        """Replace the weights of all tenants; the next claim goes by them."""
        turns = [key + TURNS for queue in Queue for key in self._keys.lists(queue)]
        keys = [self._keys.weights, *turns]
        pairs = [part for tenant, weight in weights.items() for part in (tenant, repr(weight))]
        self._client.eval(SCRIPTS["write_weights"], len(keys), *keys, *pairs)

    def _entry(self, message: Outgoing) -> tuple[str, str]:
        key = queue_name(self._namespace, message.queue)
        return key, envelope(message, key=key)

    def depths(self) -> dict[str, int]:
        """Count the waiting messages of each queue, of all priorities and tenants."""
        return count_messages(self._client, self._keys)

    def find(self, job_id: str, *, queue: str, tenant: str) -> MessageSearch:
        """Search the unacknowledged messages and all lists, those of *queue* and *tenant* first."""
        lists = {
            key: one.value
            for one in sorted(Queue, key=lambda one: one != queue)
            for key in self._keys.lists(one)
        }
        search = search_redis(
            self._client, job_id, unacked=self._keys.unacked, lists=lists, tenant=tenant
        )
        return replace(search, lengths=self.depths())

    def close(self) -> None:
        """Close the connection."""
        self._client.connection_pool.disconnect()

    def drop(self) -> None:
        """Close a connection that may be broken."""
        self.close()
