"""Faults of workers: killed, drained, stopped for a while, clocks that jump."""

import os
import random
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Final

from tests.chaos.context import FaultContext, NoVictimError
from tests.chaos.recovery import Hit
from tests.chaos.slots import Slot, resume, wait_for_end
from tests.support.apps.clock import set_jump

LOOK_EVERY_S: Final = 0.005
VICTIM_WITHIN_S: Final = 60.0
LAST_ONE_SHARE: Final = 0.2
# Above the drain, and what Celery needs to close on a busy machine.
END_WITHIN_S: Final = 40.0
LONGEST_JUMP_S: Final = 3600.0
JUMPED_S: Final = 6.0


@contextmanager
def busy_slot(context: FaultContext, rng: random.Random) -> Iterator[Slot]:
    """Pick a worker that has jobs in work, and keep other faults off it.

    Mostly one of several, so that a run does not become a row of starts; sometimes the last.

    Raises:
        NoVictimError: None came to work in time.
    """
    needed = 1 if rng.random() < LAST_ONE_SHARE else min(2, len(context.environment.slots))
    until = time.monotonic() + VICTIM_WITHIN_S
    while time.monotonic() < until:
        for slot in rng.sample(context.environment.slots, len(context.environment.slots)):
            if not slot.turn.acquire(blocking=False):
                continue
            try:
                is_busy = slot.pid and context.effects.in_work(slot.pid)
                if is_busy and sum(bool(one.pid) for one in context.environment.slots) >= needed:
                    yield slot
                    return
            finally:
                slot.turn.release()
        time.sleep(LOOK_EVERY_S)
    raise NoVictimError("no worker had a job in work")


def sigkill_busy_worker(context: FaultContext, rng: random.Random, hit: Hit) -> None:
    """Kill a worker with jobs in work, as the kernel does when memory runs out."""
    with busy_slot(context, rng) as slot:
        end_process(slot, signal.SIGKILL, hit, within_s=END_WITHIN_S)


def sigterm_under_load(context: FaultContext, rng: random.Random, hit: Hit) -> None:
    """Send SIGTERM to a worker with running jobs; it must end with exit code 0."""
    with busy_slot(context, rng) as slot:
        end_process(slot, signal.SIGTERM, hit, within_s=END_WITHIN_S)


def sigterm_then_sigkill(context: FaultContext, rng: random.Random, hit: Hit) -> None:
    """Send SIGTERM to a worker, and kill it while it drains."""
    with busy_slot(context, rng) as slot:
        pid = end_process(slot, signal.SIGTERM, hit, within_s=rng.uniform(0.05, 1.5))
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
        wait_for_end(slot, pid, within_s=END_WITHIN_S)


def end_process(slot: Slot, number: signal.Signals, hit: Hit, *, within_s: float) -> int:
    """End a worker by a signal, wait for its exit, and expect its successor to work.

    Raises:
        NoVictimError: The process had ended by itself.
    """
    pid = slot.signal(number, cause=hit.name)
    if not pid:
        raise NoVictimError("the worker had just ended")
    hit.slots.add(slot.name)
    hit.old_pids.add(pid)
    wait_for_end(slot, pid, within_s=within_s)
    return pid


def jump_clock(context: FaultContext, rng: random.Random, hit: Hit) -> None:
    """Put a worker's clock forward or back, and right again after a while."""
    with busy_slot(context, rng) as slot:
        hit.slots.add(slot.name)
        set_jump(slot.clock_path, rng.choice((-1, 1)) * rng.uniform(1, LONGEST_JUMP_S))
        time.sleep(JUMPED_S)
        set_jump(slot.clock_path, 0.0)


def sigstop_worker(context: FaultContext, rng: random.Random, hit: Hit) -> None:
    """Stop a worker for a while, shorter or longer than the visibility timeout."""
    with busy_slot(context, rng) as slot:
        pid = slot.signal(signal.SIGSTOP)
        hit.slots.add(slot.name)
        time.sleep(rng.choice((2.0, 5.0, 10.0)))
        resume(pid)
