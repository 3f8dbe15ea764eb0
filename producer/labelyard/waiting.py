"""Wait until jobs are final: called by the ledger, and looking again in case a call is lost."""

import asyncio
import time
from collections.abc import AsyncIterator, Iterable, Iterator, Sequence
from contextlib import aclosing, closing
from typing import Any, Final

from redis.asyncio.client import PubSub as AsyncPubSub
from redis.client import PubSub

from labelyard.errors import JobNotFoundError, LedgerUnavailableError, ResultTimeoutError
from labelyard.ledger import FINAL_STATES, AsyncLedger, Glance, Ledger, Record
from labelyard.ledger_calls import ledger_errors_as_ours

LOOK_EVERY_S: Final = 1.0
LOOKS_PER_S: Final = 2000
RETRY_EVERY_S: Final = 0.2
CHANNELS_AT_ONCE: Final = 500
CALLS_AT_ONCE: Final = 200


class Watch:
    """Which jobs are waited for, until when, and when to look at them next.

    Attributes:
        open_ids: Jobs that were not final when last looked at, in the order given.
    """

    def __init__(self, job_ids: Iterable[str], *, timeout_s: float) -> None:
        self.open_ids: dict[str, None] = dict.fromkeys(job_ids)
        self._expiring: dict[str, float] = {}
        self._timeout_s = timeout_s
        self._deadline = time.monotonic() + timeout_s
        self._look_at = 0.0

    def look_soon(self) -> None:
        """Have all jobs looked at next: what was called out before we listened is lost."""
        self._look_at = 0.0

    def wait_s(self) -> float:
        """Give the seconds until it is time to look; 0 if it is time."""
        return max(0.0, min(self._look_at, self._deadline) - time.monotonic())

    def note_look(self) -> None:
        """Set the time of the next look: when a job expires, or soon; with many jobs later."""
        clock = time.time()
        expiries = [at - clock for at in self._expiring.values() if at > clock]
        pause_s = max(LOOK_EVERY_S, len(self.open_ids) / LOOKS_PER_S)
        self._look_at = time.monotonic() + min(pause_s, *expiries, pause_s)

    def to_read(self, job_ids: Sequence[str], glances: Sequence[Glance | None]) -> list[str]:
        """Pick the jobs that are final.

        Raises:
            JobNotFoundError: The ledger does not know one of them.
        """
        final = []
        for job_id, glance in zip(job_ids, glances, strict=True):
            if glance is None:
                raise JobNotFoundError(job_id)
            if glance.state in FINAL_STATES:
                final.append(job_id)
            elif glance.expires_at is not None:
                self._expiring[job_id] = glance.expires_at
        return final

    def overdue(self) -> list[str]:
        """List the jobs that expired while they were waited for."""
        clock = time.time()
        return [job_id for job_id, at in self._expiring.items() if at <= clock]

    def settle(self, job_ids: Sequence[str], records: Sequence[Record | None]) -> list[Record]:
        """Stop waiting for the jobs whose records are final, and return these."""
        settled = []
        for job_id, record in zip(job_ids, records, strict=True):
            if record is None:
                raise JobNotFoundError(job_id)
            if record.is_final:
                del self.open_ids[job_id]
                self._expiring.pop(job_id, None)
                settled.append(record)
        return settled

    def check_deadline(self) -> None:
        """Give up when the time is over.

        Raises:
            ResultTimeoutError: Names the first job that is not final.
        """
        if self.open_ids and time.monotonic() >= self._deadline:
            first, others = next(iter(self.open_ids)), len(self.open_ids) - 1
            rest = f" and {others} more" if others else ""
            raise ResultTimeoutError(f"{first}{rest}: not final after {self._timeout_s:g} s")

    def pause_s(self, trouble: LedgerUnavailableError) -> float:
        """Give the seconds to wait before the ledger is asked again.

        Raises:
            LedgerUnavailableError: The time is over: *trouble* itself.
        """
        left_s = self._deadline - time.monotonic()
        if left_s <= 0:
            raise trouble
        return min(RETRY_EVERY_S, left_s)


def final_records(ledger: Ledger, job_ids: Iterable[str], *, timeout_s: float) -> Iterator[Record]:
    """Yield the records of *job_ids* as they become final.

    An outage of the ledger is waited out; one at the very start is not.

    Raises:
        ResultTimeoutError: Some were not final after *timeout_s*.
        JobNotFoundError: The ledger does not know one of them.
        LedgerUnavailableError: The ledger gave no answer at the start, or at the end.
    """
    watch = Watch(job_ids, timeout_s=timeout_s)
    yield from look(ledger, watch, list(watch.open_ids))
    watch.check_deadline()
    while watch.open_ids:
        try:
            with closing(open_pubsub(ledger)) as pubsub:
                yield from listen(ledger, watch, pubsub)
        except LedgerUnavailableError as error:
            time.sleep(watch.pause_s(error))


def open_pubsub(ledger: Ledger) -> PubSub:
    """Make a listener on a connection of its own."""
    return ledger.client.pubsub(ignore_subscribe_messages=True)  # type: ignore[no-untyped-call,no-any-return]


def look(ledger: Ledger, watch: Watch, job_ids: Sequence[str]) -> list[Record]:
    """Look at *job_ids*, expire what is overdue, and return what is final."""
    final = watch.to_read(job_ids, ledger.glance_many(job_ids))
    for job_id in watch.overdue():
        if job_id not in final and ledger.expire(job_id):
            final.append(job_id)
    return watch.settle(final, ledger.read_many(final))


def listen(ledger: Ledger, watch: Watch, pubsub: PubSub) -> Iterator[Record]:
    """Yield records as the ledger calls out their jobs."""
    channels = [ledger.calls.done_channel(job_id) for job_id in watch.open_ids]
    with ledger_errors_as_ours():
        for start in range(0, len(channels), CHANNELS_AT_ONCE):
            pubsub.subscribe(*channels[start : start + CHANNELS_AT_ONCE])
    watch.look_soon()
    prefix = ledger.calls.done_channel("")
    while watch.open_ids:
        if wait_s := watch.wait_s():
            called = called_ids(next_calls(pubsub, wait_s=wait_s), watch, prefix=prefix)
            yield from watch.settle(called, ledger.read_many(called))
        else:
            yield from look(ledger, watch, list(watch.open_ids))
            watch.note_look()
            watch.check_deadline()


def next_calls(pubsub: PubSub, *, wait_s: float) -> list[Any]:
    """Wait for a call, and take those that came with it."""
    with ledger_errors_as_ours():
        calls = [pubsub.get_message(timeout=wait_s)]
        while calls[-1] is not None and len(calls) < CALLS_AT_ONCE:
            calls.append(pubsub.get_message(timeout=0))
    return calls


def called_ids(calls: Iterable[Any], watch: Watch, *, prefix: str) -> list[str]:
    """Read which jobs, of those still waited for, were called."""
    called = (call["channel"].removeprefix(prefix) for call in calls if call is not None)
    return [job_id for job_id in dict.fromkeys(called) if job_id in watch.open_ids]


async def final_records_async(
    ledger: AsyncLedger, job_ids: Iterable[str], *, timeout_s: float
) -> AsyncIterator[Record]:
    """Yield the records of *job_ids* as they become final; see :func:`final_records`."""
    watch = Watch(job_ids, timeout_s=timeout_s)
    for record in await look_async(ledger, watch, list(watch.open_ids)):
        yield record
    watch.check_deadline()
    while watch.open_ids:
        try:
            async with aclosing(ledger.client.pubsub(ignore_subscribe_messages=True)) as pubsub:
                async for record in listen_async(ledger, watch, pubsub):
                    yield record
        except LedgerUnavailableError as error:
            await asyncio.sleep(watch.pause_s(error))


async def look_async(ledger: AsyncLedger, watch: Watch, job_ids: Sequence[str]) -> list[Record]:
    """Look at *job_ids*, expire what is overdue, and return what is final."""
    final = watch.to_read(job_ids, await ledger.glance_many(job_ids))
    for job_id in watch.overdue():
        if job_id not in final and await ledger.expire(job_id):
            final.append(job_id)
    return watch.settle(final, await ledger.read_many(final))


async def listen_async(
    ledger: AsyncLedger, watch: Watch, pubsub: AsyncPubSub
) -> AsyncIterator[Record]:
    """Yield records as the ledger calls out their jobs."""
    channels = [ledger.calls.done_channel(job_id) for job_id in watch.open_ids]
    with ledger_errors_as_ours():
        for start in range(0, len(channels), CHANNELS_AT_ONCE):
            await pubsub.subscribe(*channels[start : start + CHANNELS_AT_ONCE])
    watch.look_soon()
    prefix = ledger.calls.done_channel("")
    while watch.open_ids:
        if wait_s := watch.wait_s():
            calls = await next_calls_async(pubsub, wait_s=wait_s)
            called = called_ids(calls, watch, prefix=prefix)
            records = watch.settle(called, await ledger.read_many(called))
        else:
            records = await look_async(ledger, watch, list(watch.open_ids))
            watch.note_look()
        for record in records:
            yield record
        if not wait_s:
            watch.check_deadline()


async def next_calls_async(pubsub: AsyncPubSub, *, wait_s: float) -> list[Any]:
    """Wait for a call, and take those that came with it."""
    with ledger_errors_as_ours():
        calls = [await pubsub.get_message(timeout=wait_s)]
        while calls[-1] is not None and len(calls) < CALLS_AT_ONCE:
            calls.append(await pubsub.get_message(timeout=0))
    return calls
