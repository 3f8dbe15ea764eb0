"""Backlog of a namespace: open jobs and their images by queue and tenant, and their age."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from labelyard.ledger.redis_errors import ledger_errors_as_ours, read_count
from labelyard.queues import JOB_QUEUES

if TYPE_CHECKING:
    from labelyard.ledger.reading import LedgerReader

# Entries that one call of a correcting script examines: about a millisecond of Redis.
EXAMINED_AT_ONCE: Final = 500
# Oldest entries that every step examines, because the age of a queue is read from the first.
OLDEST_EXAMINED: Final = 20


@dataclass(frozen=True, slots=True)
class BacklogKey:
    """One queue and one tenant."""

    queue: str
    tenant: str


@dataclass(frozen=True, slots=True)
class Backlog:
    """Open jobs: queued, unacknowledged, running or waiting for a retry.

    Attributes:
        images: Number of their images.
        jobs: Number of the jobs.
    """

    images: int
    jobs: int


def read_backlog(ledger: "LedgerReader") -> dict[BacklogKey, Backlog]:
    """Read the backlog of each queue and tenant with open jobs.

    Raises:
        LedgerUnavailableError: Redis gave no answer.
    """
    with ledger_errors_as_ours():
        fields: Any = ledger.client.hgetall(ledger.keys.backlog)
    images, jobs = _of_unit(fields, "images"), _of_unit(fields, "jobs")
    return {
        key: Backlog(images=images.get(key, 0), jobs=jobs.get(key, 0))
        for key in sorted(images | jobs, key=lambda key: (key.queue, key.tenant))
    }


def read_oldest_open(ledger: "LedgerReader") -> dict[str, float]:
    """Read the age of the oldest open job in each queue that has one.

    Returns:
        Seconds since its submission, or since its replay as a dead letter, by queue.

    Raises:
        LedgerUnavailableError: Redis gave no answer.
    """
    with ledger_errors_as_ours(), ledger.client.pipeline(transaction=False) as pipeline:
        for queue in JOB_QUEUES:
            pipeline.zrange(ledger.keys.open_by_age(queue), 0, 0, withscores=True)
        pipeline.time()
        *oldest, (seconds, microseconds) = pipeline.execute()
    now = seconds + microseconds / 1_000_000
    return {
        str(queue): max(0.0, now - entries[0][1])
        for queue, entries in zip(JOB_QUEUES, oldest, strict=True)
        if entries
    }


def _of_unit(fields: Mapping[str, str], unit: str) -> dict[BacklogKey, int]:
    """Read the fields of one unit; one that is not written as ours is passed over."""
    counts = {}
    for field, value in fields.items():
        kind, _, rest = field.partition(":")
        queue, _, tenant = rest.partition(":")
        if kind == unit and (count := read_count(value)) > 0:
            counts[BacklogKey(queue, tenant)] = count
    return counts


class BacklogRecount:
    """BacklogRecount is responsible for a backlog that agrees with the records.

    A record that is lost while its job is open (its TTL ends, somebody deletes it) leaves its
    entry behind, and an earlier version's jobs have none. Each step examines a bounded number of
    entries and goes on where the last one ended, so that all are examined again and again.
    """

    def __init__(self, ledger: "LedgerReader") -> None:
        self._ledger = ledger
        self._offsets: dict[str, int] = {}

    def step(self) -> int:
        """Examine the next entries; returns how many were corrected.

        Raises:
            LedgerUnavailableError: Redis gave no answer.
        """
        corrected = self._add_missed()
        for queue in JOB_QUEUES:
            corrected += self._drop_lost(queue, offset=0, limit=OLDEST_EXAMINED)[1]
            offset = self._offsets.get(queue, 0)
            examined, lost = self._drop_lost(queue, offset=offset, limit=EXAMINED_AT_ONCE)
            is_end = examined < EXAMINED_AT_ONCE
            self._offsets[queue] = 0 if is_end else offset + examined - lost
            corrected += lost
        return corrected

    def _drop_lost(self, queue: str, *, offset: int, limit: int) -> tuple[int, int]:
        command = self._ledger.commands.drop_lost(queue, offset=offset, limit=limit)
        examined, lost = self._ledger.run(command)
        return int(examined), int(lost)

    def _add_missed(self) -> int:
        """Examine jobs in the order in which they were last looked at, and go round."""
        offset = self._offsets.get("", 0)
        command = self._ledger.commands.add_missed(offset=offset, limit=EXAMINED_AT_ONCE)
        examined, added = map(int, self._ledger.run(command))
        self._offsets[""] = 0 if examined < EXAMINED_AT_ONCE else offset + examined
        return added
