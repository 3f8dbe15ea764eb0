"""Details of this worker for ``labelyard workers``: its device, checkpoint, state and faults."""

import socket
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from itertools import chain
from typing import Final

import labelyard
from labelyard.ledger.workers import MAX_NAMED_BREAKERS, WorkerInfo, WorkerState
from labelyard.queues import is_amqp
from labelyard_worker.intake.pool import IntakePool
from labelyard_worker.jobs.delivery.pool import DeliveryPool
from labelyard_worker.settings import WorkerSettings
from labelyard_worker.vision.checkpoint import Checkpoint
from labelyard_worker.vision.device_names import count_device_memory, name_device

LONGEST_NAME: Final = 100
#: Facts that the presence and index keys hold, not the details.
ELSEWHERE: Final = frozenset({"name", "running", "last_seen_at", "last_seen_s"})


@dataclass
class WorkerDetails:
    """Details of one worker; read anew from its parts each time.

    Attributes:
        facts: All that does not change while the worker lives.
        queues: Names of the queues that it consumes, once it takes jobs.
    """

    facts: WorkerInfo
    intake: IntakePool
    deliveries: DeliveryPool
    is_draining: Callable[[], bool]
    queues: tuple[str, ...] = ()

    def ready(self, queues: Iterable[str]) -> None:
        """Note that the worker consumes *queues* from now on."""
        self.queues = tuple(queues)

    @property
    def state(self) -> WorkerState:
        """State of the worker's life."""
        if self.is_draining():
            return "draining"
        return "ready" if self.queues else "starting"

    def describe(self) -> str:
        """Return the details as JSON."""
        fetching = (f"fetch {name}" for name in self.intake.sources_away)
        delivering = (f"deliver {name}" for name in self.deliveries.hosts_failing)
        breakers = sorted(name[:LONGEST_NAME] for name in chain(fetching, delivering))
        info = self.facts.model_copy(
            update={
                "state": self.state,
                "queues": self.queues,
                "open_breakers": tuple(breakers[:MAX_NAMED_BREAKERS]),
                "open_breaker_count": len(breakers),
            }
        )
        return info.model_dump_json(exclude=set(ELSEWHERE))


def worker_facts(
    settings: WorkerSettings,
    checkpoint: Checkpoint,
    *,
    worker: str,
    started_at: float,
    health_port: int | None,
) -> WorkerInfo:
    """Describe the facts that do not change while a worker lives.

    Args:
        started_at: Start of the process, by the ledger's clock.
        health_port: Port that the probes listen on; ``None`` if they are switched off.
    """
    model, device = checkpoint.info, checkpoint.device
    return WorkerInfo(
        name=worker,
        host=socket.gethostname(),
        device=str(device),
        device_name=name_device(device)[:LONGEST_NAME],
        device_memory_bytes=count_device_memory(device),
        checkpoint=model.checkpoint,
        fingerprint=model.fingerprint,
        dtype=model.dtype,
        version=labelyard.__version__,
        started_at=round(started_at, 3),
        concurrency=settings.concurrency,
        health_address="" if health_port is None else f"{settings.health_host}:{health_port}",
        has_atomic_claim=None if is_amqp(settings.broker_url) else settings.atomic_claim,
    )
