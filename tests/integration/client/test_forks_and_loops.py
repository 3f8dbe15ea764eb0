"""Clients in a forked child, in several event loops, in threads with a loop each."""

import asyncio
import gc
import os
import signal
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

import pytest

from labelyard import AsyncClient, Client, ClientSettings, lifetimes
from labelyard.errors import JobNotFoundError
from labelyard.ledger import Ledger, connect
from labelyard.testing import sample_result

pytestmark = pytest.mark.filterwarnings("ignore:.*multi-threaded:DeprecationWarning")
CHILD_WITHIN_S = 20.0
IMAGES = ["s3://photos/cat.jpg"]


@pytest.fixture
def client_settings(broker_url: str, ledger_url: str) -> ClientSettings:
    return ClientSettings(broker_url=broker_url, ledger_url=ledger_url)


@pytest.fixture
def worker(client_settings: ClientSettings) -> Iterator[None]:
    """End every job that comes."""
    is_over = threading.Event()
    with connect(client_settings) as connection:
        ledger = Ledger(connection, client_settings)

        def work() -> None:
            while not is_over.wait(0.02):
                for job_id in connection.zrange(ledger.keys.open, 0, -1):  # type: ignore[union-attr]
                    record = ledger.read(job_id)
                    if record is not None:
                        ledger.finish(job_id, sample_result(job=record.job()))

        thread = threading.Thread(target=work)
        thread.start()
        yield
        is_over.set()
        thread.join()


def in_child(act: Callable[[], None]) -> int:
    """Run *act* in a forked child; returns its exit code, or a signal's for one that hangs."""
    child = os.fork()
    if child == 0:
        code = 1
        try:
            act()
            code = 0
        finally:
            os._exit(code)
    deadline = time.monotonic() + CHILD_WITHIN_S
    while time.monotonic() < deadline:
        ended, status = os.waitpid(child, os.WNOHANG)
        if ended:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.01)  # waitpid knows no time limit
    os.kill(child, signal.SIGKILL)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def use(client: Client) -> None:
    result = client.classify(IMAGES, ["cat"], timeout_s=15, expires_in_s=60)
    assert result.status == "succeeded"
    client.queue_lengths()
    client.label_sets.names()


@pytest.mark.usefixtures("worker")
def test_a_child_uses_a_client_that_its_parent_has_used(client_settings: ClientSettings) -> None:
    with Client(client_settings) as client:
        use(client)

        assert in_child(lambda: use(client)) == 0
        use(client)


@pytest.mark.usefixtures("worker")
def test_a_child_uses_a_client_that_is_busy_in_other_threads(
    client_settings: ClientSettings,
) -> None:
    is_over = threading.Event()

    def keep_busy(client: Client) -> None:
        while not is_over.is_set():
            use(client)

    with Client(client_settings) as client, ThreadPoolExecutor(4) as pool:
        busy = [pool.submit(keep_busy, client) for _ in range(4)]

        codes = [in_child(lambda: use(client)) for _ in range(5)]

        is_over.set()
        for one in busy:
            one.result()
    assert codes == [0] * 5


def locks_of(client: Client) -> list[threading.Lock]:
    pool = client._ledger.client.connection_pool
    return [
        client._publisher._lock,
        client._listener._lock,
        client.label_sets._lock,
        client._ledger.sightings._lock,
        lifetimes.LIFETIMES._lock,
        pool._lock,
        pool._fork_lock,  # type: ignore[list-item]
    ]


@pytest.mark.usefixtures("worker")
@pytest.mark.parametrize("place", range(7))
def test_a_lock_that_another_thread_holds_at_the_fork_does_not_hang_the_child(
    client_settings: ClientSettings, place: int
) -> None:
    with Client(client_settings) as client:
        use(client)
        lock = locks_of(client)[place]
        is_held, may_end = threading.Event(), threading.Event()

        def hold() -> None:
            with lock:
                is_held.set()
                may_end.wait()

        thread = threading.Thread(target=hold)
        thread.start()
        is_held.wait()

        code = in_child(lambda: use(client))

        may_end.set()
        thread.join()
        use(client)
    assert code == 0


@pytest.mark.usefixtures("worker")
def test_a_child_uses_an_asynchronous_client_of_its_parents_loop(
    client_settings: ClientSettings,
) -> None:
    async def classify(client: AsyncClient) -> str:
        return (await client.classify(IMAGES, ["cat"], timeout_s=15)).status

    async def scenario() -> tuple[int, str]:
        async with AsyncClient(client_settings) as client:
            await classify(client)

            def child() -> None:
                asyncio._set_running_loop(None)  # the parent's, which this test runs in
                assert asyncio.run(classify(client)) == "succeeded"

            return in_child(child), await classify(client)

    assert asyncio.run(scenario()) == (0, "succeeded")


@pytest.mark.usefixtures("worker")
def test_an_asynchronous_client_serves_one_event_loop_after_another(
    client_settings: ClientSettings,
) -> None:
    client = AsyncClient(client_settings)

    async def once() -> str:
        await client.label_sets.names()
        return (await client.classify(IMAGES, ["cat"], timeout_s=15)).status

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        outcomes = [asyncio.run(once()) for _ in range(4)]
        asyncio.run(client.close())
        gc.collect()

    assert outcomes == ["succeeded"] * 4


@pytest.mark.usefixtures("worker")
def test_an_asynchronous_client_serves_a_loop_in_each_thread(
    client_settings: ClientSettings,
) -> None:
    client = AsyncClient(client_settings)

    async def some() -> list[str]:
        results = (client.classify(IMAGES, ["cat"], timeout_s=15) for _ in range(5))
        return [result.status for result in await asyncio.gather(*results)]

    with ThreadPoolExecutor(8) as pool:
        outcomes = list(pool.map(lambda _: asyncio.run(some()), range(8)))
    asyncio.run(client.close())

    assert outcomes == [["succeeded"] * 5] * 8


@pytest.mark.usefixtures("worker")
def test_closing_ends_what_belongs_to_the_loop_and_the_client_can_be_used_again(
    client_settings: ClientSettings,
) -> None:
    async def scenario() -> None:
        client = AsyncClient(client_settings)
        for _ in range(2):
            await client.classify(IMAGES, ["cat"], timeout_s=15)
            await client.close()
        assert len(asyncio.all_tasks()) == 1

    asyncio.run(scenario())


def test_the_connections_of_a_loop_close_with_it(client_settings: ClientSettings) -> None:
    with connect(client_settings) as connection:
        clients = [AsyncClient(client_settings) for _ in range(5)]
        before = len(connection.client_list())  # type: ignore[arg-type]

        async def use_all() -> None:
            for client in clients:
                with suppress(JobNotFoundError):
                    await client.status("nobody")

        asyncio.run(use_all())

        assert len(connection.client_list()) == before  # type: ignore[arg-type]
