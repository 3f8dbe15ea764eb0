"""The newest events, read without a group."""

from typing import Any, Final

from labelyard.events.models import EventContent, event_fields
from labelyard.ledger.connection import LedgerConnection
from labelyard.ledger.redis_errors import ledger_errors_as_ours

MOST: Final = 10_000


def read_recent(ledger: LedgerConnection, *, limit: int) -> list[EventContent]:
    """Read at most *limit* events, and never more than 10,000, the newest last."""
    with ledger_errors_as_ours():
        entries: Any = ledger.client.xrevrange(ledger.keys.events, count=min(limit, MOST))
    return [
        EventContent(**event_fields(event_id, fields, deliveries=0))
        for event_id, fields in reversed(entries)
    ]
