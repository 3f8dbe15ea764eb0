"""The leader alone exports the figures of the fleet, and no figure that it could not read."""

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, closing

import pytest

from labelyard.drift.baselines import baseline_json
from labelyard.drift.counts import AnswerCounts
from labelyard.drift.report import WINDOW_S
from labelyard.events.groups import EventGroups
from labelyard.label_sets import LabelSetRegistry, as_label_set
from labelyard.ledger import Ledger, connect
from labelyard.ledger.answer_commands import add_counts
from labelyard.ledger.maintenance import MaintenanceLedger
from labelyard.ledger.set_aside import SetAside, SetAsideMessage
from labelyard.publisher import Publisher
from labelyard.testing import sample_job
from labelyard_worker.local.embedded import choose_ports
from labelyard_worker.local.servers import ValkeyServer
from labelyard_worker.maintenance.leader import LeaderElection
from labelyard_worker.operations.fleet_gauges import FleetGauges
from labelyard_worker.settings import WorkerSettings
from tests.support.scraping import parts_of

Shown = Mapping[str, Mapping[tuple[str, ...], float]]


class FleetRig:
    """Workers' elections and gauges on one ledger."""

    def __init__(self, stack: ExitStack, *, broker_url: str, ledger_url: str) -> None:
        self.settings = WorkerSettings(
            broker_url=broker_url, ledger_url=ledger_url, namespace="test"
        )
        self.ledger = Ledger(stack.enter_context(closing(connect(self.settings))), self.settings)
        self.publisher = stack.enter_context(closing(Publisher(self.settings, timeout_s=0.3)))

    def worker(self, name: str, *, max_tenants: int = 100) -> tuple[LeaderElection, FleetGauges]:
        """Make a worker that has not tried to lead yet."""
        leader = LeaderElection(self.ledger, worker=name)
        return leader, FleetGauges(self.ledger, self.publisher, leader, max_tenants=max_tenants)

    def leader(self, *, max_tenants: int = 100) -> FleetGauges:
        """Make a worker that leads."""
        leader, gauges = self.worker("w1", max_tenants=max_tenants)
        assert leader.is_leader()
        return gauges

    def open(self, *, queue: str = "bulk", tenant: str = "shop") -> str:
        """Open a job of two images, and publish its message."""
        job = sample_job(tenant=tenant)
        opened = self.ledger.open(job, queue=queue)
        assert self.publisher.publish(job, queue=queue, published_at=opened.at)
        return job.job_id


@pytest.fixture
def rig(broker_url: str, ledger_url: str) -> Iterator[FleetRig]:
    with ExitStack() as stack:
        yield FleetRig(stack, broker_url=broker_url, ledger_url=ledger_url)


def shown(gauges: FleetGauges) -> Shown:
    return {
        name.removeprefix("labelyard_fleet_"): values
        for name, values in parts_of(gauges.collect()).items()
    }


def test_each_figure_is_that_of_the_ledger_and_the_broker(rig: FleetRig) -> None:
    running, _ = rig.open(), rig.open(queue="interactive", tenant="blog")
    rig.ledger.start(running, worker="w1", quarantine_after=9, dead_after=9)
    SetAside(rig.ledger.client, rig.settings).add(SetAsideMessage("odd", "", 1, b"x"))
    MaintenanceLedger(rig.ledger).renew_presence("w1", [], ttl_s=10)
    EventGroups(rig.ledger).create("indexer")
    rig.ledger.client.hset(rig.ledger.keys.event_group("indexer"), "gap_id", "1")
    ended = sample_job()
    rig.ledger.open(ended, queue="bulk")
    rig.ledger.cancel(ended.job_id)

    figures = dict(shown(rig.leader()))

    oldest = figures.pop("oldest_job_seconds")
    assert oldest.keys() == {("bulk",), ("interactive",)}
    assert figures == {
        "up": {(): 1},
        "backlog_images": {("shop", "bulk"): 2, ("blog", "interactive"): 2},
        "open_jobs": {(): 2},
        "queue_messages": {
            ("control",): 0,
            ("interactive",): 1,
            ("bulk",): 1,
            ("quarantine",): 0,
        },
        "dead_letters": {(): 0},
        "set_aside_messages": {(): 1},
        "workers": {(): 1},
        "pending_deliveries": {(): 0},
        "dead_deliveries": {(): 0},
        "waiting_events": {("indexer",): 1},
        "event_gaps": {(): 1},
        "drift_distance": {},
        "drift_alarm": {},
    }


def test_tenants_beyond_the_limit_are_summed(rig: FleetRig) -> None:
    for tenant in ("large", "large", "small", "tiny"):
        rig.open(tenant=tenant)

    backlog = shown(rig.leader(max_tenants=1))["backlog_images"]

    assert backlog == {("large", "bulk"): 4, ("other", "bulk"): 4}


def test_of_two_workers_one_exports_and_after_a_change_the_other(rig: FleetRig) -> None:
    (first, first_gauges), (second, second_gauges) = rig.worker("w1"), rig.worker("w2")
    for leader in (first, second):
        leader.is_leader()

    before = [bool(shown(gauges)) for gauges in (first_gauges, second_gauges)]
    first.resign()
    second.is_leader()
    after = [bool(shown(gauges)) for gauges in (first_gauges, second_gauges)]

    assert (before, after) == ([True, False], [False, True])


def test_without_the_ledger_the_leader_exports_that_alone(
    broker_url: str, own_valkey: ValkeyServer
) -> None:
    with ExitStack() as stack:
        rig = FleetRig(stack, broker_url=broker_url, ledger_url=own_valkey.url_of(0))
        gauges = rig.leader()
        own_valkey.stop()

        figures = shown(gauges)

        assert figures == {"up": {(): 0}}


def test_without_the_broker_its_queues_alone_are_absent(ledger_url: str) -> None:
    (port,) = choose_ports(1)
    with ExitStack() as stack:
        rig = FleetRig(stack, broker_url=f"redis://127.0.0.1:{port}/0", ledger_url=ledger_url)

        figures = shown(rig.leader())

        assert figures["up"] == {(): 1}
        assert "queue_messages" not in figures
        assert "backlog_images" in figures


@pytest.mark.allow_persistent_keys("versions and aliases stay")
def test_the_drift_of_an_alias_is_that_of_its_newest_window(rig: FleetRig) -> None:
    sets = LabelSetRegistry(rig.ledger.client, namespace=rig.settings.namespace)
    reference = sets.register("pets", as_label_set(["cat", "dog"]))
    sets.promote(sets.register("farm", as_label_set(["cow", "hen"])), "farm@prod")
    sets.promote(reference, "pets@prod")
    hour = int(rig.ledger.now() // WINDOW_S)
    half = AnswerCounts(n=200, scores=(100, 100) + (0,) * 30, answers={"cat": 100, "dog": 100})
    baseline = {"baseline": baseline_json(half, at=(hour - 2) * WINDOW_S)}
    rig.ledger.client.hset(rig.ledger.keys.label_set_version(reference), mapping=baseline)
    drifted = AnswerCounts(n=200, scores=(100, 100) + (0,) * 30, answers={"cat": 180, "dog": 20})
    key = rig.ledger.keys.answers(reference.partition("@")[2], hour - 1)
    rig.ledger.run(add_counts(key, drifted.fields(), worker="w1", number=1))

    figures = shown(rig.leader())

    assert figures["drift_alarm"] == {("pets@prod",): 1}
    assert figures["drift_distance"] == {
        ("pets@prod", "scores"): 0,
        ("pets@prod", "answers"): pytest.approx(0.4),
    }
