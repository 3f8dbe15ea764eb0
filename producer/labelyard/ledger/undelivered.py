"""Listing of deliveries that have not arrived: pending ones, failed ones, and dead letters."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final, Literal, Self, cast, get_args

from labelyard.arguments import text
from labelyard.errors import InvalidMessageError
from labelyard.ledger.records import DeliveryState, read_deliveries
from labelyard.ledger.redis_errors import ledger_errors_as_ours
from labelyard.webhook_address import WebhookAddress, webhook_id

if TYPE_CHECKING:
    from labelyard.ledger.reading import LedgerReader

DeliveryKind = Literal["webhook", "object"]
UndeliveredState = Literal["pending", "failed", "dead"]
#: Jobs of each index that one listing examines; the index of dead deliveries holds fewer.
MAX_EXAMINED: Final = 20_000
# Messages may hold thousands of labels each.
EXAMINED_AT_ONCE: Final = 100
_FIELDS: Final = ("state", "tenant", "finished_at", "undelivered", "deliveries", "message")


@dataclass(frozen=True, slots=True)
class UndeliveredResult:
    """One delivery of a job's result that has not arrived. Times are those of the ledger's clock.

    Attributes:
        kind: ``webhook`` or ``object``.
        state: ``pending`` (not tried yet), ``failed`` (tried again at *next_try_at*) or ``dead``:
            refused, or given up after its last attempt.
        host: Receiver with its port if that is not its scheme's, or ``s3://bucket``; no path, which
            may hold a secret.
        attempts: How often it was tried since the job finished or the delivery was replayed.
        reason: Why the last attempt failed, or why the first one waits; no addresses.
        webhook_id: ``webhook-id`` that the receiver gets; empty for an object.
    """

    job_id: str
    kind: DeliveryKind
    state: UndeliveredState
    tenant: str
    host: str
    attempts: int
    reason: str
    finished_at: float | None
    next_try_at: float | None = None
    died_at: float | None = None
    webhook_id: str = ""


@dataclass(frozen=True, slots=True)
class UndeliveredList:
    """Deliveries that were found: dead letters first, then those that are due soonest.

    Attributes:
        deliveries: At most as many as were requested.
        examined: How many jobs were examined.
        is_cut: Whether the search ended before the last job: others may match.
    """

    deliveries: tuple[UndeliveredResult, ...]
    examined: int
    is_cut: bool


@dataclass(frozen=True, slots=True)
class UndeliveredFilter:
    """Conditions that listed deliveries meet; ``None`` leaves one out.

    Attributes:
        kind: Kind of the delivery.
        state: State of the delivery.
        tenant: On whose behalf the job was submitted.
        host: Host of the receiver, with or without a port, or ``s3://bucket``.
        since: The job finished at this time or later.
    """

    kind: DeliveryKind = "webhook"
    state: UndeliveredState | None = None
    tenant: str | None = None
    host: str | None = None
    since: datetime | None = None

    @classmethod
    def checked(
        cls,
        *,
        kind: Any = "webhook",
        state: Any = None,
        tenant: Any = None,
        host: Any = None,
        since: Any = None,
    ) -> Self:
        """Make a filter of a caller's arguments.

        Raises:
            InvalidMessageError: One has a value that no delivery can have.
        """
        if state is not None and (
            not isinstance(state, str) or state not in get_args(UndeliveredState)
        ):
            raise InvalidMessageError(
                f"state: write one of {', '.join(get_args(UndeliveredState))}"
            )
        if since is not None and not (isinstance(since, datetime) and since.tzinfo is not None):
            raise InvalidMessageError("since: write a datetime with an offset, or leave it out")
        return cls(
            kind=delivery_kind(kind),
            state=cast("UndeliveredState | None", state),
            tenant=None if tenant is None else text(tenant, name="tenant"),
            host=None if host is None else text(host, name="host").lower(),
            since=since,
        )

    def matches(self, one: UndeliveredResult) -> bool:
        """Return whether a delivery meets the conditions."""
        return (
            one.kind == self.kind
            and self.state in (None, one.state)
            and self.tenant in (None, one.tenant)
            and (self.host is None or self.host in names_of(one.host))
            and (self.since is None or (one.finished_at or 0.0) >= self.since.timestamp())
        )


def delivery_kind(kind: Any) -> DeliveryKind:
    """Return the kind of delivery of that name.

    Raises:
        InvalidMessageError: There is no such kind.
    """
    if not isinstance(kind, str) or kind not in get_args(DeliveryKind):
        raise InvalidMessageError(f"kind: write one of {', '.join(get_args(DeliveryKind))}")
    return cast("DeliveryKind", kind)


def names_of(host: str) -> set[str]:
    """Return the names by which a person may select a host: with its port, and without."""
    name, colon, port = host.rpartition(":")
    has_port = bool(colon) and port.isdigit()
    return {host, name, name.strip("[]")} if has_port else {host, host.strip("[]")}


def list_undelivered(
    ledger: "LedgerReader", wanted: UndeliveredFilter, *, limit: int
) -> UndeliveredList:
    """List up to *limit* deliveries, and drop dead letters whose record is gone.

    Raises:
        LedgerUnavailableError: Redis gave no answer.
    """
    found: list[UndeliveredResult] = []
    seen: set[str] = set()
    ids, is_cut = _job_ids(ledger, wanted.state)
    for start in range(0, len(ids), EXAMINED_AT_ONCE):
        page = [one for one in ids[start : start + EXAMINED_AT_ONCE] if one not in seen]
        seen.update(page)
        for one in _read_page(ledger, page):
            if wanted.matches(one):
                found.append(one)
                if len(found) == limit:
                    return UndeliveredList(tuple(found), examined=len(seen), is_cut=False)
    return UndeliveredList(tuple(found), examined=len(seen), is_cut=is_cut)


def scan_undelivered(
    ledger: "LedgerReader", wanted: UndeliveredFilter
) -> Iterator[list[UndeliveredResult]]:
    """Yield all deliveries that match, page by page in no order; each once.

    Deliveries that become due, or fail, while the scan goes on may be left out.

    Raises:
        LedgerUnavailableError: Redis gave no answer.
    """
    keys, seen = ledger.keys, set[str]()
    indexes = {"dead": keys.dead_deliveries, "pending": keys.pending_deliveries}
    if wanted.state is not None:
        kind = "dead" if wanted.state == "dead" else "pending"
        indexes = {kind: indexes[kind]}
    for index in indexes.values():
        cursor = -1
        while cursor:
            with ledger_errors_as_ours():
                answer: Any = ledger.client.zscan(index, max(0, cursor), count=EXAMINED_AT_ONCE)
            cursor, scores = answer[0], answer[1]
            page = [job_id for job_id in dict(scores) if job_id not in seen]
            seen.update(page)
            yield from _matching(ledger, wanted, page)


def _matching(
    ledger: "LedgerReader", wanted: UndeliveredFilter, job_ids: list[str]
) -> Iterator[list[UndeliveredResult]]:
    """Yield the deliveries of some jobs that match; a small index comes as one page."""
    for start in range(0, len(job_ids), EXAMINED_AT_ONCE):
        page = job_ids[start : start + EXAMINED_AT_ONCE]
        if found := [one for one in _read_page(ledger, page) if wanted.matches(one)]:
            yield found


def _job_ids(ledger: "LedgerReader", state: UndeliveredState | None) -> tuple[list[str], bool]:
    """Read the ids of jobs with such deliveries, and whether there are more."""
    keys, most = ledger.keys, MAX_EXAMINED - 1
    with ledger_errors_as_ours(), ledger.client.pipeline(transaction=False) as pipeline:
        if state in (None, "dead"):
            pipeline.zrange(keys.dead_deliveries, 0, most, desc=True)
        if state != "dead":
            pipeline.zrange(keys.pending_deliveries, 0, most)
        answers: list[Any] = pipeline.execute()
    ids = [job_id for answer in answers for job_id in answer]
    return list(dict.fromkeys(ids)), any(len(answer) > most for answer in answers)


def _read_page(ledger: "LedgerReader", job_ids: list[str]) -> Iterator[UndeliveredResult]:
    with ledger_errors_as_ours(), ledger.client.pipeline(transaction=False) as pipeline:
        for job_id in job_ids:
            pipeline.hmget(ledger.keys.job(job_id), _FIELDS)
        answers: list[Any] = pipeline.execute()
        gone = [job_id for job_id, fields in zip(job_ids, answers, strict=True) if not fields[0]]
        if gone:
            ledger.client.zrem(ledger.keys.dead_deliveries, *gone)
    for job_id, fields in zip(job_ids, answers, strict=True):
        yield from _read_job(job_id, dict(zip(_FIELDS, fields, strict=True)))


def _read_job(job_id: str, fields: dict[str, str | None]) -> Iterator[UndeliveredResult]:
    """Read the deliveries of one record; one that cannot be read has none."""
    try:
        deliveries = read_deliveries({name: value or "" for name, value in fields.items()})
        deliver = json.loads(fields["message"] or "{}").get("deliver") or {}
        finished_at = float(fields["finished_at"] or 0) or None
    except (ValueError, KeyError, TypeError, AttributeError):
        return
    for kind in get_args(DeliveryKind):
        one = deliveries.get(kind)
        if one is None or one.state == "delivered":
            continue
        yield UndeliveredResult(
            job_id=job_id,
            kind=kind,
            state=undelivered_state(one),
            tenant=fields["tenant"] or "",
            host=_host_of(kind, deliver),
            attempts=one.attempts,
            reason=one.reason,
            finished_at=finished_at,
            next_try_at=one.next_try_at,
            died_at=one.died_at,
            webhook_id=webhook_id(job_id) if kind == "webhook" else "",
        )


def undelivered_state(delivery: DeliveryState) -> UndeliveredState:
    """Return the state of a delivery that has not arrived."""
    if delivery.is_dead:
        return "dead"
    return "pending" if delivery.state == "pending" else "failed"


def _host_of(kind: DeliveryKind, deliver: dict[str, Any]) -> str:
    if kind == "object":
        bucket = str(deliver.get("object_uri") or "").removeprefix("s3://").partition("/")[0]
        return f"s3://{bucket}"
    try:
        return WebhookAddress.parse(str(deliver.get("webhook") or "")).authority
    except ValueError:
        return ""
