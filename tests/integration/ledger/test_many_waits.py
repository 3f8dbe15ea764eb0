"""A thousand waits on one client: one listener, few connections, and nobody is forgotten."""

import asyncio
import threading
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from labelyard import AsyncClient, Client, ClientSettings
from labelyard.errors import JobExpiredError, LabelyardError, ResultTimeoutError
from labelyard.ledger import Ledger, connect, listener, listener_thread
from labelyard.redis_connections import POOL_SIZE
from labelyard.testing import sample_result
from labelyard_worker.local.servers import ValkeyServer
from tests.support.waiting import wait_until

WAITS = 1000
# The listener has a connection for announcements and one for looks; the test has its own.
MAX_CONNECTIONS = POOL_SIZE + 8
LISTENER = "labelyard-listener"


@pytest.fixture
def client_settings(broker_url: str, ledger_url: str) -> ClientSettings:
    return ClientSettings(broker_url=broker_url, ledger_url=ledger_url)


@pytest.fixture
def ledger(client_settings: ClientSettings) -> Iterator[Ledger]:
    """The worker's side."""
    with connect(client_settings) as connection:
        yield Ledger(connection, client_settings)


def submitted(client: Client, count: int) -> list[str]:
    jobs = [client.prepare([f"s3://photos/{n}.jpg"], ["cat"]) for n in range(count)]
    return [handle.id for handle in client.submit_many(jobs)]


def finish(ledger: Ledger, job_ids: list[str]) -> None:
    for job_id in job_ids:
        record = ledger.read(job_id)
        assert record is not None
        ledger.finish(job_id, sample_result(job=record.job()))


def channels(ledger: Ledger) -> int:
    names: Any = ledger.client.pubsub_channels(ledger.keys.done_channel("*"))
    return len(names)


def connections(ledger: Ledger) -> int:
    figures: Any = ledger.client.info("clients")
    return int(figures["connected_clients"])


def listeners() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == LISTENER]


def outcome(client: Client, job_id: str, timeout_s: float) -> str:
    try:
        return client.result(job_id, timeout_s=timeout_s).status
    except LabelyardError as error:
        return error.code


async def outcome_async(client: AsyncClient, job_id: str, timeout_s: float) -> str:
    try:
        return (await client.result(job_id, timeout_s=timeout_s)).status
    except LabelyardError as error:
        return error.code


def test_a_thousand_threads_wait_on_one_client(
    client_settings: ClientSettings, ledger: Ledger
) -> None:
    with Client(client_settings) as client, ThreadPoolExecutor(WAITS) as pool:
        job_ids = submitted(client, WAITS)
        waits = [pool.submit(outcome, client, job_id, 60) for job_id in job_ids]
        wait_until(lambda: channels(ledger) == WAITS, within_s=30)
        used, heard = connections(ledger), len(listeners())

        finish(ledger, job_ids)

        assert Counter(wait.result() for wait in waits) == {"succeeded": WAITS}
        assert used <= MAX_CONNECTIONS
        assert heard == 1


def test_a_thousand_tasks_wait_on_one_client(
    client_settings: ClientSettings, ledger: Ledger
) -> None:
    async def scenario() -> tuple[list[str], int]:
        async with AsyncClient(client_settings) as client:
            jobs = [client.prepare([f"s3://photos/{n}.jpg"], ["cat"]) for n in range(WAITS)]
            job_ids = [handle.id for handle in await client.submit_many(jobs)]
            async with asyncio.TaskGroup() as tasks:
                waits = [tasks.create_task(outcome_async(client, job_id, 60)) for job_id in job_ids]
                await asyncio.to_thread(wait_until, lambda: channels(ledger) == WAITS, within_s=30)
                used = connections(ledger)
                await asyncio.to_thread(finish, ledger, job_ids)
            return [wait.result() for wait in waits], used

    outcomes, used = asyncio.run(scenario())

    assert Counter(outcomes) == {"succeeded": WAITS}
    assert used <= MAX_CONNECTIONS


def test_waits_for_jobs_that_nobody_takes_time_out_one_and_all(
    client_settings: ClientSettings,
) -> None:
    async def scenario(job_ids: list[str]) -> list[str]:
        async with AsyncClient(client_settings) as client:
            return await asyncio.gather(*(outcome_async(client, one, 1) for one in job_ids))

    with Client(client_settings) as client, ThreadPoolExecutor(150) as pool:
        job_ids = submitted(client, 150)
        outcomes = list(pool.map(lambda job_id: outcome(client, job_id, 1), job_ids))

    assert Counter(outcomes) == Counter(asyncio.run(scenario(job_ids))) == {"result_timeout": 150}


def test_waits_for_one_job_are_all_notified_and_its_channel_is_left(
    client_settings: ClientSettings, ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(listener, "LOOK_EVERY_S", 600.0)
    with Client(client_settings) as client, ThreadPoolExecutor(20) as pool:
        job_id, other = submitted(client, 2)
        open_wait = pool.submit(outcome, client, other, 60)
        waits = [pool.submit(outcome, client, job_id, 60) for _ in range(10)]
        wait_until(lambda: channels(ledger) == 2)

        finish(ledger, [job_id])

        assert [wait.result() for wait in waits] == ["succeeded"] * 10
        wait_until(lambda: channels(ledger) == 1)
        finish(ledger, [other])
        assert open_wait.result() == "succeeded"


def test_a_job_that_ends_between_the_look_and_the_subscription_is_noticed(
    client_settings: ClientSettings, ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The listener looks once when a subscription is confirmed."""
    monkeypatch.setattr(listener, "LOOK_EVERY_S", 600.0)
    with Client(client_settings) as client:
        job_ids = submitted(client, 1)
        notified = threading.Event()
        finish(ledger, job_ids)

        with client._listener.notifying(job_ids, lambda _: notified.set()):
            assert notified.wait(10)


def test_waits_outlive_the_ledgers_restart(own_valkey: ValkeyServer) -> None:
    used = ClientSettings(broker_url=own_valkey.url_of(0), ledger_url=own_valkey.url_of(1))
    with (
        Client(used) as client,
        connect(used) as connection,
        ThreadPoolExecutor(50) as pool,
    ):
        ledger = Ledger(connection, used)
        job_ids = submitted(client, 50)
        waits = [pool.submit(outcome, client, job_id, 60) for job_id in job_ids]
        wait_until(lambda: channels(ledger) == 50)

        own_valkey.kill()
        own_valkey.start()
        wait_until(lambda: channels(ledger) == 50, within_s=20)
        finish(ledger, job_ids)

        assert Counter(wait.result() for wait in waits) == {"succeeded": 50}


def test_a_job_expires_by_the_ledgers_clock(
    client_settings: ClientSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A wait on a machine whose clock is an hour behind learns of it in time."""
    monkeypatch.setattr(listener, "LOOK_EVERY_S", 600.0)
    real = listener.time.time
    with Client(client_settings) as client:
        job = client.submit(["s3://photos/cat.jpg"], ["cat"], expires_in_s=0.5)
        monkeypatch.setattr(listener.time, "time", lambda: real() - 3600)

        with pytest.raises(JobExpiredError):
            job.result(timeout_s=20)


def test_the_listener_ends_when_nobody_waits_and_starts_again(
    client_settings: ClientSettings, ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in (listener, listener_thread):
        monkeypatch.setattr(module, "IDLE_S", 0.2)
    with Client(client_settings) as client:
        job_id, other = submitted(client, 2)
        with pytest.raises(ResultTimeoutError):
            client.result(job_id, timeout_s=0.1)
        wait_until(lambda: not listeners())

        with ThreadPoolExecutor(1) as pool:
            wait = pool.submit(outcome, client, other, 30)
            wait_until(lambda: channels(ledger) == 1)
            finish(ledger, [other])

            assert wait.result() == "succeeded"


def test_a_listener_that_failed_costs_a_look_and_no_result(
    client_settings: ClientSettings, ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("a fault of the listener")

    monkeypatch.setattr(listener.Listener, "add", fail)
    monkeypatch.setattr("labelyard.ledger.completion.LOOK_ALONE_S", 0.3)
    with Client(client_settings) as client, ThreadPoolExecutor(1) as pool:
        (job_id,) = submitted(client, 1)
        wait = pool.submit(outcome, client, job_id, 40)
        wait_until(listeners)
        finish(ledger, [job_id])

        assert wait.result(timeout=20) == "succeeded"
