"""Faults of servers that drip, and of replies that are lost on their way."""

import random
import time
from typing import Final

from tests.chaos.context import FaultContext
from tests.chaos.recovery import Hit

# A small picture of these runs has about 1,500 bytes: several seconds for each.
STORAGE_BYTES_PER_S: Final = 100.0
DRIPS_S: Final = (4.0, 8.0)
LOST_REPLIES: Final = 5
LOSE_EVERY_S: Final = 0.3


def drip_storage(context: FaultContext, rng: random.Random, hit: Hit) -> None:
    """Have the storage answer every worker a few bytes at a time."""
    links = [slot.links.storage for slot in context.environment.slots]
    with context.environment.locks["storage"]:
        for link in links:
            link.drip(STORAGE_BYTES_PER_S)
        time.sleep(rng.uniform(*DRIPS_S))
        for link in links:
            link.drip(0)
    context.hit_all_workers(hit)


def drip_webhooks(context: FaultContext, rng: random.Random, hit: Hit) -> None:
    """Have the receiver of webhooks answer a byte at a time, or never."""
    with context.environment.locks["receiver"]:
        context.environment.receiver.drip(rng.choice((0.0, 1.0)))
        time.sleep(rng.uniform(*DRIPS_S))
        context.environment.receiver.recover()
    context.hit_all_workers(hit)


def lose_replies(context: FaultContext, rng: random.Random, hit: Hit) -> None:
    """Close connections to broker or ledger after a request has arrived, before its reply."""
    slot = rng.choice(context.environment.slots)
    for _ in range(LOST_REPLIES):
        link = rng.choice((slot.links.ledger, slot.links.ledger, slot.links.broker))
        link.lose_next_reply()
        time.sleep(LOSE_EVERY_S)
    hit.slots.add(slot.name)
