"""Page ``/metrics``: all metrics of a worker, in the format of the scraper's choice."""

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Protocol

from prometheus_client import disable_created_metrics
from prometheus_client.core import Metric
from prometheus_client.exposition import choose_encoder

from labelyard.ledger import Ledger
from labelyard_worker import metrics, observations
from labelyard_worker.operations.fleet_gauges import FleetGauges
from labelyard_worker.operations.worker_gauges import WorkerGauges
from labelyard_worker.settings import WorkerSettings

if TYPE_CHECKING:
    from labelyard.publisher import Publisher
    from labelyard_worker.maintenance.leader import LeaderElection
    from labelyard_worker.operations.health import Health
    from labelyard_worker.vision.checkpoint import Checkpoint


class Collector(Protocol):
    """Reads gauges when the worker is scraped."""

    def collect(self) -> Iterable[Metric]:
        """Return the gauges with their present values."""


class Exposition:
    """All metrics of one worker: those that count as it works, and those read at the scrape.

    Args:
        collectors: Readers of the gauges.
    """

    def __init__(self, collectors: Sequence[Collector]) -> None:
        # A time series more for each counter and histogram, which no query of ours needs.
        disable_created_metrics()  # type: ignore[no-untyped-call]
        self._collectors = collectors

    def collect(self) -> Iterable[Metric]:
        """Return every metric; the encoders take this object for a registry."""
        yield from metrics.REGISTRY.collect()
        for collector in self._collectors:
            yield from collector.collect()

    def page(self, accept: str) -> tuple[str, bytes]:
        """Return the content type and the text that a scraper with this header understands."""
        encode, content_type = choose_encoder(accept)
        return content_type, encode(self)


def open_exposition(
    settings: WorkerSettings,
    checkpoint: "Checkpoint",
    *,
    health: "Health",
    leader: "LeaderElection",
    ledger: Ledger,
    publisher: "Publisher",
) -> Exposition:
    """Build the page of the metrics: the worker's own, and the fleet's while it leads."""
    most = observations.TENANTS.limit = settings.metrics_max_tenants
    of_worker = WorkerGauges(health, leader, checkpoint)
    return Exposition([of_worker, FleetGauges(ledger, publisher, leader, max_tenants=most)])
