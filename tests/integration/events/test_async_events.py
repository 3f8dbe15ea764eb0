"""The asynchronous consumer does what the one for threads does, on a real Valkey."""

import asyncio
from collections.abc import Iterator
from contextlib import closing
from typing import Any

import pytest

from labelyard import AsyncClient
from labelyard.errors import EventGroupNotFoundError
from labelyard.events import AsyncEvent, AsyncEventGap
from labelyard.ledger import Ledger, connect
from labelyard.settings import ClientSettings
from tests.integration.events.test_event_stream import NOW, OLDEST, finish_many, trim_to


@pytest.fixture
def settings(ledger_url: str, broker_url: str) -> ClientSettings:
    return ClientSettings(ledger_url=ledger_url, broker_url=broker_url, namespace="test")


@pytest.fixture
def ledger(settings: ClientSettings) -> Iterator[Ledger]:
    with closing(connect(settings)) as client:
        yield Ledger(client, settings)


async def ids(stream: Any) -> list[str]:
    return [
        item.id if isinstance(item, AsyncEvent) else f"gap of {item.lost}" async for item in stream
    ]


def test_events_gaps_and_acknowledgements(settings: ClientSettings, ledger: Ledger) -> None:
    async def scenario() -> None:
        async with AsyncClient(settings) as client:
            finish_many(ledger, 3)
            assert await ids(client.events("indexer", **OLDEST)) == ["job-1", "job-2", "job-3"]
            finish_many(ledger, 5, first=4)
            trim_to(ledger, 2)
            held = client.events("indexer", consumer="a", ack="manual", **NOW)
            items = [item async for item in held]
            assert isinstance(items[0], AsyncEventGap)
            assert items[0].lost == 3
            for item in items[:2]:
                await item.ack()
            assert await ids(held) == ["job-8"]
            ledger.client.flushdb()
            finish_many(ledger, 1, first=9)
            assert await ids(held) == ["gap of None", "job-9"]
            await client.event_groups.delete("indexer")
            with pytest.raises(EventGroupNotFoundError):
                await ids(held)
            assert len(await client.recent_events()) == 1

    asyncio.run(scenario())


def test_an_event_whose_handling_failed_comes_again(
    settings: ClientSettings, ledger: Ledger
) -> None:
    finish_many(ledger, 2)

    async def scenario() -> list[str]:
        async with AsyncClient(settings) as client:
            stream = client.events("indexer", **OLDEST)

            async def fail() -> None:
                async for _ in stream:
                    raise OSError("the index is away")

            with pytest.raises(OSError, match="away"):
                await fail()
            return await ids(stream)

    assert asyncio.run(scenario()) == ["job-1", "job-2"]


def test_consumers_that_wait_get_an_event_as_it_comes_and_share_one_loop(
    settings: ClientSettings, ledger: Ledger
) -> None:
    async def consume(client: AsyncClient, group: str) -> str:
        async for event in client.events(group):
            assert isinstance(event, AsyncEvent)
            return event.id
        return ""

    async def scenario() -> list[str]:
        async with AsyncClient(settings) as client:
            for n in range(20):
                await client.event_groups.create(f"group-{n}")
            tasks = [asyncio.create_task(consume(client, f"group-{n}")) for n in range(20)]
            await asyncio.to_thread(finish_many, ledger, 1)
            return await asyncio.gather(*tasks)

    assert asyncio.run(scenario()) == ["job-1"] * 20


def test_a_cancelled_consumer_leaves_its_event_to_others(
    settings: ClientSettings, ledger: Ledger
) -> None:
    finish_many(ledger, 1)

    async def scenario() -> list[str]:
        async with AsyncClient(settings) as client:
            got = asyncio.Event()

            async def consume() -> None:
                async for _ in client.events("indexer", start="oldest"):
                    got.set()
                    await asyncio.Event().wait()

            task = asyncio.create_task(consume())
            await got.wait()
            task.cancel()
            await asyncio.wait([task])
            return await ids(client.events("indexer", claim_after_s=0.1, timeout_s=1.0))

    assert asyncio.run(scenario()) == ["job-1"]
