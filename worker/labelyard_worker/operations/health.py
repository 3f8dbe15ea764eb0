"""Health of a worker over HTTP: ``/live`` and ``/ready``.

A pod that answers but finishes nothing is the worst kind of dead, so ``/live`` looks
at what would finish a job: the model's threads, the intake's children, the pool's
slots, and whether anything was finished while messages wait.
"""

import logging
import time
from typing import TYPE_CHECKING, Any

from redis.exceptions import RedisError

from labelyard.errors import LabelyardError, ServiceConfigError
from labelyard_worker.operations.probe_server import ProbeServer

if TYPE_CHECKING:
    from labelyard_worker.services import Services

log = logging.getLogger(__name__)


class Health:
    """The state of one worker, in words for whoever must act."""

    def __init__(self, services: "Services") -> None:
        self._services = services
        self.pool: Any = None

    def faults(self) -> list[str]:
        """Return the faults that make the worker useless until it is restarted."""
        services = self._services
        faults = []
        if services.batcher.failed is not None:
            faults.append(f"the model failed: {services.batcher.failed}")
        elif not services.batcher.is_alive:
            faults.append("a model thread is dead")
        if not services.label_index.vectors.is_alive:
            faults.append("the thread that encodes prompts is dead")
        if not services.intake.is_alive():
            faults.append("the intake is dead")
        if not services.deliveries.is_alive:
            faults.append("the delivery thread is dead")
        if hung := services.watchdog.hung():
            faults.append(hung)
        if leaked := self._leaked_slots():
            faults.append(f"{leaked} slots of the pool leaked")
        if self._is_stalled():
            faults.append(f"messages wait, and no job finished for {services.settings.stall_s:g} s")
        return faults

    def _leaked_slots(self) -> int:
        slots = getattr(self.pool, "slots", None)
        return int(slots().leaked) if slots is not None else 0

    def _is_stalled(self) -> bool:
        services = self._services
        idle_s = time.monotonic() - services.executor.last_finished_at
        if idle_s < services.settings.stall_s:
            return False
        try:
            return services.broker.waiting() > 0
        except (RedisError, OSError, LabelyardError):
            return False  # without a broker nothing can be finished, and no restart helps

    def hindrances(self) -> list[str]:
        """Return the reasons that keep the worker from taking jobs now."""
        hindrances = self.faults()
        if self.pool is None:
            hindrances.append("the worker does not consume yet")
        if self._services.executor.is_draining:
            hindrances.append("the worker is shutting down")
        try:
            self._services.ledger.open_images()
        except LabelyardError as error:
            hindrances.append(str(error))
        return hindrances


class Server:
    """The probes of one worker over HTTP, which answer when Celery's event loop does not."""

    def __init__(self, health: Health, *, host: str, port: int) -> None:
        self._health = health
        probes = {"/live": health.faults, "/ready": health.hindrances}
        self._http = ProbeServer(probes, host=host, port=port)
        self.port = self._http.port
        log.info("health_listens", extra={"fields": {"host": host, "port": self.port}})

    def ready(self, pool: Any) -> None:
        """Note that jobs are taken, by *pool*."""
        self._health.pool = pool

    def close(self) -> None:
        """Stop answering."""
        self._http.close()


def serve(services: "Services") -> Server | None:
    """Start to answer, unless LABELYARD_HEALTH_PORT is -1.

    Raises:
        ServiceConfigError: The address cannot be listened on.
    """
    host, port = services.settings.health_host, services.settings.health_port
    if port < 0:
        return None
    try:
        return Server(Health(services), host=host, port=port)
    except OSError as error:
        raise ServiceConfigError(
            f"the health port {host}:{port} cannot be opened ({error.strerror}): set "
            "LABELYARD_HEALTH_PORT to a free one, 0 to pick one, -1 for none"
        ) from error
