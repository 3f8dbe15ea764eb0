"""The real worker, whose attempts leave lines, and misbehave by the name of their tenant."""

import os
import signal
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any, Final

from celery.signals import task_postrun

from labelyard.messages import Job, Result
from labelyard.queues import Priority
from labelyard_worker import intake_wiring, services
from labelyard_worker.celery_app import make_app
from labelyard_worker.classify import Classifier
from labelyard_worker.intake.pool import IntakePool
from labelyard_worker.intake.sources import https, registry
from labelyard_worker.intake.sources.fetcher_settings import SourceConfig
from labelyard_worker.intake.sources.source import TransferLimits
from labelyard_worker.jobs.cancellation import Token
from labelyard_worker.settings import WorkerSettings
from tests.support.apps import orders
from tests.support.apps.notes import hang, note


def end_process() -> None:
    """End the process as the kernel does when memory runs out."""
    os.kill(os.getpid(), signal.SIGKILL)


def raise_memory_error() -> None:
    """Fail as an allocation does."""
    raise MemoryError("poison")


def raise_system_exit() -> None:
    """Raise SystemExit, which no ``except Exception`` catches."""
    raise SystemExit("poison")


def raise_memory_error_until_cured() -> None:
    """Fail as long as nobody has mended what is wrong."""
    if not Path(os.environ["TEST_FLAGS"], orders.CURED).exists():
        raise_memory_error()


MISBEHAVIOUR: Final[dict[str, Callable[[], None]]] = {
    orders.KILLS_PROCESS: end_process,
    orders.RAISES_MEMORY_ERROR: raise_memory_error,
    orders.RAISES_SYSTEM_EXIT: raise_system_exit,
    orders.HANGS: hang,
    orders.CURABLE: raise_memory_error_until_cured,
}


def be_slow(seconds: float, token: Token) -> None:
    """Run for a while, and stop when the job is cancelled."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        token.check()
        time.sleep(0.05)


class NotedClassifier(Classifier):
    """Notes that an attempt begins and that its result is there; misbehaves if ordered to."""

    def classify(self, job: Job, *, priority: Priority, token: Token) -> Result:
        note("begin", job.job_id)
        if job.tenant in MISBEHAVIOUR:
            MISBEHAVIOUR[job.tenant]()
        if slow := orders.SLOW.fullmatch(job.tenant):
            be_slow(float(slow[1]), token)
        result = super().classify(job, priority=priority, token=token)
        note("result", job.job_id)
        return result


def on_postrun(task_id: str, state: str, **_: Any) -> None:
    """Note that a delivery came to its end; the ledger has the job's fate by then."""
    if state == "SUCCESS":
        note("end", task_id)


def with_private_https(settings: WorkerSettings, _: TransferLimits) -> SourceConfig:
    """Describe an https source that may connect to this machine."""
    return https.config_of(hosts=settings.https_hosts, allows_private=True)


def replace(module: ModuleType, name: str, stand_in: object) -> None:
    """Replace a name that *module* uses; one that it does not use would change nothing."""
    if name not in vars(module):
        raise AttributeError(f"{module.__name__} has no {name} any more")
    vars(module)[name] = stand_in


replace(services, "Classifier", NotedClassifier)
if decoder := os.environ.get("TEST_DECODER"):
    replace(intake_wiring, "IntakePool", partial(IntakePool, decoder=decoder))
if "TEST_PRIVATE_HTTPS" in os.environ:
    sources = (
        with_private_https if configure is https.configure else configure
        for configure in registry.SOURCES
    )
    replace(registry, "SOURCES", tuple(sources))
task_postrun.connect(on_postrun, weak=False)
app = make_app()
