"""Move messages from the tenants' lines back to the lists, for workers that read no lines.

kombu's own transport (LABELYARD_ATOMIC_CLAIM=0, LABELYARD_STOCK_CELERY=1) knows the lists only.
"""

import logging
from typing import Any, Final

from redis import Redis
from redis.exceptions import RedisError

from labelyard.queues import Queue, is_amqp
from labelyard.redis_connections import SOCKET_OPTIONS
from labelyard.tenant_lines.keys import BrokerKeys
from labelyard.tenant_lines.scripts import SCRIPTS
from labelyard_worker.settings import WorkerSettings

log = logging.getLogger(__name__)

AT_ONCE: Final = 500


def merge_lines(settings: WorkerSettings) -> int:
    """Merge all lines into their lists; return the number of messages that were moved."""
    if settings.atomic_claim or is_amqp(settings.broker_url) or ";" in settings.broker_url:
        return 0
    keys, moved = BrokerKeys(settings.namespace), 0
    try:
        with Redis.from_url(settings.broker_url, **SOCKET_OPTIONS) as client:
            for key in (key for queue in Queue for key in keys.lists(queue)):
                moved += _merge(client, keys.sorted, key)
    except (RedisError, OSError) as error:  # the reconciler republishes what stays in a line
        log.warning("lines_left", extra={"fields": {"why": type(error).__name__}})
    if moved:
        log.warning("lines_merged", extra={"fields": {"messages": moved}})
    return moved


def _merge(client: Redis, sorted_key: str, key: str) -> int:
    total = 0
    while True:
        reply: Any = client.eval(SCRIPTS["merge"], 2, sorted_key, key, AT_ONCE)
        moved = int(reply)
        total += moved
        if moved < AT_ONCE:
            return total
