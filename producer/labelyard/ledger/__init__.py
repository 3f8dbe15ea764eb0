"""Records of jobs in Redis: the truth about each job, whatever happens to its message."""

from labelyard.ledger.async_client import AsyncLedger, connect_async
from labelyard.ledger.backlog import Backlog, BacklogKey
from labelyard.ledger.client import Ledger, backoff_s
from labelyard.ledger.commands import Isolation, Pending, Receipt
from labelyard.ledger.connection import connect
from labelyard.ledger.records import (
    FINAL_STATES,
    DeliveryState,
    Glance,
    Record,
    State,
)
from labelyard.ledger.script_answers import Opened, Started

__all__ = [
    "FINAL_STATES",
    "AsyncLedger",
    "Backlog",
    "BacklogKey",
    "DeliveryState",
    "Glance",
    "Isolation",
    "Ledger",
    "Opened",
    "Pending",
    "Receipt",
    "Record",
    "Started",
    "State",
    "backoff_s",
    "connect",
    "connect_async",
]
