"""A job runs once in this process, however often its message comes."""

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from labelyard_worker.jobs.single_flight import SingleFlight
from tests.support.waiting import wait_until


class Deliveries:
    """Counts the blocks that run at once, each until it is released."""

    def __init__(self, flight: SingleFlight) -> None:
        self._flight = flight
        self._lock = threading.Lock()
        self.release = threading.Event()
        self.waiting = 0
        self.running = 0
        self.most = 0
        self.ended = 0

    def deliver(self, job_id: str) -> None:
        with self._lock:
            self.waiting += 1
        with self._flight.hold(job_id):
            with self._lock:
                self.running += 1
                self.most = max(self.most, self.running)
            self.release.wait()
            with self._lock:
                self.running -= 1
                self.ended += 1


def run(flight: SingleFlight, job_ids: list[str], *, running: int) -> Deliveries:
    """Deliver at once, wait until *running* blocks run, and release them."""
    deliveries = Deliveries(flight)
    with ThreadPoolExecutor(len(job_ids)) as pool:
        done = [pool.submit(deliveries.deliver, job_id) for job_id in job_ids]
        wait_until(lambda: deliveries.waiting == len(job_ids))
        wait_until(lambda: deliveries.running == running)
        deliveries.release.set()
    for each in done:
        each.result()
    return deliveries


def test_deliveries_of_one_job_run_one_after_the_other() -> None:
    flight = SingleFlight()

    deliveries = run(flight, ["a"] * 5, running=1)

    assert (deliveries.most, deliveries.ended) == (1, 5)
    assert len(flight) == 0


def test_different_jobs_run_beside_each_other() -> None:
    deliveries = run(SingleFlight(), ["a", "b", "c"], running=3)

    assert deliveries.most == 3


def test_switched_off_every_delivery_runs() -> None:
    deliveries = run(SingleFlight(is_on=False), ["a"] * 3, running=3)

    assert deliveries.most == 3


def test_a_job_that_fails_lets_the_next_delivery_in() -> None:
    flight = SingleFlight()
    with pytest.raises(SystemExit), flight.hold("a"):
        raise SystemExit

    with flight.hold("a"):
        assert len(flight) == 1
