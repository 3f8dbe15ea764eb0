"""The life of a worker process: its services are built, announced, drained and closed."""

import logging
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, Final

from labelyard.errors import LabelyardError
from labelyard.queues import queue_name
from labelyard_worker.broker.line_merge import merge_lines
from labelyard_worker.broker.old_lists import move_old_lists
from labelyard_worker.cpu_budget import garbage_left_alone
from labelyard_worker.operations import logs, tracing
from labelyard_worker.settings import WorkerSettings

if TYPE_CHECKING:
    from labelyard_worker.services import LoadCheckpoint, Services

log = logging.getLogger(__name__)

INSTALL: Final = "install the worker's libraries with pip install 'labelyard[worker]'"


class Runtime:
    """State that Celery's signals build and the tasks use; empty in a process without a worker."""

    def __init__(self, settings: WorkerSettings, load: "LoadCheckpoint") -> None:
        self.settings = settings
        self._load = load
        self._services: Services | None = None
        self._tracing = tracing.Tracing()

    @property
    def services(self) -> "Services":
        """The services; there are some while a worker runs."""
        if self._services is None:
            raise RuntimeError("tasks run in a worker: start one with labelyard-worker start")
        return self._services

    def set_up_logging(self) -> None:
        """Write log events as the settings demand."""
        logs.set_up_process(level=self.settings.log_level, form=self.settings.log_format)

    def open(self) -> None:
        """Build everything before the first job is received, or end with the reason."""
        self.set_up_logging()  # Celery sends its signal for this only later
        self._tracing.start(self.settings)
        try:
            # Here and not above: `celery inspect` and its like load the application, too, and
            # torch takes seconds.
            with garbage_left_alone():
                from labelyard_worker.services import open_services
            self._services = open_services(self.settings, load=self._load)
            move_old_lists(self.settings, self._services.links.ledger)
            merge_lines(self.settings)
        except LabelyardError as error:
            self.close()
            raise SystemExit(f"labelyard-worker cannot start: {error}") from error
        except ModuleNotFoundError as error:
            self.close()
            raise SystemExit(f"labelyard-worker cannot start: {error}: {INSTALL}") from error
        except Exception as error:
            # Celery logs what a signal's receiver raises, and goes on without services.
            log.exception("worker_build_failed")
            self.close()
            raise SystemExit(f"labelyard-worker cannot start: {error!r}") from error

    def ready(self, pool: Any, queues: Iterable[str]) -> None:
        """Report that the worker receives jobs from *queues* from now on, by their full names."""
        prefix = queue_name(self.settings.namespace, "")
        self.services.details.ready(name.removeprefix(prefix) for name in queues)
        if self.services.health is not None:
            self.services.health.ready(pool)
        log.info("worker_ready", extra={"fields": {"worker": self.services.links.worker}})

    def drain(self) -> None:
        """Start the drain: running jobs finish, the rest are handed back."""
        if self._services is not None:
            self._services.drain.start()

    def close(self) -> None:
        """Close all services, their threads and processes included."""
        if self._services is not None:
            self._services.close()
            self._services = None
        self._tracing.close()

    def cancel(self, job_id: str) -> bool:
        """Cancel a job that Celery's remote control wants revoked."""
        return self.services.links.ledger.cancel(job_id)
