"""AsyncClient on a real Valkey: the same promises as Client, without blocking the loop."""

import asyncio
import inspect
import time
from collections.abc import Callable, Coroutine
from functools import partial
from statistics import median
from typing import Any

import pytest

from labelyard import AsyncClient, Client, ClientSettings
from labelyard.errors import (
    BrokerUnavailableError,
    JobCancelledError,
    JobExpiredError,
    JobNotFoundError,
    LedgerUnavailableError,
    QueueFullError,
    ResultTimeoutError,
)
from labelyard.ledger import Ledger, connect, listener
from labelyard.testing import sample_result
from labelyard_worker.local.servers import ValkeyServer
from tests.support.waiting import wait_until

IMAGES = ["s3://photos/cat.jpg", "s3://photos/dog.jpg"]
LABELS = ["cat", "dog"]
Scenario = Callable[[AsyncClient], Coroutine[Any, Any, None]]


@pytest.fixture
def client_settings(broker_url: str, ledger_url: str) -> ClientSettings:
    return ClientSettings(broker_url=broker_url, ledger_url=ledger_url)


def play(scenario: Scenario, used: ClientSettings) -> None:
    """Run *scenario* in a loop of its own."""

    async def run() -> None:
        async with AsyncClient(used) as client:
            await scenario(client)

    asyncio.run(run())


def is_listened_to(ledger: Ledger, channel: str) -> bool:
    return bool(ledger.client.pubsub_numsub(channel)[0][1])


def finish(used: ClientSettings, *job_ids: str) -> float:
    """Do the worker's part, from another thread; returns when the last one ended."""
    with connect(used) as connection:
        ledger = Ledger(connection, used)
        for job_id in job_ids:
            channel = ledger.keys.done_channel(job_id)
            wait_until(partial(is_listened_to, ledger, channel))
            record = ledger.read(job_id)
            assert record is not None
            ledger.finish(job_id, sample_result(job=record.job()))
    return time.perf_counter()


def test_it_has_the_methods_of_the_client_with_the_same_arguments() -> None:
    without_twin = {"open_images", "totals", "queue_lengths"}
    for name, method in inspect.getmembers(Client, inspect.isfunction):
        if not name.startswith("_") and name not in without_twin:
            twin = inspect.signature(getattr(AsyncClient, name))
            assert list(twin.parameters) == list(inspect.signature(method).parameters), name


def test_a_job_is_submitted_and_its_result_comes_by_call(
    client_settings: ClientSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(listener, "LOOK_EVERY_S", 600.0)

    async def scenario(client: AsyncClient) -> None:
        delays_s = []
        for _ in range(10):
            job = await client.submit(IMAGES, LABELS)
            end = asyncio.create_task(asyncio.to_thread(finish, client_settings, job.id))
            result = await job.result(timeout_s=30)
            delays_s.append(time.perf_counter() - await end)
            assert (job.is_new, job.is_published, await job.state()) == (True, True, "succeeded")
            assert [image.id for image in result.images] == IMAGES
        assert median(delays_s) < 0.5

    play(scenario, client_settings)


def test_many_waits_share_the_loop(client_settings: ClientSettings) -> None:
    async def scenario(client: AsyncClient) -> None:
        handles = await client.submit_many([client.prepare(IMAGES, LABELS) for _ in range(50)])
        ids = [handle.id for handle in handles]
        end = asyncio.create_task(asyncio.to_thread(finish, client_settings, *ids))
        results = await asyncio.gather(*(handle.result(timeout_s=10) for handle in handles))
        await end
        records = await client.wait(handles, timeout_s=0)

        assert [result.job_id for result in results] == ids
        assert [record.job_id for record in records] == ids

    play(scenario, client_settings)


def test_jobs_are_yielded_as_they_end(client_settings: ClientSettings) -> None:
    async def scenario(client: AsyncClient) -> None:
        handles = await client.submit_many([client.prepare(IMAGES, LABELS) for _ in range(20)])
        ids = [handle.id for handle in handles]
        end = asyncio.create_task(asyncio.to_thread(finish, client_settings, *reversed(ids)))
        ended = [record.job_id async for record in client.as_completed(handles, timeout_s=10)]
        await end

        assert sorted(ended) == sorted(ids)

    play(scenario, client_settings)


def test_final_states_without_a_result_are_errors(client_settings: ClientSettings) -> None:
    async def scenario(client: AsyncClient) -> None:
        cancelled = await client.submit(IMAGES, LABELS)
        expired = await client.submit(IMAGES, LABELS, expires_in_s=0.1)
        stuck = await client.submit(IMAGES, LABELS)

        assert await cancelled.cancel()
        with pytest.raises(JobCancelledError):
            await cancelled.result()
        with pytest.raises(JobExpiredError):
            await expired.result(timeout_s=5)
        with pytest.raises(ResultTimeoutError):
            await stuck.result(timeout_s=0.05)
        with pytest.raises(JobNotFoundError):
            await client.result("nothing")
        with pytest.raises(JobNotFoundError):
            await client.cancel("nothing")

    play(scenario, client_settings)


def test_a_full_queue_refuses(client_settings: ClientSettings) -> None:
    async def scenario(client: AsyncClient) -> None:
        jobs = [client.prepare(IMAGES, LABELS) for _ in range(2)]
        with pytest.raises(QueueFullError, match="1 jobs were accepted before"):
            await client.submit_many(jobs)
        with pytest.raises(QueueFullError):
            await client.submit_job(jobs[1])

    play(scenario, client_settings.model_copy(update={"max_queued_images": 2}))


def test_the_same_key_names_the_same_job_for_both_clients(client_settings: ClientSettings) -> None:
    with Client(client_settings) as blocking:
        first = blocking.submit(IMAGES, LABELS, idempotency_key="order-1")

    async def scenario(client: AsyncClient) -> None:
        second = await client.submit(IMAGES, LABELS, idempotency_key="order-1")
        assert (second.id, second.is_new) == (first.id, False)

    play(scenario, client_settings)


def test_servers_that_are_away_mean_what_they_mean_to_the_client(
    client_settings: ClientSettings, own_valkey: ValkeyServer
) -> None:
    own_valkey.kill()
    away = {"publish_timeout_s": 0.2}

    async def without_broker(client: AsyncClient) -> None:
        job = await client.submit(IMAGES, LABELS)
        assert (job.is_published, await job.state()) == (False, "pending")
        with pytest.raises(BrokerUnavailableError):
            await client.ping()

    async def without_ledger(client: AsyncClient) -> None:
        with pytest.raises(LedgerUnavailableError):
            await client.submit(IMAGES, LABELS)
        with pytest.raises(LedgerUnavailableError):
            await client.ping()

    play(
        without_broker,
        client_settings.model_copy(update={"broker_url": own_valkey.url, **away}),
    )
    play(without_ledger, client_settings.model_copy(update={"ledger_url": own_valkey.url}))


def test_the_loop_runs_on_while_the_broker_does_not_answer(
    client_settings: ClientSettings, own_valkey: ValkeyServer
) -> None:
    own_valkey.kill()

    async def scenario(client: AsyncClient) -> None:
        ticks = 0
        submit = asyncio.create_task(client.submit(IMAGES, LABELS))
        while not submit.done():
            await asyncio.sleep(0.01)
            ticks += 1
        assert ticks > 10

    broken = {"broker_url": own_valkey.url, "publish_timeout_s": 0.4}
    play(scenario, client_settings.model_copy(update=broken))
