"""A worker's process drains on SIGTERM, and ends at once, as a whole, when something hangs."""

import os
import signal
from collections.abc import Iterator

import psutil  # type: ignore[import-untyped]
import pytest

from labelyard import Client
from tests.e2e.instant import InstantService
from tests.support.apps import orders
from tests.support.service import READY_WITHIN_S
from tests.support.waiting import wait_until

LABELS = ["a cat", "a dog"]
TIMEOUT_S = 30.0


@pytest.fixture
def producer(instant: InstantService) -> Iterator[Client]:
    with instant.client() as client:
        yield client


@pytest.fixture
def mortal(instant: InstantService) -> Iterator[InstantService]:
    """Lend the worker to a test that ends it."""
    yield instant
    instant.worker.kill()
    instant.worker.start(within_s=READY_WITHIN_S)


def exit_code(instant: InstantService) -> int:
    guardian = instant.worker._guardian
    assert guardian is not None
    wait_until(lambda: not instant.worker.is_running(), within_s=TIMEOUT_S)
    return int(guardian.returncode)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_signal_lets_a_job_finish_however_often_it_comes(
    mortal: InstantService, producer: Client, number: signal.Signals
) -> None:
    job = producer.submit([mortal.picture()], labels=LABELS, tenant="slow-2")
    wait_until(lambda: mortal.has_begun(job.id), within_s=TIMEOUT_S)

    for _ in range(2):
        os.kill(mortal.worker.pid, number)
        wait_until(lambda: "worker_drains" in mortal.log(), within_s=TIMEOUT_S)

    assert exit_code(mortal) == 0
    assert job.state() == "succeeded"


def test_a_job_that_hangs_ends_its_process_and_leaves_no_child(
    mortal: InstantService, producer: Client
) -> None:
    family = psutil.Process(mortal.worker.pid).children(recursive=True)
    job = producer.submit([mortal.picture()], labels=LABELS, tenant=orders.HANGS)

    assert exit_code(mortal) == 70
    job.cancel()
    wait_until(lambda: not any(child.is_running() for child in family), within_s=TIMEOUT_S)
    assert f'watchdog_ends_process reason="job {job.id} runs for' in mortal.log()
    assert "in hang" in mortal.log()  # its stack
