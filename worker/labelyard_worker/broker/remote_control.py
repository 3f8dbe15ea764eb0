"""Celery's remote control: off by default, within the namespace, and unable to lose a job."""

from collections.abc import Callable
from typing import Any, Final

from celery.worker.control import Panel
from celery.worker.request import Request as StockRequest

# These drop messages without a final state, stop the worker from consuming its queues, or set
# limits that a pool of threads ignores.
REFUSED_COMMANDS: Final = frozenset(
    {
        "add_consumer",
        "autoscale",
        "cancel_consumer",
        "pool_grow",
        "pool_restart",
        "pool_shrink",
        "rate_limit",
        "revoke",
        "revoke_by_stamped_headers",
        "terminate",
        "time_limit",
    }
)


class UnrevokableRequest(StockRequest):  # type: ignore[misc]
    """Request that Celery never drops: the ledger knows whether a job is still wanted."""

    def revoked(self) -> bool:
        """Return ``False``: the call is to be run."""
        return False


def build_control_settings(namespace: str, *, is_on: bool) -> dict[str, Any]:
    """Choose Celery's settings; other namespaces on the broker get none of our commands."""
    return {
        "worker_enable_remote_control": is_on,
        "control_exchange": f"{namespace}.celery",
        "event_exchange": f"{namespace}.celeryev",
        "event_queue_prefix": f"{namespace}.celeryev",
    }


def replace_commands(cancel: Callable[[str], bool]) -> None:
    """Remove the commands that would lose jobs; ``revoke`` cancels the job in the ledger.

    Args:
        cancel: Cancels the job with an id; returns whether it was not final before.
    """
    for name in REFUSED_COMMANDS:
        Panel.data.pop(name, None)
        Panel.meta.pop(name, None)

    def revoke(state: Any, task_id: Any, **_: Any) -> dict[str, Any]:  # noqa: ARG001 - Celery's signature
        ids = [task_id] if isinstance(task_id, str) else list(task_id)
        return {"ok": {job_id: cancel(job_id) for job_id in ids if isinstance(job_id, str)}}

    Panel.data["revoke"] = revoke
