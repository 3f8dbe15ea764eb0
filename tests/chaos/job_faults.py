"""Faults of jobs and models that harm their worker."""

import random
import time
from contextlib import closing
from typing import Final

import amqp  # type: ignore[import-untyped]
import redis

from tests.chaos.context import FaultContext, Inflict, NoVictimError
from tests.chaos.envelopes import QUEUES, pusher_for
from tests.chaos.recovery import Hit
from tests.support.apps import orders
from tests.support.envelopes import job_of, mutate

OBEYED_WITHIN_S: Final = 30.0
LOOK_EVERY_S: Final = 0.02
MALFORMED_AT_ONCE: Final = 12


def poison(tenant: str) -> Inflict:
    """Make the fault that sends a job that misbehaves whenever it runs."""

    def send(context: FaultContext, rng: random.Random, hit: Hit) -> None:
        hit.job_id = context.traffic.send_poison(tenant)

    return send


def order(flag: str) -> Inflict:
    """Make the fault that orders the next forward pass to fail."""

    def give(context: FaultContext, rng: random.Random, hit: Hit) -> None:
        with context.environment.locks["model"]:
            path = context.environment.flags / flag
            obeyed = context.effects.obeyed[flag]
            before = len(obeyed)
            path.touch()
            until = time.monotonic() + OBEYED_WITHIN_S
            while len(obeyed) == before:
                if time.monotonic() >= until:
                    path.unlink(missing_ok=True)
                    raise NoVictimError(f"no model obeyed {flag}")
                time.sleep(LOOK_EVERY_S)
            slot, pid = obeyed[-1]
            hit.slots.add(slot)
            if flag != orders.RUN_OUT_OF_MEMORY:  # the others end the process
                hit.old_pids.add(pid)

    return give


def push_malformed(context: FaultContext, rng: random.Random, hit: Hit) -> None:
    """Push mutated envelopes past the client, as a foreign producer might.

    That none of them vanishes is checked by ``tests.chaos.envelopes``: here the broker may lose
    them with its data, since they have no record.

    Raises:
        NoVictimError: The broker did not take them.
    """
    try:
        with closing(pusher_for(context.environment)) as pusher:
            for _ in range(MALFORMED_AT_ONCE):
                queue = rng.choice(QUEUES)
                pusher.push(
                    mutate(job_of(context.environment.uris[0]), rng, queue=queue), queue, rng
                )
    except (redis.RedisError, amqp.AMQPError, OSError) as error:
        raise NoVictimError(f"the broker did not take them: {error!r}") from error
    context.hit_all_workers(hit)
