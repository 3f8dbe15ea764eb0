"""Deadlines are the ledger's: producers and workers whose clocks are wrong share them."""

import asyncio
import time
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from labelyard import AsyncClient, Client, ClientSettings, lifetimes, submission
from labelyard.ledger import Ledger, connect
from labelyard.ledger import completion as waiting_module
from labelyard.ledger import records as ledger_records
from labelyard.messages import Job, Result
from labelyard.queues import Queue
from labelyard.testing import sample_result
from labelyard_worker.jobs import classify_job as job_module
from labelyard_worker.jobs.cancellation import Token
from labelyard_worker.jobs.work import ReceivedMessage
from tests.integration.jobs.job_rig import JobRig, rig_settings

HOUR_S = 3600.0
REAL_TIME = time.time
IMAGES, LABELS = ["s3://photos/cat.jpg"], ["cat", "dog"]


@pytest.fixture(params=[-HOUR_S, HOUR_S], ids=["an hour behind", "an hour ahead"])
def offset_s(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> float:
    """Shift this process's clock; Redis, another process, keeps the true one."""
    offset_s = float(request.param)

    class Shifted(datetime):
        @classmethod
        def now(cls, tz: Any = None) -> Any:
            return datetime.fromtimestamp(REAL_TIME() + offset_s, tz)

    monkeypatch.setattr(time, "time", lambda: REAL_TIME() + offset_s)
    for module in (submission, lifetimes, ledger_records, waiting_module, job_module):
        if hasattr(module, "datetime"):
            monkeypatch.setattr(module, "datetime", Shifted)
    return offset_s


@pytest.fixture
def settings(broker_url: str, ledger_url: str) -> ClientSettings:
    return ClientSettings(broker_url=broker_url, ledger_url=ledger_url, namespace="test")


@pytest.fixture
def client(settings: ClientSettings, offset_s: float) -> Iterator[Client]:
    assert offset_s
    with Client(settings) as client:
        yield client


@pytest.fixture
def rig(ledger_url: str, offset_s: float) -> Iterator[JobRig]:
    assert offset_s
    with closing(JobRig(rig_settings(ledger_url))) as made:
        yield made


def to_live_s(client: Client, job_id: str) -> float:
    """Return the seconds that the job may live by the ledger's clock."""
    expires_at = client.status(job_id).expires_at
    assert expires_at is not None
    return expires_at - client._ledger.now()


def test_a_relative_expiry_counts_by_the_ledgers_clock(client: Client) -> None:
    alone = client.submit(IMAGES, LABELS, expires_in_s=60)
    [together] = client.submit_many([client.prepare(IMAGES, LABELS, expires_in_s=60)])

    assert 50 < to_live_s(client, alone.id) <= 60
    assert 50 < to_live_s(client, together.id) <= 60


def test_the_message_carries_the_expiry_of_the_record(client: Client) -> None:
    job = client.submit(IMAGES, LABELS, expires_in_s=60)

    record = client.status(job.id)

    expires_at = record.job().expires_at
    assert expires_at is not None
    assert expires_at.timestamp() == record.expires_at


def test_a_prepared_job_that_is_submitted_twice_is_the_same_job(client: Client) -> None:
    job = client.prepare(IMAGES, LABELS, expires_in_s=60)

    handles = [client.submit_job(job), client.submit_job(job)]

    assert [handle.is_new for handle in handles] == [True, False]


def test_a_job_that_is_made_again_with_an_instant_keeps_it(client: Client) -> None:
    instant = datetime(2100, 1, 1, tzinfo=UTC)
    client.prepare(IMAGES, LABELS, idempotency_key="order-1", expires_in_s=60)

    job = client.submit(IMAGES, LABELS, idempotency_key="order-1", expires_at=instant)

    assert client.status(job.id).expires_at == instant.timestamp()


@pytest.mark.usefixtures("offset_s")
def test_the_asynchronous_client_counts_by_the_ledgers_clock(settings: ClientSettings) -> None:
    async def scene() -> list[str]:
        async with AsyncClient(settings) as client:
            alone = await client.submit(IMAGES, LABELS, expires_in_s=60)
            prepared = client.prepare(IMAGES, LABELS, expires_in_s=60)
            [together] = await client.submit_many([prepared])
        return [alone.id, together.id]

    job_ids = asyncio.run(scene())

    with Client(settings) as client:
        assert all(50 < to_live_s(client, job_id) <= 60 for job_id in job_ids)


def test_a_waiting_client_does_not_expire_a_job_whose_time_is_not_over(client: Client) -> None:
    job = client.submit(IMAGES, LABELS, expires_in_s=60)

    [glance] = client._ledger.glance_many([job.id])

    assert glance is not None
    assert glance.expires_at is not None
    assert 50 < glance.expires_at - time.time() <= 60


def test_a_worker_runs_a_job_whose_time_is_not_over(rig: JobRig) -> None:
    expires_at = datetime.fromtimestamp(rig.ledger.now(), UTC) + timedelta(seconds=60)
    job = rig.submit(expires_at=expires_at)

    def look_at_token(job: Job, queue: str, token: Token) -> Result:
        token.check()
        return sample_result(job=job)

    rig.receive(ReceivedMessage(job.model_dump_json(), Queue.BULK), look_at_token)

    assert rig.record(job.job_id).state == "succeeded"


def test_a_worker_stops_a_job_whose_time_is_over(rig: JobRig) -> None:
    expires_at = datetime.fromtimestamp(rig.ledger.now(), UTC) + timedelta(seconds=0.3)
    job = rig.submit(expires_at=expires_at)

    def go_on(job: Job, queue: str, token: Token) -> Result:
        until = time.monotonic() + 5
        while time.monotonic() < until:
            token.check()
            time.sleep(0.02)
        return sample_result(job=job)

    for _ in range(2):  # a moment too early for the ledger, the job is looked at again
        rig.receive(ReceivedMessage(job.model_dump_json(), Queue.BULK), go_on)

    assert rig.record(job.job_id).state == "expired"


def test_a_job_that_a_worker_gave_up_too_early_goes_back_and_is_not_left_running(
    ledger_url: str,
) -> None:
    from labelyard.errors import JobExpiredError

    with closing(JobRig(rig_settings(ledger_url))) as rig:
        job = rig.submit(expires_at=datetime(2100, 1, 1, tzinfo=UTC))

        def give_up(job: Job) -> Result:
            raise JobExpiredError(job.job_id)

        rig.run(job, give_up)

        assert rig.record(job.job_id).state == "pending"
        assert rig.due_in_s(job) is not None


def test_the_clock_is_asked_once_and_counted_on(settings: ClientSettings) -> None:
    with closing(connect(settings)) as connection:
        ledger = Ledger(connection, settings)
        first = ledger.now()
        before = connection.info("commandstats")["cmdstat_time"]["calls"]

        second = ledger.now()

        after = connection.info("commandstats")["cmdstat_time"]["calls"]
        assert (second >= first, after) == (True, before)
