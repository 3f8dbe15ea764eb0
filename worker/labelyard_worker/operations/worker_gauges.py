"""Gauges of one worker, read from its parts when it is scraped."""

import logging
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from importlib.metadata import version
from typing import TYPE_CHECKING

from prometheus_client.core import Metric

from labelyard_worker import metrics
from labelyard_worker.metrics import ScrapedGauge
from labelyard_worker.vision.devices import read_memory

if TYPE_CHECKING:
    from labelyard_worker.maintenance.leader import LeaderElection
    from labelyard_worker.operations.health import Health
    from labelyard_worker.vision.checkpoint import Checkpoint

log = logging.getLogger(__name__)

Values = Mapping[tuple[str, ...], float]


@dataclass(frozen=True)
class WorkerGauges:
    """Reader of a worker's gauges; a gauge that cannot be read is left out."""

    health: "Health"
    leader: "LeaderElection"
    checkpoint: "Checkpoint"

    def collect(self) -> Iterable[Metric]:
        """Read all gauges."""
        readers = (self._identity, self._slots, self._work, self._memory, self._circuits)
        for read in readers:
            try:
                gauges = list(read())
            except Exception:  # a part may be closing, or its device lost
                log.exception("gauges_not_read", extra={"fields": {"gauges": read.__name__}})
                continue
            for gauge, values in gauges:
                yield gauge.family(values)

    def _identity(self) -> Iterator[tuple[ScrapedGauge, Values]]:
        model = self.checkpoint.info
        names = (version("labelyard"), self.leader.worker, model.checkpoint, model.fingerprint)
        yield metrics.BUILD_INFO, {(*names, model.device, model.dtype): 1}
        yield metrics.LEADER, {(): self.leader.is_leading}
        yield metrics.DRAINING, {(): self.health.executor.is_draining}

    def _slots(self) -> Iterator[tuple[ScrapedGauge, Values]]:
        usage = self.health.pool_usage()
        if usage is not None:
            yield metrics.JOB_SLOTS, {(): usage.total}
            yield metrics.JOB_SLOTS_BUSY, {(): usage.busy}
            yield metrics.JOB_SLOTS_LEAKED, {(): usage.leaked}

    def _work(self) -> Iterator[tuple[ScrapedGauge, Values]]:
        health = self.health
        budget = health.intake.budget
        place_bytes = self.checkpoint.pixel_spec.max_bytes
        yield metrics.INTAKE_PENDING, {(): health.intake.pending}
        yield metrics.BATCH_QUEUE, {(): health.batcher.waiting}
        yield metrics.PIXELS_IN_FLIGHT, {(): budget.taken * place_bytes}
        yield metrics.PIXELS_LIMIT, {(): budget.places * place_bytes}
        busy_s = max(health.batcher.busy_for_s, health.text_vectors.busy_for_s)
        yield metrics.FORWARD_PASS, {(): busy_s}
        yield metrics.HUNG, {(): health.watchdog.hung() is not None}

    def _memory(self) -> Iterator[tuple[ScrapedGauge, Values]]:
        device = (str(self.checkpoint.device),)
        memory = read_memory(self.checkpoint.device)
        if memory is not None:
            yield metrics.DEVICE_ALLOCATED, {device: memory.allocated_bytes}
            yield metrics.DEVICE_RESERVED, {device: memory.reserved_bytes}
            yield metrics.DEVICE_TOTAL, {device: memory.total_bytes}

    def _circuits(self) -> Iterator[tuple[ScrapedGauge, Values]]:
        states = {
            "source": self.health.intake.count_circuits(),
            "delivery": self.health.deliveries.count_circuits(),
        }
        yield (
            metrics.CIRCUITS,
            {
                (kind, state): counts[state]
                for kind, counts in states.items()
                for state in ("open", "probing")
            },
        )
