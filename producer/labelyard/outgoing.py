"""Messages that carry jobs: one Celery task each, written without Celery."""

import json
import os
import socket
from dataclasses import dataclass
from typing import Any, Final, Self

from labelyard.messages import Job

TASK: Final = "labelyard.classify"
DELIVER_TASK: Final = "labelyard.deliver"
JOB_ID_HEADER: Final = "labelyard_job_id"
PUBLISHED_AT_HEADER: Final = "labelyard_published_at"
RETURNED_BY_HEADER: Final = "labelyard_returned_by"
PERSISTENT: Final = 2
# The third part of a body of Celery's message protocol 2: a plain task has none of these.
NO_CANVAS: Final = '{"callbacks":null,"errbacks":null,"chain":null,"chord":null}'


@dataclass(frozen=True, slots=True)
class Outgoing:
    """A message that is to be published.

    Attributes:
        message: The task's argument as JSON: the job.
        published_at: Time of publication, by the ledger's clock. The reconciler compares it
            with the head of the queue to decide whether the message can still be in there.
        returned_by: ``worker:start`` of an attempt that a worker gives back with this message,
            because it ends and cannot tell the ledger.
    """

    job_id: str
    message: str
    queue: str
    published_at: float
    task: str = TASK
    returned_by: str = ""

    @classmethod
    def of(cls, job: Job, *, queue: str, published_at: float) -> Self:
        """Write the message of *job*."""
        return cls(job.job_id, job.model_dump_json(), queue, published_at)

    def body(self) -> str:
        """Write the body: arguments, keyword arguments, canvas."""
        return f"[[{self.message}],{{}},{NO_CANVAS}]"

    def headers(self) -> dict[str, Any]:
        """Write the headers of Celery's message protocol 2, and ours."""
        returned_by = {RETURNED_BY_HEADER: self.returned_by} if self.returned_by else {}
        return {
            "lang": "py",
            "task": self.task,
            "id": self.job_id,
            "root_id": self.job_id,
            "parent_id": None,
            "group": None,
            "retries": 0,
            "eta": None,
            "expires": None,
            "timelimit": [None, None],
            "argsrepr": json.dumps([self.job_id]),  # what monitors show: no labels, no addresses
            "kwargsrepr": "{}",
            "origin": f"{os.getpid()}@{socket.gethostname()}",
            "ignore_result": True,
            JOB_ID_HEADER: self.job_id,
            PUBLISHED_AT_HEADER: self.published_at,
            **returned_by,
        }
