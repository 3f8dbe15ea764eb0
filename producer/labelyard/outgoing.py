"""Messages that carry jobs: one Celery task each, written without Celery."""

import json
import os
import re
import socket
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Self

from labelyard.messages import Job
from labelyard.messages.explanation import DEFAULT_GRID, MAX_GRID, MIN_GRID, count_occluded

if TYPE_CHECKING:
    from labelyard.ledger import Record

TASK: Final = "labelyard.classify"
DELIVER_TASK: Final = "labelyard.deliver"
# Parts of a run: its plan, a range of its lines, its end.
PLAN_TASK: Final = "labelyard.plan"
SHARD_TASK: Final = "labelyard.shard"
FINISH_TASK: Final = "labelyard.finish"
#: Tasks whose only argument is a message with a job id.
JOB_TASKS: Final = (TASK, PLAN_TASK, SHARD_TASK, FINISH_TASK)
JOB_ID_HEADER: Final = "labelyard_job_id"
PUBLISHED_AT_HEADER: Final = "labelyard_published_at"
RETURNED_BY_HEADER: Final = "labelyard_returned_by"
# The broker's fair shares go by these two: it does not look into the job.
TENANT_HEADER: Final = "labelyard_tenant"
IMAGES_HEADER: Final = "labelyard_images"
DEFAULT_TENANT: Final = "default"
PERSISTENT: Final = 2
_TENANT: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
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
        tenant: Tenant whose share of the queue it takes; empty means the default tenant.
        images: Number of images, which the tenant is charged for; at least 1 is charged.
    """

    job_id: str
    message: str
    queue: str
    published_at: float
    task: str = TASK
    returned_by: str = ""
    tenant: str = DEFAULT_TENANT
    images: int = 1

    @classmethod
    def of(cls, job: Job, *, queue: str, published_at: float) -> Self:
        """Write the message of *job*."""
        return cls(
            job.job_id,
            job.model_dump_json(),
            queue,
            published_at,
            tenant=job.tenant,
            images=job.count_images(),
        )

    @classmethod
    def of_record(cls, record: "Record", *, published_at: float) -> Self:
        """Write the message of a job that has a record, to publish it again."""
        return cls(
            record.job_id,
            record.message,
            record.queue,
            published_at,
            tenant=record.tenant,
            images=record.images,
            task=record.task or TASK,
        )

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
            TENANT_HEADER: self.tenant or DEFAULT_TENANT,
            IMAGES_HEADER: max(1, self.images),
            **returned_by,
        }


def _occluded_in(job: Any) -> int:
    """Count the extra images of a picture in a message that nothing has checked yet."""
    grid = job.get("explain_grid")
    is_grid = isinstance(grid, int) and MIN_GRID <= grid <= MAX_GRID
    return count_occluded(grid if is_grid else DEFAULT_GRID)


def share_of(message: str) -> tuple[str, int]:
    """Read tenant and number of images of a job or a part of a run; the defaults if it is neither."""
    try:
        job = json.loads(message)
        tenant, images = job.get("tenant", DEFAULT_TENANT), job["images"]
        if not isinstance(images, int):
            images = len(images) * (1 + (_occluded_in(job) if job.get("explain") else 0))
    except (ValueError, TypeError, LookupError, AttributeError, RecursionError):
        return DEFAULT_TENANT, 1
    is_tenant = isinstance(tenant, str) and _TENANT.fullmatch(tenant) is not None
    return tenant if is_tenant else DEFAULT_TENANT, images
