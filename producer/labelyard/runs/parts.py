"""Parts of a run, each one message and one record like a job's: its plan, its shards, its end."""

import hashlib
import itertools
from collections.abc import Iterable
from typing import Annotated, Literal, Self

from pydantic import Field, ValidationError

from labelyard.fields import JobId, ObjectUri, Tenant
from labelyard.messages import Deliver
from labelyard.messages.models import Message, refusal_of
from labelyard.outgoing import FINISH_TASK, PLAN_TASK, SHARD_TASK, Outgoing
from labelyard.queues import Queue
from labelyard.runs.request import RunRequest

# Its number; of a part that it was split into also the part's first line in it and its lines.
ShardName = Annotated[str, Field(pattern=r"^[0-9]{5,9}(?:\.[0-9]{1,9}\.[0-9]{1,9})?$")]
Count = Annotated[int, Field(ge=0)]


class ShardRange(Message):
    """Range of lines of one shard.

    Attributes:
        plan: Name of the object of the plan that holds the lines.
        first: Index of its first line in the object, from 0.
        lines: Number of its lines, those without an image included.
        is_suspect: Whether it is left of a shard that killed its workers.
    """

    plan: Annotated[str, Field(pattern=r"^shard-[0-9]{5,9}(?:\.[0-9]{1,9}){0,2}$")]
    first: Count
    lines: int = Field(ge=1)
    is_suspect: bool = False

    def cut(self, *at: int) -> "list[ShardRange]":
        """Cut the range at each of *at*, counted in lines from its first; no part is empty."""
        bounds = sorted({0, self.lines, *(one for one in at if 0 < one < self.lines)})
        return [
            self.model_copy(update={"first": self.first + start, "lines": end - start})
            for start, end in itertools.pairwise(bounds)
        ]


class RunPart(Message):
    """Plan or end of a run.

    Attributes:
        job_id: Id of its record.
        images: Number of images that its tenant is charged for.
        run_id: The run.
        tenant: Tenant of the run.
    """

    version: Literal[1] = 1
    job_id: JobId
    images: Count = 0
    run_id: JobId
    tenant: Tenant = "default"

    @classmethod
    def parse(cls, body: str) -> Self:
        """Read a part off the wire.

        Raises:
            InvalidMessageError: *body* is not one of this kind.
        """
        try:
            return cls.model_validate_json(body)
        except ValidationError as error:
            raise refusal_of(error) from error

    def digest(self) -> str:
        """Compute the digest of the part."""
        return hashlib.sha256(self.model_dump_json().encode()).hexdigest()

    def outgoing(self, task: str, *, queue: Queue, published_at: float) -> Outgoing:
        """Write the message that carries the part."""
        return Outgoing(
            self.job_id,
            self.model_dump_json(),
            queue,
            published_at,
            task=task,
            tenant=self.tenant,
            images=self.images,
        )


class ShardPart(RunPart):
    """Shard of a run.

    Attributes:
        name: Name of the shard, as in the names of its files.
        range: Its lines.
    """

    name: ShardName
    range: ShardRange


class EndPart(RunPart):
    """End of a run.

    Attributes:
        out: Prefix of the run's files; left out of the message with *deliver*.
        deliver: Receiver that gets the end of the run; left out of the message if there is none.
    """

    out: ObjectUri | None = Field(default=None, exclude_if=lambda out: out is None)
    deliver: Deliver = Field(default=Deliver(), exclude_if=lambda deliver: deliver == Deliver())

    @property
    def trace(self) -> dict[str, str]:
        """Trace that the delivery belongs to: runs have none."""
        return {}


def plan_of(run_id: str, *, tenant: str, epoch: int) -> RunPart:
    """Make the part that plans a run."""
    return RunPart(job_id=f"{run_id}.plan{_suffix(epoch)}", run_id=run_id, tenant=tenant)


def end_of(request: RunRequest, *, epoch: int) -> EndPart:
    """Make the part that writes the summary of a run, and has its end sent to the webhook."""
    run_id, webhook = request.run_id, request.webhook
    return EndPart(
        job_id=f"{run_id}.end{_suffix(epoch)}",
        run_id=run_id,
        tenant=request.tenant,
        out=request.out if webhook else None,
        deliver=Deliver(webhook=webhook),
    )


def shard_of(run_id: str, name: str, lines: ShardRange, *, tenant: str, epoch: int) -> ShardPart:
    """Make the part that scores a range of lines."""
    return ShardPart(
        job_id=f"{run_id}.{name}{_suffix(epoch)}",
        images=lines.lines,
        run_id=run_id,
        tenant=tenant,
        name=name,
        range=lines,
    )


def number_of(name: str) -> str:
    """Return the number in a shard's name, which its parts share."""
    return name.partition(".")[0]


def name_parts(name: str, parts: Iterable[ShardRange]) -> dict[str, ShardRange]:
    """Name the parts that a shard is split into, however often it was split before.

    Args:
        name: Name of the shard, or of the part, that is split.
        parts: Each smaller than what is split, so that no name occurs twice.
    """
    return {f"{number_of(name)}.{part.first}.{part.lines}": part for part in parts}


def _suffix(epoch: int) -> str:
    """Return the suffix of the jobs of a resumed run, so that cancelled ones keep their own ids."""
    return f".e{epoch}" if epoch else ""


def task_of(part: RunPart) -> str:
    """Return the task that runs a part."""
    if isinstance(part, ShardPart):
        return SHARD_TASK
    return PLAN_TASK if ".plan" in part.job_id.removeprefix(part.run_id) else FINISH_TASK


def queue_of_part(part: RunPart) -> Queue:
    """Return the queue of a part: shards are bulk work, a suspect one is run apart."""
    if not isinstance(part, ShardPart):
        return Queue.CONTROL
    return Queue.QUARANTINE if part.range.is_suspect else Queue.BULK
