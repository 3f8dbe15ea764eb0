"""Acknowledge all messages that ended since the last turn of the event loop, in one command.

kombu makes a client, a pipeline and a transaction for each message: a third of what a busy
worker of small jobs spends. Here one script removes the records of all ended messages,
through one client that stays open.
"""

from collections import deque
from hashlib import sha1
from typing import Any, Final

from redis import Redis
from redis.exceptions import NoScriptError

# KEYS: unacknowledged messages, their index by time. ARGV: tags.
ACK: Final = """
redis.call('HDEL', KEYS[1], unpack(ARGV))
redis.call('ZREM', KEYS[2], unpack(ARGV))
"""
ACK_SHA: Final = sha1(ACK.encode(), usedforsecurity=False).hexdigest()
TAGS_IN_A_CALL: Final = 1000  # Lua's stack holds some thousands


class Acks:
    """Pending acknowledgements of one channel."""

    def __init__(self, channel: Any) -> None:
        self._channel = channel
        self._tags: deque[str] = deque()
        self._client: Redis | None = None

    def add(self, tag: str) -> None:
        """Note that the message *tag* has ended; callable from any thread."""
        self._tags.append(tag)

    def flush(self) -> None:
        """Send the pending acknowledgements.

        Raises:
            ConnectionError: The broker is away. The messages come again, and end at once.
        """
        while self._tags:
            count = min(len(self._tags), TAGS_IN_A_CALL)
            self._send([self._tags.popleft() for _ in range(count)])

    def _send(self, tags: list[str]) -> None:
        channel = self._channel
        if self._client is None:
            # A bare client: kombu's prefixed one knows one key of a script only.
            self._client = Redis(connection_pool=channel.pool)
        keys = [channel.global_keyprefix + key for key in _keys_of(channel)]
        try:
            self._client.evalsha(ACK_SHA, len(keys), *keys, *tags)
        except NoScriptError:
            self._client.eval(ACK, len(keys), *keys, *tags)


def _keys_of(channel: Any) -> tuple[str, str]:
    return channel.unacked_key, channel.unacked_index_key
