"""Health of a worker over HTTP: ``/live`` and ``/ready``, and ``/metrics`` beside them.

A pod that answers probes but finishes no job would never be restarted. So ``/live`` checks
every part that a job needs: the model's threads, the intake's children, the pool's slots,
and whether a job was finished while messages are queued.
"""

import logging
import time
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from redis.exceptions import RedisError

from labelyard.errors import LabelyardError, ServiceConfigError
from labelyard_worker.operations.probe_server import Page, ProbeServer

if TYPE_CHECKING:
    from labelyard.ledger import Ledger
    from labelyard_worker.broker.thread_pool import PoolUsage
    from labelyard_worker.intake.pool import IntakePool
    from labelyard_worker.jobs.delivery.pool import DeliveryPool
    from labelyard_worker.jobs.executor import Executor
    from labelyard_worker.jobs.watchdog import Watchdog
    from labelyard_worker.maintenance.broker_view import BrokerView
    from labelyard_worker.vision.batcher import Batcher
    from labelyard_worker.vision.text_vectors import TextVectors

log = logging.getLogger(__name__)


@dataclass
class Health:
    """State of one worker, in sentences for the operator.

    Attributes:
        stall_s: Seconds without a finished job, while jobs are queued, until not live.
        pool: Celery's pool, once the worker takes jobs.
    """

    batcher: "Batcher[Any, Any]"
    text_vectors: "TextVectors"
    intake: "IntakePool"
    deliveries: "DeliveryPool"
    watchdog: "Watchdog"
    executor: "Executor"
    broker: "BrokerView"
    ledger: "Ledger"
    stall_s: float
    pool: Any = None

    def faults(self) -> list[str]:
        """Return the faults that make the worker useless until it is restarted."""
        faults = []
        if self.batcher.failed is not None:
            faults.append(f"the model failed: {self.batcher.failed}")
        elif not self.batcher.is_alive:
            faults.append("a model thread is dead")
        if not self.text_vectors.is_alive:
            faults.append("the thread that encodes prompts is dead")
        if not self.intake.is_alive():
            faults.append("the intake is dead")
        if not self.deliveries.is_alive:
            faults.append("the delivery thread is dead")
        if hung := self.watchdog.hung():
            faults.append(hung)
        if leaked := self._leaked_slots():
            faults.append(f"{leaked} slots of the pool leaked")
        if self._is_stalled():
            faults.append(f"messages wait, and no job finished for {self.stall_s:g} s")
        return faults

    def _leaked_slots(self) -> int:
        usage = self.pool_usage()
        return usage.leaked if usage is not None else 0

    def pool_usage(self) -> "PoolUsage | None":
        """Count the pool's slots by use; ``None`` before the start, and with another pool."""
        usage = getattr(self.pool, "usage", None)
        return usage() if usage is not None else None

    def _is_stalled(self) -> bool:
        idle_s = time.monotonic() - self.executor.last_finished_at
        if idle_s < self.stall_s:
            return False
        try:
            return self.broker.count_queued() > 0
        except (RedisError, OSError, LabelyardError):
            return False  # without a broker nothing can be finished, and no restart helps

    def hindrances(self) -> list[str]:
        """Return the reasons that keep the worker from taking jobs now."""
        hindrances = self.faults()
        if self.pool is None:
            hindrances.append("the worker does not consume yet")
        if self.executor.is_draining:
            hindrances.append("the worker is shutting down")
        try:
            self.ledger.open_images()
        except LabelyardError as error:
            hindrances.append(str(error))
        return hindrances


class Server:
    """HTTP server of the probes; it answers even while Celery's event loop is blocked."""

    def __init__(self, health: Health, *, host: str, port: int, pages: Mapping[str, Page]) -> None:
        self._health = health
        probes = {"/live": health.faults, "/ready": health.hindrances}
        self._http = ProbeServer(probes, pages=pages, host=host, port=port)
        self.port = self._http.port
        log.info("health_listens", extra={"fields": {"host": host, "port": self.port}})

    def ready(self, pool: Any) -> None:
        """Note that Celery's *pool* takes jobs from now on."""
        self._health.pool = pool

    def close(self) -> None:
        """Stop answering."""
        self._http.close()


def serve(
    health: Health, *, host: str, port: int, pages: Mapping[str, Page] = MappingProxyType({})
) -> Server | None:
    """Start the server of the probes, unless *port* is -1.

    Args:
        pages: Page of each further path.

    Raises:
        ServiceConfigError: The address cannot be opened.
    """
    if port < 0:
        return None
    try:
        return Server(health, host=host, port=port, pages=pages)
    except OSError as error:
        raise ServiceConfigError(
            f"the health port {host}:{port} cannot be opened ({error.strerror}): set "
            "LABELYARD_HEALTH_PORT to a free one, 0 to pick one, -1 for none"
        ) from error
