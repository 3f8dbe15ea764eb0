"""The feeder opens the jobs of runs: few at a time, within every limit, and again what was lost."""

from collections.abc import Iterator
from contextlib import closing
from typing import Any

import pytest

from labelyard.ledger import Ledger, connect
from labelyard.publisher import Publisher
from labelyard.queues import Queue
from labelyard.runs.ledger import RunLedger
from labelyard.runs.parts import ShardRange, end_of, plan_of, shard_of
from labelyard.runs.record import counts_of
from labelyard.runs.request import RunRequest
from labelyard.tenants import Tenants
from labelyard_worker.runs import feeder as feeder_module
from labelyard_worker.runs.feeder import RunFeeder
from labelyard_worker.settings import WorkerSettings
from tests.support.run_samples import sample_run


class FeederRig:
    """A feeder, and the ledger to inspect its runs."""

    def __init__(self, settings: WorkerSettings) -> None:
        self.client = connect(settings)
        self.ledger = Ledger(self.client, settings)
        self.runs = RunLedger(self.ledger)
        self.publisher = Publisher(settings)
        self.feeder = RunFeeder(self.runs, self.publisher, settings)

    def close(self) -> None:
        self.publisher.close()
        self.client.close()

    def start(self, *, shards: int, lines: int = 100, **changes: Any) -> RunRequest:
        """Start a run whose plan is complete."""
        run = sample_run(**changes)
        self.runs.open(run)
        for number in range(shards + 1):
            is_complete = number == shards
            self.runs.plan(
                run.run_id,
                expected=number,
                name="" if is_complete else f"{number:05d}",
                lines=None
                if is_complete
                else ShardRange(plan=f"shard-{number:05d}", first=0, lines=lines),
                checkpoint={"shard": number, "is_complete": is_complete},
                counts={} if is_complete else {"lines": lines, "images": lines},
                is_complete=is_complete,
            )
        return run

    def finish(self, run: RunRequest, name: str, *, images_per_s: float = 0.0) -> None:
        """Finish an opened shard."""
        lines = self.runs.opened(run.run_id)[name]
        part = shard_of(run.run_id, name, lines, tenant=run.tenant, epoch=0)
        counts = counts_of(lines=lines.lines, succeeded=lines.lines, failed=0, errors={})
        assert self.runs.finish(
            part, state="succeeded", result="", counts=counts, images_per_s=images_per_s
        )

    def opened(self, run: RunRequest) -> list[str]:
        return list(self.runs.opened(run.run_id))

    def messages(self, queue: Queue) -> int:
        return self.publisher.depths()[queue]


@pytest.fixture
def rig(broker_url: str, ledger_url: str) -> Iterator[FeederRig]:
    settings = WorkerSettings(
        broker_url=broker_url, ledger_url=ledger_url, namespace="test", shard_lines=100
    )
    with closing(FeederRig(settings)) as made:
        yield made


def test_a_bounded_number_of_shards_is_open_and_each_is_published_once(rig: FeederRig) -> None:
    run = rig.start(shards=20)

    for _ in range(3):
        rig.feeder.step()

    assert rig.opened(run) == ["00000", "00001"]
    assert rig.messages(Queue.BULK) == 2
    assert rig.ledger.open_images() == 200


def test_small_shards_are_opened_together(rig: FeederRig) -> None:
    run = rig.start(shards=20, lines=10)

    rig.feeder.step()

    assert len(rig.opened(run)) == 13


def test_a_slow_shard_is_cut_before_it_begins(rig: FeederRig) -> None:
    run = rig.start(shards=3)
    rig.feeder.step()
    for name in rig.opened(run):
        rig.finish(run, name, images_per_s=1.0)

    for _ in range(2):
        rig.feeder.step()

    assert rig.opened(run) == ["00002.0.20", "00002.20.20"]
    assert rig.runs.find(run.run_id).shards == 7


def test_a_run_keeps_to_its_rate(rig: FeederRig) -> None:
    run = rig.start(shards=3, lines=50, images_per_s=10.0)

    rig.feeder.step()
    rig.feeder.step()

    assert rig.opened(run) == ["00000"]
    assert rig.runs.find(run.run_id).next_open_at > rig.ledger.now() + 3


def test_a_tenants_quota_holds_for_runs_and_a_shard_beyond_it_passes_alone(
    rig: FeederRig,
) -> None:
    Tenants(rig.ledger, rig.publisher).set("default", max_open_images=60)
    run = rig.start(shards=3)

    rig.feeder.step()

    assert rig.opened(run) == ["00000"]

    rig.finish(run, "00000")
    rig.feeder.step()

    assert rig.opened(run) == ["00001"]
    Tenants(rig.ledger, rig.publisher).reset("default")
    rig.client.delete(rig.ledger.keys.tenants)


def test_a_paused_run_is_not_fed(rig: FeederRig) -> None:
    run = rig.start(shards=3)
    rig.runs.steer(run.run_id, "pause")

    rig.feeder.step()

    assert rig.opened(run) == []


def test_a_cancelled_run_loses_its_jobs_and_keeps_its_shards(rig: FeederRig) -> None:
    run = rig.start(shards=3)
    rig.feeder.step()
    [first, *_] = rig.opened(run)
    lines = rig.runs.opened(run.run_id)[first]
    rig.runs.steer(run.run_id, "cancel")

    rig.feeder.step()

    job = shard_of(run.run_id, first, lines, tenant=run.tenant, epoch=0).job_id
    assert rig.ledger.state(job) == "cancelled"
    assert rig.runs.count_shards(run.run_id) == (3, 0)
    assert rig.runs.find(run.run_id).state == "finishing"
    end = end_of(run, epoch=0)
    assert rig.ledger.state(end.job_id) == "pending"


def test_an_expired_run_ends(rig: FeederRig) -> None:
    run = rig.start(shards=3, expires_at="2020-01-01T00:00:00Z")

    for _ in range(2):
        rig.feeder.step()

    assert rig.runs.find(run.run_id).ends_as == "expired"


def test_the_end_begins_when_every_shard_is_done(rig: FeederRig) -> None:
    run = rig.start(shards=2)
    rig.feeder.step()
    for name in rig.opened(run):
        rig.finish(run, name)

    rig.feeder.step()

    assert rig.runs.find(run.run_id).state == "finishing"
    assert rig.messages(Queue.CONTROL) == 1


def test_a_plan_whose_client_died_and_a_shard_whose_record_was_lost_are_opened_again(
    rig: FeederRig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(feeder_module, "LOOK_EVERY_S", 0.0)
    unplanned = sample_run()
    rig.runs.open(unplanned)
    run = rig.start(shards=1)
    rig.feeder.step()
    [(name, lines)] = rig.runs.opened(run.run_id).items()
    job = shard_of(run.run_id, name, lines, tenant=run.tenant, epoch=0).job_id
    rig.client.delete(rig.ledger.keys.job(job))

    rig.feeder.step()

    plan = plan_of(unplanned.run_id, tenant=unplanned.tenant, epoch=0)
    assert rig.ledger.state(plan.job_id) == "pending"
    assert (rig.ledger.state(job), rig.opened(run)) == ("pending", [name])


def test_a_shard_that_somebody_cancelled_is_failed_and_does_not_hold_up_its_run(
    rig: FeederRig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(feeder_module, "LOOK_EVERY_S", 0.0)
    run = rig.start(shards=1)
    rig.feeder.step()
    [(name, lines)] = rig.runs.opened(run.run_id).items()
    rig.ledger.cancel(shard_of(run.run_id, name, lines, tenant=run.tenant, epoch=0).job_id)

    rig.feeder.step()

    now = rig.runs.find(run.run_id)
    assert (now.failed, now.errors, now.state) == (100, {"job_cancelled": 100}, "finishing")
