"""Gauges of the whole fleet, read from the ledger and the broker by the leader alone."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from prometheus_client.core import Metric

from labelyard.drift.report import DriftWindow
from labelyard.events.groups import EventGroup, EventGroups
from labelyard.label_sets import LabelSetRegistry
from labelyard.ledger import Backlog, BacklogKey, Ledger
from labelyard.ledger.maintenance import FleetCounts, MaintenanceLedger
from labelyard_worker import metrics
from labelyard_worker.operations.cached_read import CachedRead

if TYPE_CHECKING:
    from labelyard.publisher import Publisher
    from labelyard_worker.maintenance.leader import LeaderElection

#: Seconds between two readings of the drift: its windows are hours.
DRIFT_S: Final = 15.0
#: Hours that are read for it: a version with less than 100 pictures in them has no gauge.
DRIFT_HOURS: Final = 48
MAX_ALIASES: Final = 50


@dataclass(frozen=True, slots=True)
class FleetReading:
    """One reading of the ledger."""

    backlog: Mapping[BacklogKey, Backlog]
    oldest_s: Mapping[str, float]
    counts: FleetCounts
    groups: Sequence[EventGroup]


class FleetGauges:
    """Reader of the fleet's gauges; it exports nothing while another worker leads.

    A leader whose ledger is away exports ``labelyard_fleet_up`` alone, as 0.

    Args:
        max_tenants: Tenants of the backlog with a time series of their own, the largest ones.
    """

    def __init__(
        self,
        ledger: Ledger,
        publisher: "Publisher",
        leader: "LeaderElection",
        *,
        max_tenants: int,
    ) -> None:
        self._leader = leader
        self._max_tenants = max_tenants
        maintenance, groups = MaintenanceLedger(ledger), EventGroups(ledger)
        self._figures = CachedRead(
            lambda: FleetReading(
                ledger.backlog(), ledger.oldest_open(), maintenance.count_fleet(), groups.list()
            ),
            name="labelyard-fleet-ledger",
        )
        label_sets = LabelSetRegistry(ledger.client, namespace=ledger.keys.namespace)
        self._drifts = CachedRead(
            lambda: read_drifts(label_sets), name="labelyard-fleet-drift", fresh_s=DRIFT_S
        )
        self._depths = CachedRead(publisher.depths, name="labelyard-fleet-broker")

    def collect(self) -> Iterable[Metric]:
        """Read all gauges, if this worker leads."""
        if not self._leader.is_leading:
            return
        figures = self._figures.get()
        yield metrics.FLEET_UP.of(figures is not None)
        if figures is None:
            return
        yield from self._ledger_gauges(figures)
        yield from drift_gauges(self._drifts.get() or {})
        depths = self._depths.get()
        if depths is not None:
            yield metrics.FLEET_QUEUE.family({(queue,): count for queue, count in depths.items()})

    def _ledger_gauges(self, figures: FleetReading) -> Iterable[Metric]:
        folded = fold_backlog(figures.backlog, max_tenants=self._max_tenants)
        yield metrics.FLEET_BACKLOG.family(folded)
        oldest_s = figures.oldest_s
        yield metrics.FLEET_OLDEST.family({(queue,): age_s for queue, age_s in oldest_s.items()})
        counts = figures.counts
        yield metrics.FLEET_OPEN_JOBS.of(counts.open_jobs)
        yield metrics.FLEET_DEAD_LETTERS.of(counts.dead_letters)
        yield metrics.FLEET_SET_ASIDE.of(counts.set_aside)
        yield metrics.FLEET_WORKERS.of(counts.workers)
        yield metrics.FLEET_DELIVERIES.of(counts.pending_deliveries)
        yield metrics.FLEET_DEAD_DELIVERIES.of(counts.dead_deliveries)
        groups = figures.groups
        yield metrics.FLEET_WAITING_EVENTS.family({(one.name,): one.waiting for one in groups})
        yield metrics.FLEET_EVENT_GAPS.of(sum(one.gap is not None for one in groups))


def read_drifts(label_sets: LabelSetRegistry) -> Mapping[str, DriftWindow]:
    """Read the newest tested window of each alias' version, if it has a baseline."""
    drifts = {
        alias.name: label_sets.drift(alias.reference, hours=DRIFT_HOURS)
        for alias in label_sets.aliases()[:MAX_ALIASES]
    }
    return {alias: report.windows[0] for alias, report in drifts.items() if report.windows}


def drift_gauges(windows: Mapping[str, DriftWindow]) -> Iterable[Metric]:
    """Return the gauges of the drift of aliases."""
    distances: dict[tuple[str, ...], float] = {}
    for alias, window in windows.items():
        distances[alias, "scores"] = window.scores.distance
        distances[alias, "answers"] = window.answers.distance
    yield metrics.FLEET_DRIFT.family(distances)
    yield metrics.FLEET_DRIFT_ALARM.family(
        {(alias,): float(window.is_alarm) for alias, window in windows.items()}
    )


def fold_backlog(
    backlog: Mapping[BacklogKey, Backlog], *, max_tenants: int
) -> Mapping[tuple[str, ...], int]:
    """Sum the images by tenant and queue, with the smaller tenants as ``other``."""
    by_tenant: Counter[str] = Counter()
    for key, open_jobs in backlog.items():
        by_tenant[key.tenant] += open_jobs.images
    largest = sorted(by_tenant, key=lambda tenant: (-by_tenant[tenant], tenant))[:max_tenants]
    named = frozenset(largest)
    folded: Counter[tuple[str, ...]] = Counter()
    for key, open_jobs in backlog.items():
        tenant = key.tenant if key.tenant in named else metrics.OTHER
        folded[tenant, key.queue] += open_jobs.images
    return folded
