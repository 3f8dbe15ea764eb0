"""A worker that ends while the ledger is away takes nothing from its jobs: no death, no attempt."""

import json
import os
import signal
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import pytest
import redis

from labelyard import Client
from labelyard.ledger.keys import LedgerKeys
from labelyard.outgoing import RETURNED_BY_HEADER
from tests.e2e.instant import COMMAND, ROOT, SETTINGS
from tests.support import pictures
from tests.support.proxy import TcpProxy
from tests.support.service import READY_WITHIN_S, Service
from tests.support.waiting import wait_until

NAMESPACE = "without-ledger"
TIMEOUT_S = 60.0


@pytest.fixture
def proxy(service: Service) -> Iterator[TcpProxy]:
    """Lend the worker's way to the ledger; the producer has another."""
    with TcpProxy(service.valkey.port) as proxy:
        yield proxy


def settings_of(service: Service, proxy: TcpProxy) -> dict[str, Any]:
    flags = service.folder / "flags-without-ledger"
    flags.mkdir(exist_ok=True)
    python_path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    changes = {"namespace": NAMESPACE, "drain_s": "1", "job_timeout_s": "60", "max_attempts": "3"}
    return {
        **SETTINGS,
        **changes,
        "command": COMMAND,
        "variables": {
            "PYTHONPATH": python_path,
            "LABELYARD_LEDGER_URL": f"redis://127.0.0.1:{proxy.port}/1",
            "TEST_EFFECTS": str(service.folder / "effects-without-ledger.log"),
            "TEST_FLAGS": str(flags),
        },
    }


def queued_headers(broker: redis.Redis) -> list[dict[str, Any]]:
    return [
        json.loads(message)["headers"]
        for message in broker.lrange(f"{NAMESPACE}.interactive", 0, -1)
    ]


def test_a_shutdown_while_the_ledger_is_away_counts_no_death(
    service: Service, proxy: TcpProxy
) -> None:
    picture = service.pictures.put("shutdown.jpg", pictures.jpeg() + os.urandom(8))
    with ExitStack() as stack:
        client: Client = stack.enter_context(service.client(namespace=NAMESPACE))
        broker = stack.enter_context(redis.Redis.from_url(service.valkey.url_of(0)))
        first = service.worker(name="first", **settings_of(service, proxy))
        with first.start(within_s=READY_WITHIN_S):
            job = client.submit([picture], labels=["a cat", "a dog"], tenant="slow-20")
            wait_until(lambda: job.state() == "running", within_s=TIMEOUT_S)
            proxy.stop()

            os.kill(first.pid, signal.SIGTERM)
            wait_until(lambda: not first.is_running(), within_s=TIMEOUT_S)

        words = [headers.get(RETURNED_BY_HEADER) for headers in queued_headers(broker)]
        presence = LedgerKeys(NAMESPACE).worker(client.status(job.id).runner)
        with redis.Redis.from_url(service.valkey.url_of(1)) as ledger:
            wait_until(lambda: not ledger.exists(presence), within_s=TIMEOUT_S)
        proxy.start()
        second = service.worker(name="second", **settings_of(service, proxy))
        with second.start(within_s=READY_WITHIN_S):
            wait_until(lambda: client.status(job.id).state == "running", within_s=TIMEOUT_S)
            record = client.status(job.id)
            job.cancel()

    assert [bool(word) for word in words] == [True]
    assert (record.deaths, record.attempts) == (0, 1)
