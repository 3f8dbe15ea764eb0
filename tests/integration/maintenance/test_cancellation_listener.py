"""Cancellation listener: a job that became final elsewhere stops, also after a lost connection."""

from collections.abc import Iterator
from contextlib import closing, contextmanager

import pytest

from labelyard.errors import JobCancelledError, LabelyardError
from labelyard.ledger import Ledger, connect
from labelyard.testing import sample_job
from labelyard_worker.jobs.cancellation import RunningJobs, Token
from labelyard_worker.local.servers import ValkeyServer
from labelyard_worker.maintenance.cancellation_listener import CancellationListener
from labelyard_worker.settings import WorkerSettings
from tests.support.proxy import TcpProxy
from tests.support.waiting import wait_until

CHANNEL = "test:stopped"


@contextmanager
def listener(ledger_url: str, running: RunningJobs) -> Iterator[Ledger]:
    """Run the listener of one worker while the block runs, and give a ledger to look at it."""
    settings = WorkerSettings(ledger_url=ledger_url, namespace="test")
    with closing(connect(settings)) as client, closing(connect(settings)) as observer:
        one = CancellationListener(Ledger(client, settings), running=running)
        one.start()
        try:
            yield Ledger(observer, settings)
        finally:
            one.close()


def token(job_id: str) -> Token:
    return Token(job_id, timeout_s=60, expires_in_s=None)


def is_listening(ledger: Ledger) -> bool:
    return bool(ledger.client.pubsub_numsub(CHANNEL)[0][1] == 1)


def is_stopped(one: Token) -> bool:
    try:
        one.check()
    except LabelyardError:
        return True
    return False


def test_a_running_job_that_is_cancelled_elsewhere_stops_and_its_neighbours_go_on(
    ledger_url: str,
) -> None:
    running = RunningJobs()
    with listener(ledger_url, running) as ledger:
        job = sample_job()
        ledger.open(job, queue="interactive")
        with running.holding(token(job.job_id)) as cancelled, running.holding(token("b")) as other:
            wait_until(lambda: is_listening(ledger))
            ledger.cancel(job.job_id)
            wait_until(lambda: is_stopped(cancelled))

            with pytest.raises(JobCancelledError):
                cancelled.check()
            assert not is_stopped(other)


def test_a_worker_listens_again_after_the_ledger_was_away(
    own_valkey: ValkeyServer,
) -> None:
    running = RunningJobs()
    with (
        listener(own_valkey.url, running) as ledger,
        running.holding(token("a")) as one,
    ):
        wait_until(lambda: is_listening(ledger))
        own_valkey.restart()

        wait_until(lambda: is_listening(ledger))
        ledger.client.publish(CHANNEL, "a")

        wait_until(lambda: is_stopped(one))


def test_a_worker_listens_again_after_its_connection_became_half_open(
    valkey: ValkeyServer, ledger_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    quick = {"socket_timeout": 2, "health_check_interval": 1}
    monkeypatch.setattr("labelyard.redis_connections.SOCKET_OPTIONS", quick)
    running = RunningJobs()
    settings = WorkerSettings(ledger_url=ledger_url, namespace="test")
    with TcpProxy(valkey.port) as proxy, closing(connect(settings)) as direct:
        through = ledger_url.replace(f":{valkey.port}/", f":{proxy.port}/")
        with listener(through, running), running.holding(token("a")) as one:
            wait_until(lambda: direct.pubsub_numsub(CHANNEL)[0][1] == 1)
            proxy.freeze()

            wait_until(
                lambda: direct.publish(CHANNEL, "a") is not None and is_stopped(one),
                within_s=20,
            )
