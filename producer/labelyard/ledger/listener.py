"""Learn which jobs are final, for all waits of one client, on one connection to the ledger."""

import asyncio
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any, Final

import redis.asyncio
from redis.asyncio.client import PubSub
from redis.exceptions import RedisError

from labelyard.errors import LedgerUnavailableError
from labelyard.ledger.async_client import AsyncLedger
from labelyard.ledger.records import FINAL_STATES
from labelyard.ledger.redis_errors import ledger_errors_as_ours

#: Seconds between two looks at all jobs that are waited for, in case an announcement was lost.
LOOK_EVERY_S: Final = 1.0
#: Jobs that are looked at in a second; with more of them the looks are further apart.
LOOKS_PER_S: Final = 2000
#: Seconds between two attempts to reach a ledger that is away.
RETRY_EVERY_S: Final = 0.2
#: Seconds that a connection without waits is kept for the next one.
IDLE_S: Final = 5.0
#: Channels in one command.
CHANNELS_AT_ONCE: Final = 500
#: Seconds after which a read returns although nothing came, for the health check.
READ_S: Final = 1.0

Notify = Callable[[str], object]


class Wait:
    """Jobs that one caller waits for.

    Attributes:
        job_ids: Jobs that are not final yet, as far as the caller has been notified.
        notify: Called with the id of each job that is final or unknown, in the event loop
            of the listener; possibly more than once.
    """

    def __init__(self, job_ids: Iterable[str], notify: Notify) -> None:
        self.job_ids: frozenset[str] = frozenset(job_ids)
        self.notify = notify


class Listener:
    """Listens for final jobs in one event loop.

    A job is announced on a channel of its own. The listener subscribes when the first wait
    for it begins, looks at the record once the subscription is confirmed, and looks again
    at all records each :data:`LOOK_EVERY_S`.
    """

    def __init__(self, ledger: AsyncLedger, announcements: "redis.asyncio.Redis") -> None:
        """Connect when the first wait begins.

        Args:
            ledger: Ledger of this event loop.
            announcements: Client for the subscriptions. It must not retry: two tasks use its
                connection, and the listener opens another one itself.
        """
        self._ledger = ledger
        self._announcements = announcements
        self._prefix = ledger.keys.done_channel("")
        self._waits: defaultdict[str, list[Wait]] = defaultdict(list)
        self._joined: set[str] = set()
        self._left: set[str] = set()
        self._unseen: set[str] = set()
        self._expiring: dict[str, float] = {}
        self._clock_lead_s = 0.0  # of the ledger's clock over this machine's
        # Ends the tasks of a connection even if the cancellation of one of them is lost.
        self._is_listening = False
        self._has_changed = asyncio.Event()
        self._has_unseen = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    @contextmanager
    def notifying(self, job_ids: Iterable[str], notify: Notify) -> Iterator[None]:
        """Call *notify* for *job_ids* while the block runs; see :class:`Wait`."""
        wait = Wait(job_ids, notify)
        self.add(wait)
        try:
            yield
        finally:
            self.remove(wait)

    def add(self, wait: Wait) -> None:
        """Notify *wait* of its jobs from now on."""
        for job_id in wait.job_ids:
            if job_id in self._waits:
                self._see(job_id)  # it is subscribed to already: look once for the newcomer
            else:
                self._joined.add(job_id)
                self._left.discard(job_id)
            self._waits[job_id].append(wait)
        self._has_changed.set()
        if self._task is None or self._task.done():
            self._task = asyncio.get_running_loop().create_task(self._run())

    def remove(self, wait: Wait) -> None:
        """Stop notifying *wait*."""
        for job_id in wait.job_ids:
            waits = self._waits[job_id]
            if wait in waits:
                waits.remove(wait)
            if not waits:
                del self._waits[job_id]
                self._joined.discard(job_id)
                self._left.add(job_id)
                self._expiring.pop(job_id, None)
        self._has_changed.set()

    async def close(self) -> None:
        """Close the connection, whoever still waits."""
        self._is_listening = False
        if self._task is not None and not self._task.done():
            self._task.cancel()
            await asyncio.wait([self._task])
        await self._announcements.aclose()

    def _see(self, job_id: str) -> None:
        self._unseen.add(job_id)
        self._has_unseen.set()

    async def _run(self) -> None:
        """Listen until nobody has waited for a while, through outages of the ledger."""
        while True:
            try:
                await self._listen()
            except* (RedisError, OSError, UnicodeError, LedgerUnavailableError):
                await asyncio.sleep(RETRY_EVERY_S)
            if not self._waits or _is_cancelled():
                return

    async def _listen(self) -> None:
        """Listen on one connection until it fails or is idle."""
        self._joined, self._left = set(self._waits), set()
        self._has_changed.set()
        self._is_listening = True
        async with self._announcements.pubsub() as pubsub:
            await pubsub.connect()
            async with asyncio.TaskGroup() as tasks:
                inner = [
                    tasks.create_task(work)
                    for work in (self._receive(pubsub), self._look_again_and_again())
                ]
                await self._follow_waits(pubsub)
                self._is_listening = False
                for task in inner:
                    task.cancel()

    async def _follow_waits(self, pubsub: PubSub) -> None:
        """Subscribe to the channels of awaited jobs, and return after a while without waiters."""
        while self._is_listening and not _is_cancelled():
            try:
                async with asyncio.timeout(None if self._waits else IDLE_S):
                    await self._has_changed.wait()
            except TimeoutError:
                return
            self._has_changed.clear()
            joined, self._joined = self._joined, set()
            left, self._left = self._left, set()
            for channels in self._channels(left):
                await pubsub.unsubscribe(*channels)
            for channels in self._channels(joined):
                await pubsub.subscribe(*channels)

    def _channels(self, job_ids: Iterable[str]) -> Iterator[list[str]]:
        channels = [self._prefix + job_id for job_id in job_ids]
        for start in range(0, len(channels), CHANNELS_AT_ONCE):
            yield channels[start : start + CHANNELS_AT_ONCE]

    async def _receive(self, pubsub: PubSub) -> None:
        """Pass on announcements, and note which subscriptions are confirmed."""
        while self._is_listening and not _is_cancelled():
            message: Any = await pubsub.get_message(timeout=READ_S)
            if message is None:
                await asyncio.sleep(0)  # a read without a socket to wait for must not spin
                continue
            job_id = str(message["channel"]).removeprefix(self._prefix)
            if message["type"] == "message":
                self._notify(job_id)
            elif message["type"] == "subscribe" and job_id in self._waits:
                self._see(job_id)

    def _notify(self, job_id: str) -> None:
        for wait in self._waits.get(job_id, ())[:]:
            wait.notify(job_id)

    async def _look_again_and_again(self) -> None:
        """Look at new jobs at once, at expiring jobs in time, and at all jobs now and then."""
        look_at = time.monotonic() + self._pause_s()
        while self._is_listening and not _is_cancelled():
            with suppress(TimeoutError):
                async with asyncio.timeout(self._until(look_at)):
                    await self._has_unseen.wait()
            self._has_unseen.clear()
            unseen, self._unseen = self._unseen, set()
            if time.monotonic() >= look_at:
                await self._look([*self._waits])
                look_at = time.monotonic() + self._pause_s()
            else:
                await self._look([*unseen & self._waits.keys()])
            await self._expire_overdue()

    def _pause_s(self) -> float:
        return max(LOOK_EVERY_S, len(self._waits) / LOOKS_PER_S)

    def _until(self, look_at: float) -> float:
        """Return the seconds until *look_at*, or until the next job expires."""
        until = [look_at - time.monotonic()]
        if self._expiring:
            until.append(min(self._expiring.values()) - time.time() - self._clock_lead_s)
        return max(0.0, min(until))

    async def _look(self, job_ids: Sequence[str]) -> None:
        """Notify of the jobs that are final or gone, and note when others expire."""
        if not job_ids:
            return
        glances = await self._ledger.glance_many(job_ids)
        for job_id, glance in zip(job_ids, glances, strict=True):
            if glance is None or glance.state in FINAL_STATES:
                self._expiring.pop(job_id, None)
                self._notify(job_id)
            elif glance.expires_at is not None and job_id in self._waits:
                self._expiring[job_id] = glance.expires_at

    async def _expire_overdue(self) -> None:
        """Expire overdue jobs by the ledger's clock."""
        if not self._expiring:
            return
        with ledger_errors_as_ours():
            seconds, microseconds = await self._ledger.client.time()
        now = seconds + microseconds / 1e6
        self._clock_lead_s = now - time.time()
        for job_id in [job_id for job_id, at in self._expiring.items() if at <= now]:
            await self._ledger.expire(job_id)
            self._expiring.pop(job_id, None)
            self._notify(job_id)


def _is_cancelled() -> bool:
    """Return whether the running task was cancelled, even if the exception was lost on its way.

    asyncio.wait_for of Python 3.11, which redis-py sends with, returns its result in place of
    the exception if both come at once.
    """
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0
