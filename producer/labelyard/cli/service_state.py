"""State of the service as one client can read it: servers, workers, backlog, and what went wrong."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from labelyard.cli.fleet import worker_fields
from labelyard.client import Client
from labelyard.errors import LabelyardError
from labelyard.ledger import Backlog, BacklogKey
from labelyard.ledger.limits import WORKER_DETAILS_TTL_S
from labelyard.ledger.workers import WorkerInfo

SOUND: Final = "ok"


@dataclass(frozen=True, slots=True, kw_only=True)
class ServiceFigures:
    """Figures of the ledger at one moment.

    Attributes:
        workers: Workers that are alive, and those that ended without a shutdown in an hour.
        backlog: Open jobs and their images, by queue and tenant.
        oldest_open: Seconds since the oldest open job of a queue was submitted.
    """

    open_images: int
    totals: Mapping[str, int]
    image_totals: Mapping[str, int]
    dead_letters: int
    set_aside: int
    set_aside_dropped: int
    deliveries: Mapping[str, int]
    workers: tuple[WorkerInfo, ...]
    backlog: Mapping[BacklogKey, Backlog]
    oldest_open: Mapping[str, float]

    @property
    def live(self) -> list[WorkerInfo]:
        """Workers that are alive."""
        return [worker for worker in self.workers if worker.state != "lost"]

    @property
    def lost(self) -> list[WorkerInfo]:
        """Workers that ended without a shutdown."""
        return [worker for worker in self.workers if worker.state == "lost"]

    @property
    def open_jobs(self) -> int:
        """Number of jobs that are not final."""
        return sum(one.jobs for one in self.backlog.values())

    @property
    def breakers(self) -> dict[str, int]:
        """Buckets and hosts that workers do not call now, with the number of these workers."""
        named: dict[str, int] = {}
        for worker in self.live:
            for name in worker.open_breakers:
                named[name] = named.get(name, 0) + 1
        return named

    def by_queue(self) -> dict[str, Backlog]:
        """Add up the backlog of each queue."""
        return self._added_up(lambda key: key.queue)

    def by_tenant(self) -> dict[str, Backlog]:
        """Add up the backlog of each tenant, that with the most images first."""
        added = self._added_up(lambda key: key.tenant)
        return dict(sorted(added.items(), key=lambda entry: -entry[1].images))

    def _added_up(self, name_of: Callable[[BacklogKey], str]) -> dict[str, Backlog]:
        added: dict[str, Backlog] = {}
        for key, one in self.backlog.items():
            name = name_of(key)
            before = added.get(name, Backlog(images=0, jobs=0))
            added[name] = Backlog(before.images + one.images, before.jobs + one.jobs)
        return added


@dataclass(frozen=True, slots=True, kw_only=True)
class ServiceState:
    """State of the service, as far as one client could read it.

    Attributes:
        ledger: ``ok``, or why the ledger could not be read.
        broker: ``ok``, or why the broker could not be read.
        figures: Figures of the ledger; ``None`` if it could not be read.
        queues: Number of messages that wait in each queue; empty if it could not be read.
    """

    ledger: str = SOUND
    broker: str = SOUND
    figures: ServiceFigures | None = None
    queues: Mapping[str, int] = field(default_factory=dict)

    @property
    def is_reached(self) -> bool:
        """Return whether both servers answered."""
        return (self.ledger, self.broker) == (SOUND, SOUND)

    def fields(self) -> dict[str, Any]:
        """Describe the service for programs; figures that could not be read are left out."""
        described: dict[str, Any] = {"ledger": self.ledger}
        if self.figures is not None:
            described |= _figures_fields(self.figures)
        described["broker"] = self.broker
        if self.broker == SOUND:
            described["queues"] = dict(self.queues)
        return described


def read_service(client: Client) -> ServiceState:
    """Read the state of the service, as far as its servers answer."""
    ledger = broker = SOUND
    figures, queues = None, {}
    try:
        figures = read_figures(client)
    except LabelyardError as error:
        ledger = str(error)
    try:
        queues = client.queue_lengths()
    except LabelyardError as error:
        broker = str(error)
    return ServiceState(ledger=ledger, broker=broker, figures=figures, queues=queues)


def read_figures(client: Client) -> ServiceFigures:
    """Read the ledger's figures.

    Raises:
        LedgerUnavailableError: The ledger gave no answer.
    """
    return ServiceFigures(
        open_images=client.open_images(),
        totals=client.totals(),
        image_totals=client.image_totals(),
        dead_letters=client.dead_letters.count(),
        set_aside=client.set_aside.count(),
        set_aside_dropped=client.set_aside.dropped(),
        deliveries=client.deliveries(),
        workers=tuple(client.workers(lost_within_s=WORKER_DETAILS_TTL_S)),
        backlog=client.backlog(),
        oldest_open=client.oldest_open(),
    )


def _figures_fields(figures: ServiceFigures) -> dict[str, Any]:
    return {
        "open_images": figures.open_images,
        "open_jobs": figures.open_jobs,
        "totals": dict(figures.totals),
        "image_totals": dict(figures.image_totals),
        "dead_letters": figures.dead_letters,
        "set_aside": figures.set_aside,
        "set_aside_dropped": figures.set_aside_dropped,
        "deliveries": dict(figures.deliveries),
        "backlog": [
            {"queue": key.queue, "tenant": key.tenant, "images": one.images, "jobs": one.jobs}
            for key, one in figures.backlog.items()
        ],
        "oldest_open_s": {name: round(age_s, 3) for name, age_s in figures.oldest_open.items()},
        "breakers": figures.breakers,
        "workers": [worker_fields(worker) for worker in figures.workers],
    }
