"""Limit the calls in flight to one host, behind its circuit breaker."""

import asyncio
import random
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final

from labelyard.ledger.deliveries import DeliveryOutcome
from labelyard_worker.jobs.delivery.breaker import FIRST_PAUSE_S, CircuitBreaker, CircuitState

CALLS_PER_HOST: Final = 16
# Deliveries of one host in this worker's memory; the rest waits in the ledger.
HELD_PER_HOST: Final = 64
# Shortest pause of a delivery for which the host has no room here.
CROWDED_PAUSE_S: Final = 10.0
# Postponed deliveries that the fleet reads again in a second: each read costs a worker
# about a millisecond, and is useless while the host fails.
BUSY_READS_PER_S: Final = 100.0
FAILING_READS_PER_S: Final = 25.0


@dataclass
class PendingJobs:
    """Number of jobs with pending deliveries in the whole fleet, as last read."""

    jobs: int = 0


class Host:
    """One receiver or bucket: its free slots and its circuit breaker, in this worker."""

    def __init__(self, backlog: PendingJobs, *, pause_s: float = FIRST_PAUSE_S) -> None:
        """Make a host without failures.

        Args:
            pause_s: Seconds for which it is left alone at first once it fails.
        """
        self.held = 0
        self._backlog = backlog
        self._last_fault = ""
        self._slots = asyncio.Semaphore(CALLS_PER_HOST)
        self._breaker = CircuitBreaker(pause_s)

    @property
    def is_idle(self) -> bool:
        """Return whether the host has no calls and no failures, so that it can be dropped."""
        return not self.held and not self._breaker.failures

    @property
    def is_failing(self) -> bool:
        """Return whether the circuit breaker is open."""
        return not self._breaker.is_closed

    @property
    def circuit(self) -> CircuitState:
        """State of the host's circuit."""
        return self._breaker.state

    async def call(
        self,
        send: Callable[[], Awaitable[DeliveryOutcome]],
        *,
        worker_slots: asyncio.Semaphore,
        hold: Callable[[], Awaitable[bool]],
    ) -> DeliveryOutcome | None:
        """Make one call when a slot is free.

        Args:
            send: Makes the call.
            worker_slots: Limit of the calls to all hosts.
            hold: Renews the lease on the job after the wait; returns whether this worker still
                holds it.

        Returns:
            ``postponed`` without a call while the host is failing or crowded; ``None`` if
            the lease was lost.
        """
        if postponed := self.postponement():
            return postponed
        self.held += 1
        try:
            async with self._slots, worker_slots:
                if postponed := self._postponed():
                    return postponed
                if not await hold():
                    return None
                return await self._call_now(send)
        finally:
            self.held -= 1

    def postponement(self) -> DeliveryOutcome | None:
        """Return the reason and the seconds for another delivery to wait, if any; thread-safe."""
        if self.held >= HELD_PER_HOST:
            return self._postpone("its host is busy", CROWDED_PAUSE_S, per_s=BUSY_READS_PER_S)
        return self._postponed()

    async def _call_now(self, send: Callable[[], Awaitable[DeliveryOutcome]]) -> DeliveryOutcome:
        if postponed := self._postponed():
            return postponed
        self._breaker.begin()
        try:
            outcome = await send()
        except BaseException:
            self._breaker.give_up_probe()
            raise
        if outcome.is_host_fault:
            self._last_fault = outcome.reason
            self._breaker.fail(now=time.monotonic())
        else:
            self._breaker.succeed()
        return outcome

    def _postponed(self) -> DeliveryOutcome | None:
        wait_s = self._breaker.wait_s(now=time.monotonic())
        if wait_s <= 0:
            return None
        pause_s = max(wait_s, self._breaker.pause_s)
        reason = f"its host is failing: {self._last_fault}"
        return self._postpone(reason, pause_s, per_s=FAILING_READS_PER_S)

    def _postpone(self, reason: str, pause_s: float, *, per_s: float) -> DeliveryOutcome:
        """Postpone at random, over a longer time the more deliveries there are."""
        least_s = max(pause_s, self._backlog.jobs / per_s)
        return DeliveryOutcome("postponed", reason, random.uniform(0.75, 1.5) * least_s)
