"""Presence: a worker's key names its running jobs and expires before its messages come again."""

import json
from collections.abc import Iterator
from contextlib import closing, contextmanager
from typing import Any

import pytest

from labelyard.ledger import Ledger, connect
from labelyard_worker.jobs.cancellation import RunningJobs, Token
from labelyard_worker.local.servers import ValkeyServer
from labelyard_worker.maintenance.presence import Presence
from labelyard_worker.settings import WorkerSettings
from tests.support.waiting import wait_until

KEY = "test:worker:w1"


@contextmanager
def presence(
    ledger_url: str, running: RunningJobs, *, visibility_timeout_s: float = 2.0
) -> Iterator[Ledger]:
    """Run the presence of one worker while the block runs, and give a ledger to look at it."""
    settings = WorkerSettings(ledger_url=ledger_url, namespace="test")
    with closing(connect(settings)) as client, closing(connect(settings)) as observer:
        one = Presence(
            Ledger(client, settings),
            worker="w1",
            visibility_timeout_s=visibility_timeout_s,
            running=running,
        )
        one.start()
        try:
            yield Ledger(observer, settings)
        finally:
            one.close()


def token(job_id: str) -> Token:
    return Token(job_id, timeout_s=60, expires_in_s=None)


def read_presence(ledger: Ledger) -> Any:
    value = ledger.client.get(KEY)
    return None if value is None else json.loads(str(value))


def test_a_worker_names_the_jobs_that_it_runs_and_no_others(ledger_url: str) -> None:
    running = RunningJobs()
    with presence(ledger_url, running) as ledger:
        wait_until(lambda: read_presence(ledger) == [])
        with running.holding(token("a")):
            wait_until(lambda: read_presence(ledger) == ["a"])
        wait_until(lambda: read_presence(ledger) == [])


@pytest.mark.parametrize(("visibility_timeout_s", "most_s"), [(120, 10), (8, 4), (1, 1)])
def test_a_dead_worker_is_gone_before_its_messages_come_again(
    ledger_url: str, visibility_timeout_s: float, most_s: float
) -> None:
    with presence(ledger_url, RunningJobs(), visibility_timeout_s=visibility_timeout_s) as ledger:
        wait_until(lambda: read_presence(ledger) == [])

        assert 0 < ledger.client.pttl(KEY) <= most_s * 1000


def test_a_worker_that_closes_is_gone_at_once(ledger_url: str) -> None:
    with presence(ledger_url, RunningJobs(), visibility_timeout_s=120) as ledger:
        wait_until(lambda: read_presence(ledger) == [])

    with closing(connect(WorkerSettings(ledger_url=ledger_url))) as client:
        assert client.exists(KEY) == 0


def test_a_presence_key_is_written_again_after_the_ledger_was_away(
    own_valkey: ValkeyServer,
) -> None:
    running = RunningJobs()
    with presence(own_valkey.url, running) as ledger, running.holding(token("a")):
        wait_until(lambda: read_presence(ledger) == ["a"])
        own_valkey.restart()
        ledger.client.delete(KEY)

        wait_until(lambda: read_presence(ledger) == ["a"])
