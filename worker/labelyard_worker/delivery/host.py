"""Limit the calls in flight to one host, behind its circuit breaker."""

import asyncio
import random
import time
from collections.abc import Awaitable, Callable
from typing import Final

from labelyard.ledger_deliveries import Outcome
from labelyard_worker.delivery.breaker import CircuitBreaker

CALLS_PER_HOST: Final = 16
# Deliveries of one host in this worker's memory; the rest waits in the ledger.
HELD_PER_HOST: Final = 64
# Pause of a delivery for which the host has no room here.
CROWDED_PAUSE_S: Final = 10.0


class Host:
    """One receiver or bucket, as seen by this worker."""

    def __init__(self) -> None:
        self.held = 0
        self._slots = asyncio.Semaphore(CALLS_PER_HOST)
        self._breaker = CircuitBreaker()

    @property
    def is_idle(self) -> bool:
        """Whether nothing is known of the host that is worth keeping."""
        return not self.held and not self._breaker.failures

    async def call(
        self,
        send: Callable[[], Awaitable[Outcome]],
        *,
        worker_slots: asyncio.Semaphore,
        hold: Callable[[], Awaitable[bool]],
    ) -> Outcome | None:
        """Make one call when there is room for it.

        Args:
            send: Makes the call.
            worker_slots: Limit of the calls to all hosts.
            hold: Renews the lease on the job after the wait; tells whether it is still ours.

        Returns:
            ``postponed`` without a call while the host is failing or crowded; ``None`` if
            the lease was lost.
        """
        if self.held >= HELD_PER_HOST:
            return Outcome("postponed", "its host is busy", _spread(CROWDED_PAUSE_S))
        self.held += 1
        try:
            if postponed := self._postponed():
                return postponed
            async with self._slots, worker_slots:
                if postponed := self._postponed():
                    return postponed
                if not await hold():
                    return None
                return await self._call_now(send)
        finally:
            self.held -= 1

    async def _call_now(self, send: Callable[[], Awaitable[Outcome]]) -> Outcome:
        if postponed := self._postponed():
            return postponed
        self._breaker.begin()
        try:
            outcome = await send()
        except BaseException:
            self._breaker.give_up_probe()
            raise
        if outcome.is_host_fault:
            self._breaker.fail(now=time.monotonic())
        else:
            self._breaker.succeed()
        return outcome

    def _postponed(self) -> Outcome | None:
        wait_s = self._breaker.wait_s(now=time.monotonic())
        if wait_s <= 0:
            return None
        return Outcome("postponed", "its host is failing", wait_s + _spread(CROWDED_PAUSE_S))


def _spread(pause_s: float) -> float:
    """Return a random pause around *pause_s*, so that postponed deliveries don't come at once."""
    return random.uniform(0.5, 1.5) * pause_s
