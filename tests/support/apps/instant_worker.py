"""The real worker, whose attempts leave lines, and misbehave as their tenant says."""

import os
import signal
import time
from collections.abc import Callable
from typing import Any, Final

from celery.signals import task_postrun

from labelyard.messages import Job, Result
from labelyard_worker import tasks
from labelyard_worker.celery_app import make_app
from labelyard_worker.classify import classify
from labelyard_worker.services import Services
from labelyard_worker.tokens import Token
from tests.support.apps import orders
from tests.support.apps.notes import hang, note


def end_process() -> None:
    """End the process as the kernel does when memory runs out."""
    os.kill(os.getpid(), signal.SIGKILL)


def raise_memory_error() -> None:
    """Fail as an allocation does."""
    raise MemoryError("poison")


def raise_system_exit() -> None:
    """Raise what no ``except Exception`` holds."""
    raise SystemExit("poison")


MISBEHAVIOUR: Final[dict[str, Callable[[], None]]] = {
    orders.KILLS_PROCESS: end_process,
    orders.RAISES_MEMORY_ERROR: raise_memory_error,
    orders.RAISES_SYSTEM_EXIT: raise_system_exit,
    orders.HANGS: hang,
}


def be_slow(seconds: float, token: Token) -> None:
    """Take a while, and stop when told to."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        token.check()
        time.sleep(0.05)


def noted_classify(job: Job, services: Services, *, token: Token, **options: Any) -> Result:
    """Note that an attempt begins and that its result is there; misbehave if ordered to."""
    note("begin", job.job_id)
    if job.tenant in MISBEHAVIOUR:
        MISBEHAVIOUR[job.tenant]()
    if slow := orders.SLOW.fullmatch(job.tenant):
        be_slow(float(slow[1]), token)
    result = classify(job, services, token=token, **options)
    note("result", job.job_id)
    return result


def on_postrun(task_id: str, state: str, **_: Any) -> None:
    """Note that a delivery came to its end; the ledger has the job's fate by then."""
    if state == "SUCCESS":
        note("end", task_id)


vars(tasks)["classify"] = noted_classify
task_postrun.connect(on_postrun, weak=False)
app = make_app()
