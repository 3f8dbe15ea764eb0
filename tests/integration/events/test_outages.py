"""Consumers of events live through a restart of the ledger, with and without its data."""

import threading
from collections.abc import Iterator
from contextlib import closing

import pytest
import redis

from labelyard import Client
from labelyard.errors import LedgerUnavailableError
from labelyard.events import Event, EventGap
from labelyard.ledger import Ledger, connect
from labelyard.settings import ClientSettings
from labelyard_worker.local.servers import ValkeyServer
from tests.integration.events.test_event_stream import finish, ids
from tests.support.waiting import wait_until


class Consumer:
    """A consumer in a thread, and what it got."""

    def __init__(self, settings: ClientSettings) -> None:
        self.got: list[Event | EventGap] = []
        self._client = Client(settings)
        self._thread = threading.Thread(target=self._consume)
        self._thread.start()

    def _consume(self) -> None:
        for event in self._client.events("indexer", start="oldest"):
            self.got.append(event)
            if isinstance(event, Event) and event.id == "last":
                return

    def close(self) -> None:
        self._thread.join()
        self._client.close()


@pytest.fixture
def settings(own_valkey: ValkeyServer) -> ClientSettings:
    return ClientSettings(ledger_url=own_valkey.url, broker_url=own_valkey.url, namespace="test")


@pytest.fixture
def ledger(settings: ClientSettings) -> Iterator[Ledger]:
    with closing(connect(settings)) as client:
        yield Ledger(client, settings)


@pytest.mark.parametrize("is_emptied", [False, True])
def test_a_consumer_goes_on_after_a_restart_and_learns_whether_events_are_lost(
    own_valkey: ValkeyServer, settings: ClientSettings, ledger: Ledger, is_emptied: bool
) -> None:
    finish(ledger, "before")
    with closing(Consumer(settings)) as consumer:
        wait_until(lambda: ids(consumer.got) == ["before"])
        if is_emptied:
            ledger.client.flushall()
        own_valkey.stop()
        own_valkey.start()

        finish(ledger, "last")

    assert ids(consumer.got) == ["before", *(["gap of None"] if is_emptied else []), "last"]


def test_a_ledger_that_never_answered_is_an_error_at_once(
    own_valkey: ValkeyServer, settings: ClientSettings
) -> None:
    own_valkey.stop()

    with Client(settings) as client, pytest.raises(LedgerUnavailableError):
        next(iter(client.events("indexer")))


def test_an_outage_at_the_end_of_the_time_is_not_taken_for_no_events(
    own_valkey: ValkeyServer, settings: ClientSettings, ledger: Ledger
) -> None:
    finish(ledger, "before")
    with Client(settings) as client:
        events = iter(client.events("indexer", start="oldest", timeout_s=0.5))
        next(events)
        own_valkey.stop()

        with pytest.raises(LedgerUnavailableError):
            next(events)


def test_a_ledger_at_its_memory_limit_keeps_the_events(
    own_valkey: ValkeyServer, settings: ClientSettings, ledger: Ledger
) -> None:
    finish(ledger, "before")
    with redis.Redis.from_url(own_valkey.url) as client:
        client.config_set("maxmemory", 1)
        with Client(settings) as consumer, pytest.raises(LedgerUnavailableError):
            next(iter(consumer.events("indexer", start="oldest")))
        client.config_set("maxmemory", 0)

    with Client(settings) as consumer:
        assert ids(consumer.events("indexer", start="oldest", timeout_s=0.0)) == ["before"]
