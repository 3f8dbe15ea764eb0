"""Calls of the ledger's scripts, built from named fields; both clients and maintenance share them.

Each method of :class:`Commands` writes the KEYS and the ARGV of one script, in the order that the
head of its file in ``scripts/`` lists them.
"""

import hashlib
import json
import uuid
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal, NamedTuple

from labelyard.ledger.keys import LedgerKeys
from labelyard.ledger.limits import DELIVER_FOR_S, FIRST_PAUSE_S, LONGEST_PAUSE_S
from labelyard.ledger.records import State
from labelyard.ledger.scripts import ScriptName
from labelyard.messages import Job, LabelSet
from labelyard.outgoing import Outgoing
from labelyard.queues import Queue
from labelyard.settings import ConnectionSettings

# Neighbours of a job in its worker: any jobs; no other suspect; no other suspect, although it
# was to run alone; none.
Isolation = Literal["none", "suspect", "crowded", "alone"]
OpenedFrom = Literal["submit", "adopt", "run"]
# The value in a record for each isolation; the first and the last are those of version 0.1.
MODES: Final[Mapping[Isolation, str]] = {"none": "0", "suspect": "s", "crowded": "b", "alone": "1"}
# What does not change the job that an id stands for: a later submit under the same idempotency
# key has another expiry and another trace, and its alias may name another version by then.
NOT_IN_DIGEST: Final = {"job_id", "expires_at", "trace"}
NAMED_BY_ALIAS: Final = {"label_set", "canary"}


class Command(NamedTuple):
    """One call of a script."""

    script: ScriptName
    keys: list[str]
    args: list[str]


@dataclass(frozen=True, slots=True)
class Receipt:
    """One receipt of a job's message, as far as the ledger must know it.

    Attributes:
        call: Drawn for each receipt, so that a repeated call begins one attempt.
        tenant: The tenant that the message names; empty skips the comparison of contents.
        digest: Digest of the job that the message holds.
        published_at: When the message was published, by its own word; 0 if it has none.
        returned_by: ``worker:start`` of the attempt that a worker gave back with this
            message while the ledger was away; empty if none did.
    """

    call: str = ""
    tenant: str = ""
    digest: str = ""
    published_at: float = 0.0
    returned_by: str = ""


@dataclass(frozen=True, slots=True)
class Pending:
    """The deliveries that a result needs as it is written.

    Attributes:
        names: ``object``, ``webhook``.
        deliverer: Worker that makes them now; empty leaves them to whichever has room.
        due_in_s: Seconds after which that worker may take them.
    """

    names: tuple[str, ...] = ()
    deliverer: str = ""
    due_in_s: float = 0.0


@dataclass(frozen=True, slots=True)
class RetrySchedule:
    """Times of the attempts at a delivery that fails.

    Attributes:
        first_pause_s: Seconds before the second attempt; each further pause is twice as long.
        longest_pause_s: Longest pause, ``Retry-After`` of the receiver included.
        deliver_for_s: Seconds after which the delivery is given up and becomes a dead letter.
    """

    first_pause_s: float = FIRST_PAUSE_S
    longest_pause_s: float = LONGEST_PAUSE_S
    deliver_for_s: float = DELIVER_FOR_S


NO_RECEIPT: Final = Receipt()
#: Task and inherited deaths of a job that is not a part of a run.
NO_PART: Final = ("", 0, 0)
NOTHING_PENDING: Final = Pending()


def job_digest(job: Job) -> str:
    """Compute the digest of the work in *job*, equal for the same job of any client.

    Defaults are left out, so that a version with a new optional field computes the same.
    """
    left_out = NOT_IN_DIGEST if job.alias is None else NOT_IN_DIGEST | NAMED_BY_ALIAS
    content = job.model_dump_json(exclude=left_out, exclude_defaults=True, warnings="error")
    return hashlib.sha256(content.encode()).hexdigest()


def new_call_id() -> str:
    """Draw the id by which a script recognises that it is repeated."""
    return uuid.uuid4().hex


class Commands:
    """Builds the call of each script for one namespace.

    Attributes:
        keys: The namespace's keys.
        max_queued_images: Most open images with which a job is accepted; 0 = any number.
        open_ttl_s: Life of open records, and of what belongs to no single job.
    """

    def __init__(self, settings: ConnectionSettings) -> None:
        self.keys: LedgerKeys = LedgerKeys(settings.namespace)
        self.max_queued_images: int = settings.max_queued_images
        self.open_ttl_s: int = settings.open_ttl_s
        self._of_every_record = (
            str(settings.open_ttl_s),
            str(settings.result_ttl_s),
            settings.namespace,
        )

    def of_record(self, script: ScriptName, job_id: str, *values: object) -> Command:
        """Put a script's own arguments behind those that all scripts of records share."""
        args = [job_id, *self._of_every_record, *map(str, values)]
        return Command(script, self.keys.of_record(job_id), args)

    def open(
        self, job: Job, *, queue: Queue, is_limited: bool, source: OpenedFrom = "submit"
    ) -> Command:
        """Open the record of *job*."""
        return self.of_record(
            "open",
            job.job_id,
            job.model_dump_json(warnings="error"),
            job.count_images(),
            job.tenant,
            queue,
            job.expires_at.timestamp() if job.expires_at else "",
            job.deliver.stream or "",
            self.max_queued_images if is_limited else 0,
            new_call_id(),
            job_digest(job),
            source,
            job.count_titles()
            + (job.label_set.count_prompts() if isinstance(job.label_set, LabelSet) else 0),
            *NO_PART,
        )

    def open_part(
        self,
        part: Outgoing,
        *,
        digest: str,
        source: OpenedFrom = "run",
        deaths: int = 0,
        deaths_suspect: int = 0,
    ) -> Command:
        """Open the record of a part of a run: a plan, a shard or its end.

        Args:
            deaths: Deaths that it inherits from the shard that was split.
            deaths_suspect: Those of them as a suspect.
        """
        return self.of_record(
            "open",
            part.job_id,
            part.message,
            part.images,
            part.tenant,
            part.queue,
            "",
            "",
            self.max_queued_images if source == "run" else 0,
            new_call_id(),
            digest,
            source,
            0,
            part.task,
            deaths,
            deaths_suspect,
        )

    def open_refused(self, job_id: str, message: str) -> Command:
        """Open a record for a *message* that is not a job."""
        blank = (0, "default", Queue.INTERACTIVE, "", "", 0)
        return self.of_record(
            "open", job_id, message, *blank, new_call_id(), "", "adopt", 0, *NO_PART
        )

    def start(
        self,
        job_id: str,
        *,
        worker: str,
        isolation: Isolation,
        quarantine_after: int,
        dead_after: int,
        receipt: Receipt,
    ) -> Command:
        """Start an attempt."""
        return self.of_record(
            "start",
            job_id,
            worker,
            MODES[isolation],
            quarantine_after,
            dead_after,
            receipt.call,
            receipt.tenant,
            receipt.digest,
            receipt.published_at,
            receipt.returned_by,
        )

    def release(
        self,
        job_id: str,
        *,
        worker: str,
        delay_s: float | None,
        death: str = "",
        start: int | None = None,
        is_counted: bool = True,
    ) -> Command:
        """End an attempt without a result.

        Args:
            delay_s: Seconds until the job is sent again; ``None`` if the broker holds its message.
            start: Number of the attempt; ``None`` if it is not known.
        """
        return self.of_record(
            "release",
            job_id,
            worker,
            "" if delay_s is None else delay_s,
            death,
            "" if start is None else start,
            "" if is_counted else "uncounted",
        )

    def finish(
        self,
        job_id: str,
        *,
        state: State,
        result: str = "",
        pending: Pending = NOTHING_PENDING,
        is_dead: bool = False,
    ) -> Command:
        """Make a job final."""
        return self.of_record(
            "finish",
            job_id,
            state,
            result,
            ",".join(pending.names),
            int(is_dead),
            new_call_id(),
            pending.deliverer,
            pending.due_in_s,
        )

    def replay(self, job_id: str) -> Command:
        """Open a dead letter again."""
        return self.of_record("replay", job_id, new_call_id())

    def purge(self, job_id: str) -> Command:
        """Drop a dead letter."""
        return self.of_record("purge", job_id, new_call_id())

    def forget(self, job_id: str) -> Command:
        """Erase a job."""
        return self.of_record("forget", job_id)

    def sent(self, job_id: str, *, due: float | None) -> Command:
        """Note that a job's message was sent."""
        return self.of_record("sent", job_id, "" if due is None else f"{due:.6f}")

    def crowd(self, job_id: str, *, worker: str) -> Command:
        """Note that other jobs start beside a suspect."""
        return self.of_record("crowd", job_id, worker)

    def take_deliveries(self, *, worker: str, lease_s: float, limit: int) -> Command:
        """Take a lease on jobs with due deliveries."""
        return self.of_record("take_deliveries", "", worker, lease_s, limit)

    def hold_deliveries(self, job_id: str, *, worker: str, lease_s: float) -> Command:
        """Renew the lease on a job's pending deliveries."""
        return self.of_record("hold_deliveries", job_id, worker, lease_s)

    def settle_deliveries(
        self,
        job_id: str,
        *,
        worker: str,
        outcomes: Mapping[str, Any],
        jitter: float,
        schedule: RetrySchedule,
    ) -> Command:
        """Write how attempts at a job's deliveries ended."""
        return self.of_record(
            "settle_deliveries",
            job_id,
            worker,
            json.dumps(outcomes),
            jitter,
            schedule.first_pause_s,
            schedule.longest_pause_s,
            schedule.deliver_for_s,
        )

    def replay_deliveries(self, job_id: str, *, kind: str, states: Iterable[str]) -> Command:
        """Have a delivery tried now."""
        return self.of_record("replay_deliveries", job_id, kind, ",".join(states), new_call_id())

    def purge_deliveries(self, job_id: str) -> Command:
        """Drop a job from the dead deliveries."""
        return self.of_record("purge_deliveries", job_id, new_call_id())

    def lead(self, *, worker: str, ttl_s: float) -> Command:
        """Become the leader, or stay it."""
        return Command("lead", [self.keys.leader], [worker, str(int(ttl_s * 1000))])

    def take_due(self, *, lease_s: float, limit: int) -> Command:
        """Take a lease on due jobs."""
        return Command("take_due", [self.keys.due], [str(lease_s), str(limit)])

    def list_overdue(self, *, limit: int) -> Command:
        """List the open jobs whose ``expires_at`` has passed."""
        return Command("list_overdue", [self.keys.expiring], [str(limit)])

    def take_passed(
        self,
        passed: Mapping[str, float],
        *,
        only: str,
        earliest: str,
        latest: float,
        offset: int,
        limit: int,
    ) -> Command:
        """Find the jobs whose message must have left its queue; see ``take_passed.lua``."""
        args = [
            self.keys.namespace,
            str(latest),
            str(limit),
            str(offset),
            only,
            str(self.open_ttl_s),
            earliest,
            *(str(part) for queue in passed.items() for part in queue),
        ]
        return Command("take_passed", [self.keys.open], args)

    def drop_lost(self, queue: str, *, offset: int, limit: int) -> Command:
        """Take entries of a queue out of the backlog that stand for no open job."""
        keys = [self.keys.open_by_age(queue), self.keys.backlog, self.keys.open_images]
        args = [self.keys.namespace, str(self.open_ttl_s), str(queue), str(offset), str(limit)]
        return Command("drop_lost", keys, args)

    def add_missed(self, *, offset: int, limit: int) -> Command:
        """Count open jobs that the backlog lacks."""
        args = [self.keys.namespace, str(self.open_ttl_s), str(offset), str(limit)]
        return Command("add_missed", [self.keys.open, self.keys.backlog], args)

    def add_set_aside(
        self, entry_id: str, entry: str, *, max_entries: int, max_total_bytes: int
    ) -> Command:
        """Keep a message that no worker could run."""
        args = [entry_id, entry, str(self.open_ttl_s), str(max_entries), str(max_total_bytes)]
        return Command("add_set_aside", self._of_set_aside(), args)

    def remove_set_aside(self, entry_id: str) -> Command:
        """Drop a message that was set aside."""
        return Command("remove_set_aside", self._of_set_aside(), [entry_id])

    def _of_set_aside(self) -> list[str]:
        return [self.keys.set_aside, self.keys.set_aside_index, self.keys.set_aside_figures]
