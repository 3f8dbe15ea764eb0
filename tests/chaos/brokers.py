"""Brokers that can carry a run, with the operations that faults and checks need."""

import json
import shutil
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, Final

import amqp  # type: ignore[import-untyped]
import redis

from labelyard.ledger.keys import LedgerKeys
from labelyard.publisher import Publisher
from labelyard.queues import Queue, queue_name
from labelyard.settings import ClientSettings
from labelyard.tenant_lines.counts import count_messages
from labelyard.tenant_lines.keys import TURNS, BrokerKeys
from labelyard_worker.local.servers import HOST, ValkeyServer
from tests.support.rabbitmq import RabbitServer

NAMESPACE: Final = "labelyard"
KEYS: Final = LedgerKeys(NAMESPACE)
REDIS_OPTIONS: Final = {"auto-aof-rewrite-min-size": "16mb"}
BROKER_KEYS: Final = BrokerKeys(NAMESPACE)
UNACKED_KEY: Final = BROKER_KEYS.unacked
# RabbitMQ's own value for how much of the machine's memory it may use.
USUAL_MEMORY_SHARE: Final = "0.4"


def plain_redis(server: ValkeyServer) -> "redis.Redis":
    """Connect to a server with short timeouts."""
    return redis.Redis.from_url(
        server.url, decode_responses=True, socket_timeout=5, socket_connect_timeout=2
    )


def close_clients(admin: "redis.Redis") -> None:
    """Have a Redis close every connection but this."""
    for kind in ("normal", "pubsub"):
        admin.client_kill_filter(_type=kind)


class RedisBroker(ValkeyServer):
    """Redis, with kombu's lists and hashes on it.

    Attributes:
        app: What workers run.
        publish_timeout_s: How long a producer waits for it.
        impossible: Faults that it cannot have, and why.
    """

    app: ClassVar[str] = "tests.support.apps.instant"
    publish_timeout_s: ClassVar[float] = 0.5
    impossible: ClassVar[Mapping[str, str]] = {}

    def __init__(self, data_dir: Path) -> None:
        super().__init__(data_dir, options=REDIS_OPTIONS)

    @cached_property
    def admin(self) -> "redis.Redis":
        """Client that passes no link."""
        return plain_redis(self)

    def disconnect(self) -> None:
        """Close the connections that the calls below opened."""
        self.admin.close()

    def url_at(self, port: int) -> str:
        """Return the address of the same server behind another port, a proxy's."""
        return f"redis://{HOST}:{port}/0"

    def empty(self) -> None:
        """Remove the append-only file of the stopped server."""
        shutil.rmtree(self.data_dir / "appendonlydir")

    def depths(self) -> dict[str, int]:
        """Count the queued messages of each queue."""
        return count_messages(self.admin, BROKER_KEYS)

    def unacked(self) -> int:
        """Count the unacknowledged messages."""
        count: Any = self.admin.hlen(UNACKED_KEY)
        return int(count)

    def job_ids(self) -> set[str]:
        """List the jobs whose messages are queued or unacknowledged."""
        waiting: list[Any] = []
        for key in (key for queue in Queue for key in BROKER_KEYS.lists(queue)):
            lines: Any = self.admin.zrange(f"{key}{TURNS}", 0, -1)  # the empty name has no line
            for one in (key, *(f"{key}:line:{line}" for line in lines)):
                waiting += self.admin.lrange(one, 0, -1)
        unacked: Any = self.admin.hvals(UNACKED_KEY)
        ids = {json.loads(message)["headers"]["id"] for message in waiting}
        return ids | {json.loads(entry)[0]["headers"]["id"] for entry in unacked}

    def close_clients(self) -> None:
        """Close every connection."""
        close_clients(self.admin)

    def fill(self) -> None:
        """Refuse commands that take memory, until ``make_room``."""
        self.admin.config_set("maxmemory", "1mb")

    def make_room(self) -> None:
        """Accept every command again."""
        self.admin.config_set("maxmemory", "0")


class RabbitBroker(RabbitServer):
    """RabbitMQ, with quorum queues; methods are documented in ``RedisBroker``."""

    app: ClassVar[str] = "tests.support.apps.rabbit_app"
    publish_timeout_s: ClassVar[float] = 1.0
    impossible: ClassVar[Mapping[str, str]] = {
        "broker_disk_full": "RabbitMQ blocks producers before its disk is full, as broker_full does"
    }

    @cached_property
    def _publisher(self) -> Publisher:
        return Publisher(ClientSettings(broker_url=self.url, namespace=NAMESPACE))

    def disconnect(self) -> None:
        """Close the connections that the calls below opened."""
        self._publisher.close()

    def depths(self) -> dict[str, int]:
        """Count the queued messages of each queue."""
        return self._publisher.depths()

    def unacked(self) -> int:
        """Count the unacknowledged messages, as of the last five seconds."""
        listed = self.control("--formatter", "json", "list_queues", "messages_unacknowledged")
        return sum(queue["messages_unacknowledged"] for queue in json.loads(listed))

    def job_ids(self) -> set[str]:
        """List the jobs whose messages are queued; RabbitMQ does not list unacknowledged ones."""
        ids = set()
        # What is got here, and not acknowledged, goes back when the connection ends.
        with amqp.Connection(host=f"{HOST}:{self.port}") as connection:
            channel = connection.channel()
            for queue in Queue:
                while message := channel.basic_get(queue_name(NAMESPACE, queue)):
                    ids.add(message.properties["correlation_id"])
        return ids

    def close_clients(self) -> None:
        """Close every connection."""
        self.control("close_all_connections", "chaos")

    def fill(self) -> None:
        """Raise the memory alarm, which blocks producers, until ``make_room``."""
        self.control("set_vm_memory_high_watermark", "0")

    def make_room(self) -> None:
        """Accept every command again."""
        self.control("set_vm_memory_high_watermark", USUAL_MEMORY_SHARE)


Broker = RedisBroker | RabbitBroker
BROKERS: Final[dict[str, type[Broker]]] = {"redis": RedisBroker, "rabbitmq": RabbitBroker}
