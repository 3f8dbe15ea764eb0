"""Records of the ledger and its answers, as values that programs can read."""

import json
import math
import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final, Literal, cast

from pydantic import ValidationError

from labelyard.errors import (
    InvalidMessageError,
    JobCancelledError,
    JobExpiredError,
    ResultTimeoutError,
    ResultUnreadableError,
)
from labelyard.ledger.clock import LedgerClock
from labelyard.messages import Job, Result, refusal_of
from labelyard.queues import Queue

UNREADABLE: Final = (AttributeError, KeyError, TypeError, ValueError)
# Fields of a record of which only the state is known.
NOTHING: Final[Mapping[str, str]] = {
    "tenant": "",
    "queue": Queue.BULK,
    "message": "",
    **dict.fromkeys(
        ("images", "submitted_at", "published_at", "attempts", "deaths", "deaths_alone"), "0"
    ),
}

State = Literal["pending", "running", "succeeded", "partial", "failed", "cancelled", "expired"]
# What runs beside a job in its worker: anything; no other suspect; no other suspect although it
# asked to be alone; nothing.
Isolation = Literal["none", "suspect", "crowded", "alone"]
FINAL_STATES: Final[frozenset[str]] = frozenset(
    {"succeeded", "partial", "failed", "cancelled", "expired"}
)


@dataclass(frozen=True, slots=True)
class Pending:
    """The deliveries that a result needs when it is written.

    Attributes:
        names: ``object``, ``webhook``.
        deliverer: Worker that makes them now; empty leaves them to whichever has room.
        due_in_s: Seconds after which that worker may take them.
    """

    names: tuple[str, ...] = ()
    deliverer: str = ""
    due_in_s: float = 0.0


@dataclass(frozen=True, slots=True)
class DeliveryState:
    """How one delivery of a result stands.

    Attributes:
        state: ``pending`` (not tried yet), ``delivered``, ``refused`` (never tried again),
            or ``failed``: tried again at *next_try_at*, given up if that is ``None``.
        attempts: How often it was tried.
        reason: Why the last attempt failed, or why the first one waits; no addresses.
        next_try_at: Seconds since the epoch, Redis' clock; ``None`` if nothing is to come,
            or if it is due.
    """

    state: Literal["pending", "failed", "delivered", "refused"] = "pending"
    attempts: int = 0
    reason: str = ""
    next_try_at: float | None = None


@dataclass(frozen=True, slots=True)
class Record:
    """One job's record in the ledger. Times are seconds since the epoch, Redis' clock.

    Attributes:
        queue: Name of a :class:`labelyard.queues.Queue`, or of one that only later versions have.
        attempts: How often a worker began it.
        deaths: How often its worker died, hung or broke while it ran.
        deaths_alone: The same, while nothing else ran beside it.
        deaths_suspect: The same, while no other suspect ran beside it.
        deaths_beside: How often its worker died while a suspect ran beside it; each counts
            as half a death.
        undelivered: Deliveries that are still owed: ``object``, ``webhook``.
        expires_at: After this nobody wants the result; ``None`` means never.
        result: ``None`` until succeeded, partial or failed.
        fault: What of the record cannot be read, for a person; empty if all can.
        is_replayed: Whether it was a dead letter once.
        deliveries: How each delivery of the result stands, by name; empty until there is
            a result.
    """

    job_id: str
    state: State
    tenant: str
    queue: str
    images: int
    submitted_at: float
    published_at: float
    finished_at: float | None
    attempts: int
    deaths: int
    deaths_alone: int
    last_death: str
    runner: str
    message: str
    undelivered: tuple[str, ...]
    expires_at: float | None
    result: Result | None
    fault: str = ""
    is_replayed: bool = False
    deliveries: Mapping[str, DeliveryState] = field(default_factory=dict)
    deaths_suspect: int = 0
    deaths_beside: int = 0

    @property
    def is_final(self) -> bool:
        """Return whether the state can change no more."""
        return self.state in FINAL_STATES

    @property
    def is_job(self) -> bool:
        """Return whether the submitted message can be read here as a job."""
        try:
            self.job()
        except InvalidMessageError:
            return False
        return True

    def job(self) -> Job:
        """Read the job as it was submitted.

        Raises:
            InvalidMessageError: It does not follow the contract that is read here.
        """
        try:
            return Job.model_validate_json(self.message)
        except ValidationError as error:
            raise refusal_of(error) from error

    def outcome(self) -> Result:
        """Return the job's result, or raise the error that stands in its place.

        Raises:
            JobCancelledError: It was cancelled.
            JobExpiredError: It expired.
            ResultTimeoutError: It is not final yet.
            ResultUnreadableError: It is final, and its result cannot be read.
        """
        if self.state == "cancelled":
            raise JobCancelledError(self.job_id)
        if self.state == "expired":
            raise JobExpiredError(self.job_id)
        if self.fault or (self.result is None and self.is_final):
            raise ResultUnreadableError(self.job_id, self.fault or "the record holds no result")
        if self.result is None:
            raise ResultTimeoutError(f"{self.job_id} is {self.state}, not final")
        return self.result


@dataclass(frozen=True, slots=True)
class Glance:
    """The little that waiting needs to know of a job.

    Attributes:
        expires_at: When it expires, by this machine's clock, whatever that shows.
    """

    state: State
    expires_at: float | None


@dataclass(frozen=True, slots=True)
class Opened:
    """Result of a submit: a new record, or the existing one."""

    is_new: bool
    state: State
    at: float


@dataclass(frozen=True, slots=True)
class Started:
    """Decision on a delivered job: the work that its worker should do.

    Attributes:
        verdict: ``run`` it; drop it because it is ``final`` or ``missing``, or because it
            runs ``elsewhere`` and will be sent again; move it ``to_quarantine``; bury it
            because it is ``dead``; or refuse the message: it is another job's under the
            same id (``conflict``), or older than a final record lives (``outlived``).
        state: Its final state, if it is final.
        attempt: Which attempt this is, from 1.
        queued_s: Seconds from submission to this start.
        reason: What killed it, if it is dead.
        runner: The worker that runs it, if that is another.
        start: Number of this attempt that is never used twice; the end of the attempt
            carries it.
        expires_in_s: Seconds until nobody wants the result, by the ledger's clock.
    """

    verdict: Literal[
        "run",
        "final",
        "missing",
        "elsewhere",
        "to_quarantine",
        "isolate",
        "dead",
        "conflict",
        "outlived",
    ]
    state: str = ""
    attempt: int = 0
    deaths: int = 0
    queued_s: float = 0.0
    reason: str = ""
    runner: str = ""
    start: int = 0
    expires_in_s: float | None = None


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


def read_started(answer: list[str]) -> Started:
    """Parse the decision of the start script."""
    match answer:
        case ["run", attempt, deaths, submitted_at, now, start, expires_in_s]:
            return Started(
                "run",
                attempt=int(attempt),
                deaths=int(deaths),
                queued_s=max(0.0, float(now) - float(submitted_at)),
                start=int(start),
                expires_in_s=float(expires_in_s) if expires_in_s else None,
            )
        case ["dead", deaths, reason]:
            return Started("dead", deaths=int(deaths), reason=reason)
        case ["isolate", deaths]:
            return Started("isolate", deaths=int(deaths))
        case ["to_quarantine", deaths]:
            return Started("to_quarantine", deaths=int(deaths))
        case ["elsewhere", runner]:
            return Started("elsewhere", runner=runner)
        case ["final", state]:
            return Started("final", state=state)
        case ["conflict", state]:
            return Started("conflict", state=state)
        case ["outlived"]:
            return Started("outlived")
        case _:
            return Started("missing")


def read_glance(fields: list[str | None], *, clock: LedgerClock) -> Glance | None:
    """Read a record's ``state`` and ``expires_at``; ``None`` when there is none."""
    state, expires_at = fields
    if state is None:
        return None
    try:
        expires_in_s = float(expires_at or "nan") - clock.now()
    except ValueError:  # unreadable: an error of this job's own outcome, not of a wait for many
        expires_in_s = math.nan
    if not math.isfinite(expires_in_s):
        return Glance(cast("State", state), None)
    return Glance(cast("State", state), time.time() + expires_in_s)


def read_record(job_id: str, fields: Mapping[str, str]) -> Record | None:
    """Read a record's hash; ``None`` when there is none.

    A record that cannot be read does not raise, because other jobs' records are read in the
    same call: its own ``outcome`` raises.
    """
    if "state" not in fields:
        return None
    try:
        return _read_fields(job_id, fields)
    except UNREADABLE as error:
        return _read_what_is_left(job_id, fields, fault=fault_of(error))


def fault_of(error: Exception) -> str:
    """Describe an unreadable part of a record, without its value: it may be megabytes."""
    if isinstance(error, ValidationError):
        return str(refusal_of(error).args[0])
    return f"{type(error).__name__} in its record"


def _read_what_is_left(job_id: str, fields: Mapping[str, str], *, fault: str) -> Record:
    """Read a record without its result, or else its state alone."""
    for usable in ({**fields, "result": ""}, {**NOTHING, "state": fields["state"]}):
        try:
            return replace(_read_fields(job_id, usable), fault=fault)
        except UNREADABLE:
            continue
    raise AssertionError("unreachable: a record of nothing but defaults can be read")


def _read_fields(job_id: str, fields: Mapping[str, str]) -> Record:
    result = fields.get("result")
    finished_at = fields.get("finished_at")
    return Record(
        job_id=job_id,
        state=cast("State", fields["state"]),
        tenant=fields["tenant"],
        queue=fields["queue"],
        images=int(fields["images"]),
        submitted_at=float(fields["submitted_at"]),
        published_at=float(fields["published_at"]),
        finished_at=float(finished_at) if finished_at else None,
        attempts=int(fields["attempts"]),
        deaths=int(fields["deaths"]),
        deaths_alone=int(fields["deaths_alone"]),
        last_death=fields.get("last_death", ""),
        runner=fields.get("runner", ""),
        message=fields["message"],
        undelivered=tuple(filter(None, fields.get("undelivered", "").split(","))),
        expires_at=float(fields["expires_at"]) if fields.get("expires_at") else None,
        result=Result.model_validate_json(result) if result else None,
        is_replayed="replayer" in fields,
        deliveries=read_deliveries(fields),
        deaths_suspect=int(fields.get("deaths_suspect", 0)),
        deaths_beside=int(fields.get("deaths_beside", 0)),
    )


def read_deliveries(fields: Mapping[str, str]) -> dict[str, DeliveryState]:
    """Read how a record's deliveries stand; those that were never tried are pending."""
    pending = filter(None, fields.get("undelivered", "").split(","))
    tried = json.loads(fields.get("deliveries") or "{}")
    return {
        **{name: DeliveryState() for name in pending},
        **{name: _read_delivery(state) for name, state in tried.items()},
    }


def _read_delivery(state: Mapping[str, Any]) -> DeliveryState:
    return DeliveryState(
        state=state["state"],
        attempts=int(state["attempts"]),
        reason=state.get("reason", ""),
        next_try_at=state.get("next_try_at"),
    )
