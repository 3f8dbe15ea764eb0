"""Move messages from the two lists of earlier versions to the messages set aside now."""

import logging
from typing import Any, Final

from redis import Redis
from redis.exceptions import RedisError

from labelyard.errors import LabelyardError
from labelyard.ledger import Ledger
from labelyard.ledger.set_aside import MAX_KEPT_BYTES, SetAside, SetAsideMessage
from labelyard.queues import is_amqp
from labelyard.redis_connections import SOCKET_OPTIONS
from labelyard_worker.broker.malformed import MALFORMED_KEY
from labelyard_worker.settings import WorkerSettings

log = logging.getLogger(__name__)

REFUSED_REASON: Final = "it was no job and had no id (refused by an earlier version)"
MALFORMED_REASON: Final = "it could not be read (set aside by an earlier version)"


def move_old_lists(settings: WorkerSettings, ledger: Ledger) -> int:
    """Move the messages of both lists; return their number. A server that is away is skipped."""
    kept = SetAside(ledger.client, settings)
    try:
        moved = _move(ledger.client, ledger.keys.refused, kept, REFUSED_REASON)
        # The other list had no namespace: the first worker that finds it keeps its messages.
        if not is_amqp(settings.broker_url) and ";" not in settings.broker_url:
            with Redis.from_url(settings.broker_url, **SOCKET_OPTIONS) as broker:
                moved += _move(broker, MALFORMED_KEY, kept, MALFORMED_REASON)
    except (RedisError, OSError, ValueError, LabelyardError) as error:
        log.warning("old_lists_left", extra={"fields": {"why": type(error).__name__}})
        return 0
    if moved:
        log.warning("old_lists_moved", extra={"fields": {"messages": moved}})
    return moved


def _move(client: Any, key: str, kept: SetAside, reason: str) -> int:
    """Move a list, oldest first; each message is kept before it leaves the list."""
    moved = 0
    while item := client.lindex(key, -1):
        raw = item.encode() if isinstance(item, str) else item
        kept.add(SetAsideMessage(reason, "", len(raw), raw[:MAX_KEPT_BYTES]))
        client.lrem(key, -1, item)
        moved += 1
    return moved
