"""Thread pool that handles every exception that escapes a task: no slot and no message is lost.

Celery's pool leaves an exception that escapes the tracer or a callback (SystemExit,
KeyboardInterrupt, MemoryError, a result store that is away) in a Future that nobody reads: the
message is never acknowledged, and after as many such events as there are slots the worker consumes
nothing while it still answers pings. Here every escape reaches ``Request.on_failure`` as WorkerLostError, which
gives the message back. Select it with ``CELERY_CUSTOM_WORKER_POOL=labelyard_worker.broker.
thread_pool:TaskPool`` and ``-P custom``.
"""

import logging
import os
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, NamedTuple

from billiard.einfo import ExceptionInfo
from billiard.exceptions import WorkerLostError
from celery.concurrency import thread

log = logging.getLogger(__name__)

Callback = Callable[..., Any]


class PoolUsage(NamedTuple):
    """Usage of the pool's threads.

    Attributes:
        total: Jobs that can run at once.
        busy: Jobs that run now.
        leaked: Jobs since the start whose message was neither acknowledged nor rejected: it counts
            against the prefetch limit until the connection is renewed.
    """

    total: int
    busy: int
    leaked: int


class PoolResult(thread.ApplyResult):  # type: ignore[misc]
    """Celery's handle on a running job."""

    def terminate(self, signal: object = None) -> None:
        """Do nothing: a thread can't be killed."""


class TaskPool(thread.TaskPool):  # type: ignore[misc]
    """Thread pool that acknowledges or rejects every message once."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.executor = ThreadPoolExecutor(self.limit, thread_name_prefix="labelyard-job")
        self._count_lock = threading.Lock()
        self._busy = 0
        self._leaked = 0

    def usage(self) -> PoolUsage:
        """Count the slots by use, for health checks."""
        with self._count_lock:
            return PoolUsage(total=self.limit, busy=self._busy, leaked=self._leaked)

    def terminate_job(self, pid: int, signal: object = None) -> None:
        """Leave the job running: *pid* is the worker's own process."""
        log.warning("terminate_ignored", extra={"fields": {"pid": pid, "signal": str(signal)}})

    def on_apply(
        self,
        target: Callback,
        args: Sequence[Any] | None = None,
        kwargs: Mapping[str, Any] | None = None,
        callback: Callback | None = None,
        accept_callback: Callback | None = None,
        error_callback: Callback | None = None,
        **_: Any,
    ) -> PoolResult:
        future: Future[None] = self.executor.submit(
            self._run, target, args or (), kwargs or {}, callback, accept_callback, error_callback
        )
        return PoolResult(future)

    def _run(
        self,
        target: Callback,
        args: Sequence[Any],
        kwargs: Mapping[str, Any],
        callback: Callback | None,
        accept_callback: Callback | None,
        error_callback: Callback | None,
    ) -> None:
        with self._count_lock:
            self._busy += 1
        try:
            if accept_callback:
                accept_callback(os.getpid(), time.monotonic())
            answer = target(*args, **kwargs)
            if callback:
                callback(answer)
        except BaseException as error:  # noqa: BLE001 - the message needs an answer after any error
            self._report(error, error_callback)
        finally:
            with self._count_lock:
                self._busy -= 1

    def _report(self, error: BaseException, error_callback: Callback | None) -> None:
        """Report the lost thread to the request; if that fails too, requeue the message."""
        log.error("job_escaped", exc_info=error, extra={"fields": {"error": repr(error)}})
        if error_callback is None:
            return
        try:
            error_callback(_lost(error))
        except BaseException:
            # on_failure reads the result store before it answers the message: the store is away.
            log.exception("job_failure_unreported")
            self._give_back(getattr(error_callback, "__self__", None))

    def _give_back(self, request: Any) -> None:
        try:
            request.reject(requeue=True)  # does nothing to a message that has its answer
        except BaseException:
            log.exception("slot_leaked")
            with self._count_lock:
                self._leaked += 1


def _lost(error: BaseException) -> ExceptionInfo:
    """Wrap *error* as Celery expects the loss of a worker."""
    lost = WorkerLostError(f"the job's thread was lost: {error!r}")
    return ExceptionInfo((WorkerLostError, lost, error.__traceback__))
