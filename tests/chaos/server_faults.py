"""Faults of servers, and of the network before them."""

import os
import random
import signal
import subprocess
import time
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import Final

import redis

from labelyard_worker.local.servers import EmbeddedServer, ServerStartError
from tests.chaos.brokers import close_clients
from tests.chaos.context import FaultContext, Inflict, NoVictimError
from tests.chaos.recovery import Hit
from tests.chaos.slots import Link, resume

FULL_S: Final = 2.0
START_WITHIN_S: Final = 60.0
RETRY_S: Final = 0.1
MIB: Final = 1024 * 1024


def kill_broker(context: FaultContext, rng: random.Random, hit: Hit) -> None:
    """Kill the broker, and start it again on its data."""
    with context.environment.locks["broker"]:
        context.environment.broker.kill()
        time.sleep(rng.uniform(0, 1.0))
        start_broker(context)
    context.hit_all_workers(hit)


def empty_broker(context: FaultContext, rng: random.Random, hit: Hit) -> None:
    """Kill the broker, and start it again without its data."""
    with context.environment.locks["broker"]:
        context.environment.broker.kill()
        context.environment.broker.empty()
        start_broker(context)
    context.hit_all_workers(hit)


def start_broker(context: FaultContext) -> None:
    """Start the broker; without its data if it cannot read them, as an operator would.

    A disk that fills up while Valkey rewrites its file can leave one that it refuses.
    """
    try:
        context.environment.broker.start(within_s=START_WITHIN_S)
    except ServerStartError as error:
        if "Bad file format" not in error.log_tail:
            raise
        context.environment.damaged_files += 1
        context.environment.broker.empty()
        context.environment.broker.start(within_s=START_WITHIN_S)


def kill_ledger(context: FaultContext, rng: random.Random, hit: Hit) -> None:
    """Kill the ledger, and start it again on its append-only file, which syncs always."""
    with context.environment.locks["ledger"]:
        context.environment.ledger.kill()
        context.environment.ledger.start(within_s=START_WITHIN_S)
    context.hit_all_workers(hit)


def half_open(context: FaultContext, rng: random.Random, hit: Hit) -> None:
    """Freeze the open connections to broker and ledger without closing them."""
    slots = rng.choice((context.environment.slots, [rng.choice(context.environment.slots)]))
    for slot in slots:
        slot.links.broker.freeze()
        slot.links.ledger.freeze()
        hit.slots.add(slot.name)


def take_away(name: str, *, seconds: float) -> Inflict:
    """Make the fault of ledger or storage hanging, or refusing the workers, for a while."""

    def inflict(context: FaultContext, rng: random.Random, hit: Hit) -> None:
        server = getattr(context.environment, name)
        with context.environment.locks[name]:
            if rng.random() < 0.5:
                stand_still(server, seconds=seconds)
            else:
                cut_off(
                    [getattr(slot.links, name) for slot in context.environment.slots],
                    seconds=seconds,
                )
        context.hit_all_workers(hit)

    return inflict


def stand_still(server: EmbeddedServer, *, seconds: float) -> None:
    """Stop a server's process for a while."""
    os.kill(server.pid, signal.SIGSTOP)
    time.sleep(seconds)
    resume(server.pid)


def cut_off(links: list[Link], *, seconds: float) -> None:
    """Close connections, and refuse new ones, for a while."""
    for one in links:
        one.sever()
    time.sleep(seconds)
    for one in links:
        one.start()


def kill_clients(context: FaultContext, rng: random.Random, hit: Hit) -> None:
    """Have broker and ledger close every connection."""
    with context.environment.locks["broker"]:
        insist(context.environment.broker.close_clients)
    with context.environment.locks["ledger"]:
        insist(partial(close_clients, context.environment.ledger_admin))
    context.hit_all_workers(hit)


def fill_broker(context: FaultContext, rng: random.Random, hit: Hit) -> None:
    """Have the broker refuse commands that take memory, for two seconds."""
    with context.environment.locks["broker"]:
        insist(context.environment.broker.fill)
        time.sleep(FULL_S)
        insist(context.environment.broker.make_room)
    context.hit_all_workers(hit)


def fill_disk(context: FaultContext, rng: random.Random, hit: Hit) -> None:
    """Leave no room for the broker's append-only file, for two seconds.

    Raises:
        NoVictimError: The broker has no disk of its own.
    """
    disk = context.environment.disk
    if disk is None:
        raise NoVictimError("the broker has no disk of its own")
    filler = disk / "filler"
    with context.environment.locks["broker"]:
        with filler.open("wb") as file, suppress(OSError):
            while True:
                file.write(bytes(MIB))
        time.sleep(FULL_S)
        filler.unlink()
    context.hit_all_workers(hit)


def insist(command: Callable[[], None]) -> None:
    """Send a command until the server takes it: another fault may have cut our connection.

    Raises:
        NoVictimError: It took none for too long.
    """
    until = time.monotonic() + START_WITHIN_S
    while time.monotonic() < until:
        with suppress(redis.RedisError, subprocess.SubprocessError):
            command()
            return
        time.sleep(RETRY_S)
    raise NoVictimError("the server takes no command")
