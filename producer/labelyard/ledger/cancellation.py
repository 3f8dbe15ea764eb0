"""Cancel all open jobs of a tenant or a queue, from the backlog's entries by age."""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Final, cast

from labelyard.ledger.redis_errors import ledger_errors_as_ours
from labelyard.queues import JOB_QUEUES, Queue

if TYPE_CHECKING:
    from labelyard.ledger.client import Ledger

# Entries that are read at once: they bound the memory of a call.
READ_AT_ONCE: Final = 1000


def cancel_open(ledger: "Ledger", *, tenant: str | None, queue: Queue | None) -> int:
    """Cancel the open jobs that were submitted before this call; returns their number.

    A job that a worker moves to the quarantine queue meanwhile is found there: that queue is
    walked last.

    Args:
        tenant: Only this tenant's jobs; ``None`` means all.
        queue: Only jobs of this queue; ``None`` means all.

    Raises:
        LedgerUnavailableError: Redis gave no answer; some jobs may have been cancelled.
    """
    cancelled = 0
    until = _read_time(ledger)
    for name in JOB_QUEUES if queue is None else (queue,):
        for page in _pages(ledger, name, until=until):
            ids = [job_id for of, job_id in page if tenant in (None, of)]
            cancelled += sum(ledger.cancel_many(ids))
    return cancelled


def _read_time(ledger: "Ledger") -> float:
    with ledger_errors_as_ours():
        seconds, microseconds = ledger.client.time()
    return float(seconds + microseconds / 1_000_000)


def _pages(ledger: "Ledger", queue: Queue, *, until: float) -> Iterator[list[tuple[str, str]]]:
    """Yield tenant and id of the open jobs of a queue, oldest first, in bounded pages.

    Jobs leave the set while it is walked, so a page begins at the last one's highest time.
    """
    lowest, seen = "-inf", frozenset[str]()
    while True:
        with ledger_errors_as_ours():
            page: Any = ledger.client.zrange(
                ledger.keys.open_by_age(queue),
                cast("Any", lowest),
                cast("Any", repr(until)),
                byscore=True,
                offset=0,
                num=READ_AT_ONCE + len(seen),
                withscores=True,
            )
        members = [member for member, _ in page if member not in seen]
        if not members:
            return
        last = page[-1][1]
        seen = frozenset(member for member, at in page if at == last)
        lowest = repr(last)
        yield [(parts[0], parts[2]) for parts in (member.split(":", 2) for member in members)]
