"""Client package for backends: submit jobs and read their results."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from labelyard.async_client import AsyncClient, AsyncJobHandle
    from labelyard.client import Client, JobHandle
    from labelyard.errors import LabelyardError
    from labelyard.events import AsyncEvent, AsyncEventGap, Event, EventGap
    from labelyard.ledger import Record
    from labelyard.ledger.workers import WorkerInfo
    from labelyard.messages import (
        Deliver,
        ImageRef,
        ImageResult,
        Job,
        Label,
        LabelSet,
        Parent,
        Result,
        ScoredLabel,
        ScoredNode,
    )
    from labelyard.runs.async_client import AsyncRunHandle
    from labelyard.runs.client import RunHandle
    from labelyard.runs.record import RunProgress, RunRecord
    from labelyard.settings import ClientSettings
    from labelyard.version import __version__

__all__ = [
    "AsyncClient",
    "AsyncEvent",
    "AsyncEventGap",
    "AsyncJobHandle",
    "AsyncRunHandle",
    "Client",
    "ClientSettings",
    "Deliver",
    "Event",
    "EventGap",
    "ImageRef",
    "ImageResult",
    "Job",
    "JobHandle",
    "Label",
    "LabelSet",
    "LabelyardError",
    "Parent",
    "Record",
    "Result",
    "RunHandle",
    "RunProgress",
    "RunRecord",
    "ScoredLabel",
    "ScoredNode",
    "WorkerInfo",
    "__version__",
]

MODULE_BY_NAME = {
    "AsyncClient": "async_client",
    "AsyncEvent": "events",
    "AsyncEventGap": "events",
    "AsyncJobHandle": "async_client",
    "AsyncRunHandle": "runs.async_client",
    "Client": "client",
    "ClientSettings": "settings",
    "Event": "events",
    "EventGap": "events",
    "JobHandle": "client",
    "LabelyardError": "errors",
    "RunHandle": "runs.client",
    "RunProgress": "runs.record",
    "RunRecord": "runs.record",
    "Record": "ledger",
    "WorkerInfo": "ledger.workers",
    "__version__": "version",
}


def __getattr__(name: str) -> Any:
    """Import a public name when it is first used.

    The worker's intake children import parts of this package, and must start fast.
    """
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module = import_module(f"{__name__}.{MODULE_BY_NAME.get(name, 'messages')}")
    value = globals()[name] = getattr(module, name)
    return value
