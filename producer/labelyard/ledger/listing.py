"""List jobs by the time of their submission, newest first, from the ledger's index."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final, Self, cast, get_args

from labelyard.arguments import job_queue, text
from labelyard.errors import InvalidMessageError
from labelyard.ledger.records import FINAL_STATES, State
from labelyard.ledger.redis_errors import ledger_errors_as_ours
from labelyard.queues import Queue

if TYPE_CHECKING:
    from labelyard.ledger.reading import LedgerReader

#: Entries of the index that one listing examines; with few matches among many jobs it ends there.
MAX_EXAMINED: Final = 20_000
EXAMINED_AT_ONCE: Final = 500
_FIELDS: Final = (
    "state",
    "tenant",
    "queue",
    "images",
    "submitted_at",
    "finished_at",
    "attempts",
    "deaths",
    "runner",
    "expires_at",
)


@dataclass(frozen=True, slots=True)
class JobSummary:
    """A job's record without its message and its result. Times are those of the ledger's clock.

    Attributes:
        attempts: How often a worker began it.
        deaths: How often its worker died, hung or broke while it ran.
        runner: Worker that runs it; empty if none does.
    """

    job_id: str
    state: State
    tenant: str
    queue: str
    images: int
    submitted_at: float
    finished_at: float | None
    attempts: int
    deaths: int
    runner: str
    expires_at: float | None

    @property
    def is_final(self) -> bool:
        """Return whether the state can change no more."""
        return self.state in FINAL_STATES


@dataclass(frozen=True, slots=True)
class JobFilter:
    """Conditions that listed jobs meet; ``None`` leaves one out.

    Attributes:
        state: State of the job.
        tenant: On whose behalf it was submitted.
        queue: Queue that its message is in, or was.
        since: It was submitted at this time or later.
    """

    state: State | None = None
    tenant: str | None = None
    queue: Queue | None = None
    since: datetime | None = None

    @classmethod
    def checked(
        cls, *, state: Any = None, tenant: Any = None, queue: Any = None, since: Any = None
    ) -> Self:
        """Make a filter of a caller's arguments.

        Raises:
            InvalidMessageError: One has a value that no job can have.
        """
        if state is not None and (not isinstance(state, str) or state not in get_args(State)):
            raise InvalidMessageError(f"state: write one of {', '.join(get_args(State))}")
        if since is not None and not (isinstance(since, datetime) and since.tzinfo is not None):
            raise InvalidMessageError("since: write a datetime with an offset, or leave it out")
        return cls(
            state=cast("State | None", state),
            tenant=None if tenant is None else text(tenant, name="tenant"),
            queue=None if queue is None else job_queue(queue),
            since=since,
        )

    def matches(self, job: JobSummary) -> bool:
        """Return whether a job meets the conditions but for the time."""
        wanted = (self.state, self.tenant, self.queue)
        found = (job.state, job.tenant, job.queue)
        return all(one in (None, other) for one, other in zip(wanted, found, strict=True))


@dataclass(frozen=True, slots=True)
class JobList:
    """Jobs that were found, newest first.

    Attributes:
        jobs: At most as many as were asked for.
        examined: How many entries of the index were examined.
        is_cut: Whether the search ended at :data:`MAX_EXAMINED` entries: older jobs may match.
    """

    jobs: tuple[JobSummary, ...]
    examined: int
    is_cut: bool


def list_jobs(ledger: "LedgerReader", wanted: JobFilter, *, limit: int) -> JobList:
    """List up to *limit* jobs, newest first, and drop index entries whose record is gone.

    Raises:
        LedgerUnavailableError: Redis gave no answer.
    """
    found: list[JobSummary] = []
    examined = 0
    for ids in _pages(ledger, since=wanted.since):
        for job in _summaries(ledger, ids):
            examined += 1
            if job is not None and wanted.matches(job):
                found.append(job)
                if len(found) == limit:
                    return JobList(tuple(found), examined=examined, is_cut=False)
        if examined >= MAX_EXAMINED:
            return JobList(tuple(found), examined=examined, is_cut=True)
    return JobList(tuple(found), examined=examined, is_cut=False)


def _pages(ledger: "LedgerReader", *, since: datetime | None) -> Iterator[list[str]]:
    """Yield ids from the index, newest first.

    A page begins at the last one's lowest time and leaves out what came before, so that jobs
    which are submitted or dropped meanwhile move no entry past the search.
    """
    highest, seen = "+inf", frozenset[str]()
    lowest = "-inf" if since is None else repr(since.timestamp())
    while True:
        with ledger_errors_as_ours():
            page: Any = ledger.client.zrange(
                ledger.keys.jobs,
                cast("Any", highest),
                cast("Any", lowest),
                desc=True,
                byscore=True,
                offset=0,
                num=EXAMINED_AT_ONCE + len(seen),
                withscores=True,
            )
        ids = [job_id for job_id, _ in page if job_id not in seen]
        if not ids:
            return
        last = page[-1][1]
        seen = frozenset(job_id for job_id, at in page if at == last)
        highest = repr(last)
        yield ids


def _summaries(ledger: "LedgerReader", job_ids: list[str]) -> list[JobSummary | None]:
    """Read records; entries of the index without one are dropped from it."""
    with ledger_errors_as_ours(), ledger.client.pipeline(transaction=False) as pipeline:
        for job_id in job_ids:
            pipeline.hmget(ledger.keys.job(job_id), _FIELDS)
        answers: list[Any] = pipeline.execute()
        gone = [job_id for job_id, fields in zip(job_ids, answers, strict=True) if not fields[0]]
        if gone:
            ledger.client.zrem(ledger.keys.jobs, *gone)
    return [_read_summary(*pair) for pair in zip(job_ids, answers, strict=True)]


def _read_summary(job_id: str, fields: list[str | None]) -> JobSummary | None:
    """Read one summary; a record that cannot be read is left to :meth:`Ledger.read`."""
    state, tenant, queue, images, submitted_at, finished_at, *rest = fields
    attempts, deaths, runner, expires_at = rest
    if state is None:
        return None
    try:
        return JobSummary(
            job_id=job_id,
            state=cast("State", state),
            tenant=tenant or "",
            queue=queue or "",
            images=int(images or 0),
            submitted_at=float(submitted_at or 0),
            finished_at=float(finished_at) if finished_at else None,
            attempts=int(attempts or 0),
            deaths=int(deaths or 0),
            runner=runner or "",
            expires_at=float(expires_at) if expires_at else None,
        )
    except ValueError:
        return None
