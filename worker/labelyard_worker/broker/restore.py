"""Return an unacknowledged message to its queue on Redis, even if it is not an envelope of Celery.

kombu parses the record with its own JSON types, drops a message that it cannot rewrite, and sends
it wherever the message says. Here the message's bytes go back to the queue that it was claimed
from, with the mark of a redelivery if they are an envelope that can hold one.
"""

import json
import logging
import re
from typing import Any, Final

from redis import Redis

from labelyard.tenant_lines.scripts import SCRIPTS

log = logging.getLogger(__name__)

# A record is [message,exchange,routing key]: ours without spaces, kombu's with them.
_TAIL: Final = re.compile(rb',\s*"(?:[^"\\]|\\.)*",\s*("(?:[^"\\]|\\.)*")\]\s*\Z')
_TAIL_BYTES: Final = 2048
_HIGHEST_PRIORITY: Final = 9


def restore(channel: Any, tag: str, *, is_next: bool) -> None:
    """Move the message *tag* back to the queue that it came from.

    Args:
        channel: Channel of our transport.
        is_next: Whether it is claimed before all queued messages; of its tenant, if the queue is
            sorted by tenant.
    """
    prefix = channel.global_keyprefix
    unacked = prefix + channel.unacked_key
    with Redis(connection_pool=channel.pool) as client:
        record: Any = client.hget(unacked, tag)
        message, queue, priority = read_record(record) if record else (b"", "", 0)
        known = {*channel.queue_order, *channel.consumed_queues}
        if known and queue not in known:
            queue = next(iter(channel.queue_order or sorted(known)))
        to_list = prefix + channel._q_for_pri(queue, priority)  # noqa: SLF001 - kombu's name
        index = prefix + channel.unacked_index_key
        push = "RPUSH" if is_next else "LPUSH"
        keys = (unacked, index, prefix + channel.sorted_key, to_list)
        client.eval(SCRIPTS["restore"], len(keys), *keys, tag, message, push)


def read_record(record: bytes) -> tuple[bytes, str, int]:
    """Read message, queue and priority out of a record of an unacknowledged message."""
    tail = _TAIL.search(record, max(0, len(record) - _TAIL_BYTES))
    if tail is None:
        log.warning("unacked_unreadable")
        return record, "", 0
    message = record[1 : tail.start()]
    try:
        queue = str(json.loads(tail[1]))
    except ValueError:
        queue = ""
    marked, priority = mark_redelivered(message)
    return marked, queue, priority


def mark_redelivered(message: bytes) -> tuple[bytes, int]:
    """Mark an envelope as redelivered, and read its priority; other bytes stay as they are."""
    try:
        envelope = json.loads(message)
        properties = envelope["properties"]
        for part in (envelope.get("headers"), properties.get("delivery_info")):
            if isinstance(part, dict):
                part["redelivered"] = True
        marked = json.dumps(envelope).encode()
    except (ValueError, TypeError, LookupError, AttributeError, RecursionError):
        return message, 0
    priority = properties.get("priority")
    return marked, min(max(priority, 0), _HIGHEST_PRIORITY) if isinstance(priority, int) else 0
