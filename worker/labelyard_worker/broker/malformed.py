"""List of undeliverable messages, for consumers without an admission gate.

Workers of labelyard have a gate, and keep such messages in the ledger; versions before the gate
kept them here.
"""

from typing import Any

from redis import Redis

MALFORMED_KEY = "labelyard.malformed"
MALFORMED_MAX = 10_000
MALFORMED_TTL_MS = 7 * 86_400_000


def keep_malformed(channel: Any, raw: bytes, delivery_tag: str) -> None:
    """Move an undeliverable claimed message to the malformed ones, in one step."""
    prefix = channel.global_keyprefix
    key = prefix + MALFORMED_KEY
    # A bare client: kombu's prefixed one leaves the key of LTRIM alone.
    with Redis(connection_pool=channel.pool).pipeline() as pipe:
        pipe.lpush(key, raw)
        pipe.ltrim(key, 0, MALFORMED_MAX - 1)
        pipe.pexpire(key, MALFORMED_TTL_MS)
        pipe.hdel(prefix + channel.unacked_key, delivery_tag)
        pipe.zrem(prefix + channel.unacked_index_key, delivery_tag)
        pipe.execute()
