"""Records of the ledger, as values that programs can read."""

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
FINAL_STATES: Final[frozenset[str]] = frozenset(
    {"succeeded", "partial", "failed", "cancelled", "expired"}
)


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
        died_at: When it was refused or given up, by the same clock; ``None`` if it was not, and in
            records of earlier versions.
    """

    state: Literal["pending", "failed", "delivered", "refused"] = "pending"
    attempts: int = 0
    reason: str = ""
    next_try_at: float | None = None
    died_at: float | None = None

    @property
    def is_dead(self) -> bool:
        """Return whether it is a dead letter: refused, or given up after its last attempt."""
        return self.state == "refused" or (self.state == "failed" and self.next_try_at is None)


@dataclass(frozen=True, slots=True, repr=False)
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
        undelivered: Deliveries that are still pending: ``object``, ``webhook``.
        expires_at: After this nobody wants the result; ``None`` means never.
        result: ``None`` until succeeded, partial or failed.
        fault: What of the record cannot be read, for a person; empty if all can.
        is_replayed: Whether it was a dead letter once.
        deliveries: How each delivery of the result stands, by name; empty until there is
            a result.
        task: Task that runs it; empty for a classification.
        notice: What the webhook of a run gets, as JSON, in the record of its end.
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
    task: str = ""
    notice: str = ""

    def __repr__(self) -> str:
        """Return a summary; the message and the result are left out."""
        who = f"job_id={self.job_id!r}, state={self.state!r}, tenant={self.tenant!r}"
        return f"Record({who}, queue={self.queue!r}, images={self.images})"

    @property
    def is_final(self) -> bool:
        """Return whether the state can change no more."""
        return self.state in FINAL_STATES

    @property
    def is_job(self) -> bool:
        """Return whether the message can be read here as a job, or is a part of a run."""
        if self.task:
            return True
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
        expires_at: When it expires, by this machine's clock, even if that is wrong.
    """

    state: State
    expires_at: float | None


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
        task=fields.get("task", ""),
        notice=fields.get("notice", ""),
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
        died_at=state.get("died_at"),
    )
