"""``client.workers()``: live and lost workers, as their presence threads write them."""

import asyncio
import json
from collections.abc import Iterator
from contextlib import closing, contextmanager

import pytest

from labelyard import AsyncClient, Client, WorkerInfo
from labelyard.errors import InvalidMessageError
from labelyard.ledger import Ledger, connect
from labelyard.ledger.maintenance import MaintenanceLedger
from labelyard.settings import ClientSettings
from labelyard.testing import sample_job
from labelyard_worker.jobs.cancellation import RunningJobs, Token
from labelyard_worker.maintenance import presence as presence_thread
from labelyard_worker.maintenance.presence import Presence
from tests.support.waiting import wait_until

pytestmark = pytest.mark.usefixtures("service_environment")

GPU = {
    "host": "gpu-1",
    "device": "cuda:0",
    "device_name": "NVIDIA H100",
    "device_memory_bytes": 85_000_000_000,
    "checkpoint": "google/siglip2-base-patch16-224",
    "state": "ready",
    "queues": ["interactive", "bulk"],
    "open_breakers": ["fetch pets"],
    "open_breaker_count": 1,
}


@pytest.fixture
def ledger() -> Iterator[Ledger]:
    """The worker's side."""
    settings = ClientSettings()
    with closing(connect(settings)) as connection:
        yield Ledger(connection, settings)


@pytest.fixture
def client() -> Iterator[Client]:
    with Client() as one:
        yield one


@contextmanager
def presence(ledger: Ledger, name: str, *running: str) -> Iterator[dict[str, object]]:
    """Run a worker's presence while the block runs; its details may be changed."""
    details: dict[str, object] = {**GPU}
    jobs = RunningJobs()
    one = Presence(
        ledger,
        worker=name,
        visibility_timeout_s=1.0,
        running=jobs,
        describe=lambda: json.dumps(details),
    )
    tokens = [Token(job_id, timeout_s=60, expires_in_s=None) for job_id in running]
    with jobs.holding(tokens[0]) if tokens else closing(one):
        one.start()
        try:
            yield details
        finally:
            one.close()


def renew(ledger: Ledger, worker: str, details: str = json.dumps(GPU)) -> None:
    """Give one sign of life."""
    MaintenanceLedger(ledger).renew_presence(worker, [], ttl_s=60, details=details)


def test_a_live_worker_is_listed_with_its_details_and_running_jobs(
    client: Client, ledger: Ledger
) -> None:
    with presence(ledger, "w1", "job-a"):
        wait_until(client.workers)

        [worker] = client.workers()

    assert (worker.name, worker.running, worker.state) == ("w1", ("job-a",), "ready")
    assert {name: worker.model_dump(mode="json")[name] for name in GPU} == GPU
    assert worker.last_seen_s is not None
    assert 0 <= worker.last_seen_s < 60


def test_a_change_of_a_worker_is_shown_within_its_next_sign_of_life(
    client: Client, ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(presence_thread, "DETAILS_EVERY_S", 3600)
    with presence(ledger, "w1") as details:
        wait_until(client.workers)
        details["state"] = "draining"

        wait_until(lambda: [one.state for one in client.workers()] == ["draining"])


def test_details_that_the_ledger_lost_are_written_again(
    client: Client, ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(presence_thread, "DETAILS_EVERY_S", 0)
    with presence(ledger, "w1"):
        wait_until(client.workers)
        ledger.client.delete(ledger.keys.worker_details("w1"))

        wait_until(lambda: client.workers()[0].state == "ready")


def test_a_worker_that_shut_down_leaves_nothing(client: Client, ledger: Ledger) -> None:
    with presence(ledger, "w1"):
        wait_until(client.workers)

    assert client.workers(lost_within_s=3600) == []
    assert list(ledger.client.scan_iter("*worker*")) == []


def test_a_worker_that_died_is_listed_as_lost_for_as_long_as_is_asked(
    client: Client, ledger: Ledger
) -> None:
    renew(ledger, "dead")
    renew(ledger, "alive")
    ledger.client.delete(ledger.keys.worker("dead"))
    ledger.client.zincrby(ledger.keys.workers, -60, "dead")

    listed = [client.workers(lost_within_s=within_s) for within_s in (0.0, 30.0, 90.0)]

    assert [[one.name for one in workers] for workers in listed] == [
        ["alive"],
        ["alive"],
        ["alive", "dead"],
    ]
    lost = listed[-1][-1]
    assert (lost.state, lost.device_name, round(lost.last_seen_s or 0, -1)) == (
        "lost",
        "NVIDIA H100",
        60,
    )


def test_workers_of_an_earlier_version_are_found_as_leader_or_by_their_job(
    client: Client, ledger: Ledger
) -> None:
    for name in ("leads", "runs"):
        ledger.client.set(ledger.keys.worker(name), '["j"]', ex=60)
    ledger.client.set(ledger.keys.leader, "leads", ex=60)
    job = sample_job()
    ledger.open(job, queue="bulk")  # type: ignore[arg-type]
    ledger.start(job.job_id, worker="runs", quarantine_after=9, dead_after=9)

    assert client.workers() == [
        WorkerInfo(name="leads", running=("j",)),
        WorkerInfo(name="runs", running=("j",)),
    ]


def test_a_leader_that_died_is_not_listed(client: Client, ledger: Ledger) -> None:
    ledger.client.set(ledger.keys.leader, "gone", ex=60)

    assert client.workers() == []


@pytest.mark.parametrize("details", ["", "[]", "7", "{", '{"queues": 7}', "[" * 5000])
def test_unreadable_details_are_unknown(client: Client, ledger: Ledger, details: str) -> None:
    renew(ledger, "w1", details)

    [worker] = client.workers()

    assert (worker.name, worker.state, worker.host) == ("w1", "unknown", "")


def test_details_of_a_later_version_are_read_as_far_as_they_are_known(
    client: Client, ledger: Ledger
) -> None:
    renew(ledger, "w1", json.dumps({**GPU, "name": "x", "state": "resting", "mood": "good"}))

    [worker] = client.workers()

    assert (worker.name, worker.state, worker.host) == ("w1", "unknown", "gpu-1")


def test_a_name_without_a_sign_of_life_for_an_hour_leaves_the_index(ledger: Ledger) -> None:
    renew(ledger, "old")
    ledger.client.zincrby(ledger.keys.workers, -3700, "old")

    renew(ledger, "new")

    assert ledger.client.zrange(ledger.keys.workers, 0, -1) == ["new"]


def test_the_clients_list_the_same_workers(client: Client, ledger: Ledger) -> None:
    renew(ledger, "w1")

    async def ask() -> list[WorkerInfo]:
        async with AsyncClient() as one:
            return await one.workers()

    assert [one.name for one in asyncio.run(ask())] == [one.name for one in client.workers()]


@pytest.mark.parametrize("wrong", [-1.0, float("nan")])
def test_a_time_that_is_none_is_refused(client: Client, wrong: float) -> None:
    with pytest.raises(InvalidMessageError, match="lost_within_s"):
        client.workers(lost_within_s=wrong)
