"""Calls of our own tasks in envelopes of our own: the form in which Celery receives a message."""

import base64
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Self

from labelyard.outgoing import (
    IMAGES_HEADER,
    NO_CANVAS,
    PUBLISHED_AT_HEADER,
    RETURNED_BY_HEADER,
    TENANT_HEADER,
)

# Never published: only the gate writes calls of it, inside the worker.
SET_ASIDE_TASK: Final = "labelyard.ledger.set_aside"
NO_FOLLOW_UPS: Final = "null"


@dataclass(frozen=True, slots=True)
class TaskCall:
    """Call of one of our tasks: all that Celery receives of a message.

    Attributes:
        arguments: JSON text of the list of arguments.
        published_at: When the client published the message, by the ledger's clock; 0 if
            unknown.
        returned_by: Attempt that was given back with it while the ledger was away.
        is_result_wanted: Whether a Celery application asked for the task's result.
        follow_ups: JSON text of the calls that Celery makes after this one, in its own form;
            only calls that LABELYARD_CELERY_FOLLOW_UPS names.
        tenant: Tenant that the call is charged to when it is sent again; empty if unknown.
        images: Number of images that it is charged for.
    """

    task: str
    task_id: str
    arguments: str
    published_at: float = 0.0
    is_redelivered: bool = False
    is_result_wanted: bool = False
    returned_by: str = ""
    follow_ups: str = NO_FOLLOW_UPS
    tenant: str = ""
    images: int = 1

    def write_body(self) -> str:
        """Write the body: arguments, keyword arguments, a canvas that holds follow-ups at most."""
        if self.follow_ups == NO_FOLLOW_UPS:
            return f"[{self.arguments},{{}},{NO_CANVAS}]"
        canvas = NO_CANVAS.replace('"chain":null', f'"chain":{self.follow_ups}')
        return f"[{self.arguments},{{}},{canvas}]"

    def write_headers(self) -> dict[str, Any]:
        """Write the headers of Celery's message protocol 2 that a plain call needs."""
        ours: dict[str, Any] = {}
        if self.published_at:
            ours[PUBLISHED_AT_HEADER] = self.published_at
        if self.returned_by:
            ours[RETURNED_BY_HEADER] = self.returned_by
        if self.tenant:
            ours |= {TENANT_HEADER: self.tenant, IMAGES_HEADER: self.images}
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
class RefusedMessage:
    """Message that the admission gate refuses; it is set aside.

    Attributes:
        queue: Name of the queue that it came from.
        raw: Its bytes, up to MAX_KEPT_BYTES.
        size_bytes: Number of bytes that it had.
        job_id: Job that its producer waits for; empty if unknown.
    """

    reason: str
    queue: str
    raw: bytes = field(repr=False)
    size_bytes: int
    job_id: str = ""

    def write_arguments(self) -> str:
        """Write the arguments of the task that sets the message aside."""
        raw = base64.b64encode(self.raw).decode()
        return json.dumps([self.reason, self.queue, raw, self.size_bytes, self.job_id])

    @classmethod
    def from_arguments(cls, arguments: Sequence[Any]) -> Self:
        """Parse the arguments that :meth:`write_arguments` wrote."""
        reason, queue, raw, size_bytes, job_id = arguments
        return cls(reason, queue, base64.b64decode(raw), size_bytes, job_id)


def to_list_item(call: TaskCall, *, queue: str, delivery_tag: str) -> dict[str, Any]:
    """Write the envelope of *call* in the form of a message in a list on Redis."""
    return {
        "body": call.write_body(),
        "content-type": "application/json",
        "content-encoding": "utf-8",
        "headers": call.write_headers(),
        "properties": {
            "correlation_id": call.task_id,
            "delivery_mode": 2,
            "delivery_tag": delivery_tag,
            "delivery_info": {
                "exchange": "",
                "routing_key": queue,
                "redelivered": call.is_redelivered,
            },
            "priority": 0,
        },
    }
