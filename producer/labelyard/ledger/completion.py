"""Wait until jobs are final: notified by the listener, and looking at the deadline."""

import asyncio
import queue
import time
from collections.abc import AsyncGenerator, Iterable, Iterator, Sequence
from typing import Final

from labelyard.errors import JobNotFoundError, LedgerUnavailableError, ResultTimeoutError
from labelyard.ledger.async_client import AsyncLedger
from labelyard.ledger.client import Ledger
from labelyard.ledger.listener import Listener
from labelyard.ledger.listener_thread import ListenerThread
from labelyard.ledger.records import FINAL_STATES, Glance, Record

#: Seconds without a notification after which a wait looks by itself. The listener looks at
#: all jobs each second; this is for a listener that has failed.
LOOK_ALONE_S: Final = 15.0
RETRY_EVERY_S: Final = 0.2
#: Notifications that are taken together, so that their records are read in one round trip.
NOTIFICATIONS_AT_ONCE: Final = 500


class Watch:
    """Which jobs are waited for, and until when.

    Attributes:
        open_ids: Jobs that were not final when last read, in the order given.
    """

    def __init__(self, job_ids: Iterable[str], *, timeout_s: float) -> None:
        self.open_ids: dict[str, None] = dict.fromkeys(job_ids)
        self._timeout_s = timeout_s
        self._deadline = time.monotonic() + timeout_s

    def wait_s(self) -> float:
        """Return the seconds until the deadline, or until it is time to look alone."""
        return max(0.0, min(self._deadline - time.monotonic(), LOOK_ALONE_S))

    def sort(
        self, job_ids: Sequence[str], glances: Sequence[Glance | None]
    ) -> tuple[list[str], list[str]]:
        """Pick the jobs that are final, and those whose time seems to be over.

        Raises:
            JobNotFoundError: The ledger does not know one of them.
        """
        clock = time.time()
        final, overdue = [], []
        for job_id, glance in zip(job_ids, glances, strict=True):
            if glance is None:
                raise JobNotFoundError(job_id)
            if glance.state in FINAL_STATES:
                final.append(job_id)
            elif glance.expires_at is not None and glance.expires_at <= clock:
                overdue.append(job_id)
        return final, overdue

    def settle(self, job_ids: Sequence[str], records: Sequence[Record | None]) -> list[Record]:
        """Stop waiting for the jobs whose records are final, and return these.

        Raises:
            JobNotFoundError: The ledger does not know one of them.
        """
        settled = []
        for job_id, record in zip(job_ids, records, strict=True):
            if record is None:
                raise JobNotFoundError(job_id)
            if record.is_final:
                del self.open_ids[job_id]
                settled.append(record)
        return settled

    def still_open(self, job_ids: Iterable[str]) -> list[str]:
        """Return those of *job_ids* that are waited for, once each."""
        return [job_id for job_id in dict.fromkeys(job_ids) if job_id in self.open_ids]

    def check_deadline(self) -> None:
        """Raise if the deadline has passed.

        Raises:
            ResultTimeoutError: Names the first job that is not final.
        """
        if self.open_ids and time.monotonic() >= self._deadline:
            first, others = next(iter(self.open_ids)), len(self.open_ids) - 1
            rest = f" and {others} more" if others else ""
            raise ResultTimeoutError(f"{first}{rest}: not final after {self._timeout_s:g} s")

    def pause_s(self, trouble: LedgerUnavailableError) -> float:
        """Return the seconds to wait before the ledger is polled again.

        Raises:
            LedgerUnavailableError: The time is over: *trouble* itself.
        """
        left_s = self._deadline - time.monotonic()
        if left_s <= 0:
            raise trouble
        return min(RETRY_EVERY_S, left_s)


def final_records(
    ledger: Ledger, listener: ListenerThread, job_ids: Iterable[str], *, timeout_s: float
) -> Iterator[Record]:
    """Yield the records of *job_ids* as they become final.

    An outage of the ledger is waited out; one at the very start is not.

    Raises:
        ResultTimeoutError: Some were not final after *timeout_s*.
        JobNotFoundError: The ledger does not know one of them.
        LedgerUnavailableError: The ledger gave no answer at the start, or at the end.
    """
    watch = Watch(job_ids, timeout_s=timeout_s)
    yield from look(ledger, watch)
    watch.check_deadline()
    if not watch.open_ids:
        return
    notified: queue.SimpleQueue[str] = queue.SimpleQueue()
    with listener.notifying(watch.open_ids, notified.put):
        while watch.open_ids:
            taken = take(notified, wait_s=watch.wait_s())
            called = watch.still_open(taken)
            if called or not taken:
                yield from read_through_outages(ledger, watch, called)
            if not taken:
                watch.check_deadline()


def take(notified: "queue.SimpleQueue[str]", *, wait_s: float) -> list[str]:
    """Wait for a notification, and take those that came with it; none when the time is over."""
    taken: list[str] = []
    try:
        taken.append(notified.get(timeout=wait_s))
        while len(taken) < NOTIFICATIONS_AT_ONCE:
            taken.append(notified.get_nowait())
    except queue.Empty:
        pass
    return taken


def look(ledger: Ledger, watch: Watch) -> list[Record]:
    """Look at all open jobs, and return what is final."""
    job_ids = list(watch.open_ids)
    final, overdue = watch.sort(job_ids, ledger.glance_many(job_ids))
    final += [job_id for job_id in overdue if ledger.expire(job_id)]
    return watch.settle(final, ledger.read_many(final)) if final else []


def read_through_outages(ledger: Ledger, watch: Watch, called: Sequence[str]) -> list[Record]:
    """Read the jobs in *called*, or look at all if there are none; retry until the deadline."""
    while True:
        try:
            return watch.settle(called, ledger.read_many(called)) if called else look(ledger, watch)
        except LedgerUnavailableError as error:
            time.sleep(watch.pause_s(error))


async def final_records_async(
    ledger: AsyncLedger, listener: Listener, job_ids: Iterable[str], *, timeout_s: float
) -> AsyncGenerator[Record, None]:
    """Yield the records of *job_ids* as they become final; see :func:`final_records`."""
    watch = Watch(job_ids, timeout_s=timeout_s)
    for record in await look_async(ledger, watch):
        yield record
    watch.check_deadline()
    if not watch.open_ids:
        return
    notified: asyncio.Queue[str] = asyncio.Queue()
    with listener.notifying(watch.open_ids, notified.put_nowait):
        while watch.open_ids:
            taken = await take_async(notified, wait_s=watch.wait_s())
            called = watch.still_open(taken)
            if called or not taken:
                for record in await read_through_outages_async(ledger, watch, called):
                    yield record
            if not taken:
                watch.check_deadline()


async def take_async(notified: "asyncio.Queue[str]", *, wait_s: float) -> list[str]:
    """Wait for a notification, and take those that came with it; none when the time is over."""
    taken: list[str] = []
    try:
        async with asyncio.timeout(wait_s):
            taken.append(await notified.get())
    except TimeoutError:
        return taken
    while len(taken) < NOTIFICATIONS_AT_ONCE and not notified.empty():
        taken.append(notified.get_nowait())
    return taken


async def look_async(ledger: AsyncLedger, watch: Watch) -> list[Record]:
    """Look at all open jobs, and return what is final."""
    job_ids = list(watch.open_ids)
    final, overdue = watch.sort(job_ids, await ledger.glance_many(job_ids))
    final += [job_id for job_id in overdue if await ledger.expire(job_id)]
    return watch.settle(final, await ledger.read_many(final)) if final else []


async def read_through_outages_async(
    ledger: AsyncLedger, watch: Watch, called: Sequence[str]
) -> list[Record]:
    """Read the jobs in *called*, or look at all if there are none; retry until the deadline."""
    while True:
        try:
            if not called:
                return await look_async(ledger, watch)
            return watch.settle(called, await ledger.read_many(called))
        except LedgerUnavailableError as error:
            await asyncio.sleep(watch.pause_s(error))
