"""Calls of our tasks, in envelopes that we wrote: the form in which Celery gets a message."""

import base64
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Self

from labelyard.outgoing import NO_CANVAS, PUBLISHED_AT_HEADER, RETURNED_BY_HEADER

# Never published: only the gate writes calls of it, inside the worker.
SET_ASIDE_TASK: Final = "labelyard.ledger.set_aside"
NO_FOLLOW_UPS: Final = "null"


@dataclass(frozen=True, slots=True)
class TaskCall:
    """A call of one of our tasks: everything that Celery gets.

    Attributes:
        arguments: JSON text of the list of arguments.
        published_at: When the client published the message, by the ledger's clock; 0 if it
            does not say.
        returned_by: Which attempt was given back with it while the ledger was away.
        is_result_wanted: Whether a Celery application asked for the task's result.
        follow_ups: JSON text of the calls that Celery makes after this one, in its own form;
            only calls that LABELYARD_CELERY_FOLLOW_UPS names.
    """

    task: str
    task_id: str
    arguments: str
    published_at: float = 0.0
    is_again: bool = False
    is_result_wanted: bool = False
    returned_by: str = ""
    follow_ups: str = NO_FOLLOW_UPS

    def body(self) -> str:
        """Write the body: arguments, keyword arguments, a canvas that holds follow-ups at most."""
        if self.follow_ups == NO_FOLLOW_UPS:
            return f"[{self.arguments},{{}},{NO_CANVAS}]"
        canvas = NO_CANVAS.replace('"chain":null', f'"chain":{self.follow_ups}')
        return f"[{self.arguments},{{}},{canvas}]"

    def headers(self) -> dict[str, Any]:
        """Write the headers of Celery's message protocol 2 that a plain call needs."""
        ours: dict[str, Any] = {}
        if self.published_at:
            ours[PUBLISHED_AT_HEADER] = self.published_at
        if self.returned_by:
            ours[RETURNED_BY_HEADER] = self.returned_by
        return {
            "lang": "py",
            "task": self.task,
            "id": self.task_id,
            "root_id": self.task_id,
            "argsrepr": "",
            "kwargsrepr": "",
            "ignore_result": not self.is_result_wanted,
            **ours,
        }


@dataclass(frozen=True, slots=True)
class Misfit:
    """A message that is set aside.

    Attributes:
        queue: Name of the queue that brought it.
        raw: Its bytes, as far as they are kept.
        size_bytes: How many bytes it had.
        job_id: Job that its producer waits for, if the message tells; else empty.
    """

    reason: str
    queue: str
    raw: bytes = field(repr=False)
    size_bytes: int
    job_id: str = ""

    def arguments(self) -> str:
        """Write the arguments of the task that sets the message aside."""
        raw = base64.b64encode(self.raw).decode()
        return json.dumps([self.reason, self.queue, raw, self.size_bytes, self.job_id])

    @classmethod
    def of_arguments(cls, arguments: Sequence[Any]) -> Self:
        """Parse the arguments that :meth:`arguments` wrote."""
        reason, queue, raw, size_bytes, job_id = arguments
        return cls(reason, queue, base64.b64decode(raw), size_bytes, job_id)


def list_item(call: TaskCall, *, queue: str, delivery_tag: str) -> dict[str, Any]:
    """Write the envelope of *call*, as kombu takes it from a list on Redis."""
    return {
        "body": call.body(),
        "content-type": "application/json",
        "content-encoding": "utf-8",
        "headers": call.headers(),
        "properties": {
            "correlation_id": call.task_id,
            "delivery_mode": 2,
            "delivery_tag": delivery_tag,
            "delivery_info": {
                "exchange": "",
                "routing_key": queue,
                "redelivered": call.is_again,
            },
            "priority": 0,
        },
    }
