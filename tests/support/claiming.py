"""Claims of messages by the script itself, without a consumer around it."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import redis

from labelyard.tenant_lines.keys import PRIORITY_SUFFIXES, BrokerKeys
from labelyard.tenant_lines.scripts import SCRIPTS

NAMESPACE = "test"
KEYS = BrokerKeys(NAMESPACE)


@dataclass
class Claims:
    """Producer and worker of one broker, reduced to their commands.

    Attributes:
        held: Messages that were claimed and not given back, by delivery tag.
    """

    client: redis.Redis
    queues: tuple[str, ...] = ("bulk",)
    held: dict[str, bytes] = field(default_factory=dict)
    tags: int = 0
    namespace: str = NAMESPACE

    @property
    def keys(self) -> BrokerKeys:
        """Keys of the namespace."""
        return BrokerKeys(self.namespace)

    def push(self, number: int, *, queue: str = "bulk", **headers: Any) -> None:
        """Push a message with these headers, as any producer does."""
        self.client.lpush(self.keys.queue(queue), message_of(number, **headers))

    def push_many(self, *shares: Mapping[str, Any], queue: str = "bulk", first: int = 0) -> None:
        """Push a message with each of these headers, in one pipeline."""
        with self.client.pipeline(transaction=False) as pipeline:
            for number, headers in enumerate(shares, start=first):
                pipeline.lpush(self.keys.queue(queue), message_of(number, **headers))
            pipeline.execute()

    def claim(self, *, is_full: bool = False) -> dict[str, Any] | None:
        """Claim the next message, but no shard if the worker is full; ``None`` if there is none."""
        self.tags += 1
        tag = f"tag-{self.tags}"
        lists = [self.keys.queue(queue) for queue in self.queues]
        keys = [
            self.keys.unacked,
            self.keys.unacked_index,
            self.keys.weights,
            self.keys.sorted,
            *lists,
        ]
        names = [json.dumps(name) for name in lists]
        left = ("1" if is_full else "0") * len(lists)
        reply: Any = self.client.eval(
            SCRIPTS["claim"], len(keys), *keys, tag, 1, left, *names, *PRIORITY_SUFFIXES
        )
        if reply is None:
            return None
        self.held[tag] = reply[1]
        claimed: dict[str, Any] = json.loads(reply[1])
        return claimed | {"tag": tag, "queue": self.queues[reply[0]]}

    def drain(self) -> list[dict[str, Any]]:
        """Claim until nothing is left."""
        claimed = []
        while (one := self.claim()) is not None:
            claimed.append(one)
        return claimed

    def restore(self, tag: str, *, queue: str = "bulk", is_next: bool = True) -> None:
        """Return a claimed message to its queue."""
        keys = (
            self.keys.unacked,
            self.keys.unacked_index,
            self.keys.sorted,
            self.keys.queue(queue),
        )
        push = "RPUSH" if is_next else "LPUSH"
        self.client.eval(SCRIPTS["restore"], 4, *keys, tag, self.held.pop(tag), push)

    def acknowledge_all(self) -> None:
        """Drop the records of all claimed messages."""
        self.client.delete(self.keys.unacked, self.keys.unacked_index)
        self.held.clear()


def message_of(number: int, **headers: Any) -> bytes:
    """Write a message; *headers* are those of the tenant and its images, among others."""
    named = {f"labelyard_{name}": value for name, value in headers.items()}
    message = {"n": number, "body": "x" * 200, "headers": named, "properties": {}}
    return json.dumps(message).encode()


def tenant_of(claimed: Mapping[str, Any]) -> Any:
    """Return the tenant of a claimed message."""
    return claimed["headers"].get("labelyard_tenant")
