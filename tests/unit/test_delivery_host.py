"""A host that fails gets fewer looks the more waits for it."""

import asyncio

import pytest

from labelyard.ledger.deliveries import DeliveryOutcome
from labelyard_worker.jobs.delivery.breaker import OPEN_AFTER
from labelyard_worker.jobs.delivery.host import (
    FAILING_READS_PER_S,
    HELD_PER_HOST,
    Host,
    PendingJobs,
)

FAULT = DeliveryOutcome("failed", "status 503", is_host_fault=True)


async def always() -> bool:
    return True


async def call(host: Host, outcome: DeliveryOutcome) -> DeliveryOutcome | None:
    async def send() -> DeliveryOutcome:
        return outcome

    return await host.call(send, worker_slots=asyncio.Semaphore(64), hold=always)


def failing(backlog: PendingJobs) -> Host:
    host = Host(backlog)
    for _ in range(OPEN_AFTER):
        assert asyncio.run(call(host, FAULT)) == FAULT
    return host


def test_a_host_that_fails_is_not_called() -> None:
    postponed = asyncio.run(call(failing(PendingJobs()), DeliveryOutcome("delivered")))

    assert postponed is not None
    assert (postponed.kind, postponed.reason) == ("postponed", "its host is failing: status 503")


@pytest.mark.parametrize("pending", [0, 10_000, 1_000_000])
def test_looks_at_postponed_deliveries_are_bounded_in_number(pending: int) -> None:
    postponed = failing(PendingJobs(pending)).postponement()

    assert postponed is not None
    assert postponed.retry_in_s is not None
    assert postponed.retry_in_s >= 0.75 * pending / FAILING_READS_PER_S


def test_an_answer_that_is_about_one_job_does_not_stop_its_host() -> None:
    host = Host(PendingJobs())
    for _ in range(3 * OPEN_AFTER):
        asyncio.run(call(host, DeliveryOutcome("failed", "status 404")))

    assert host.postponement() is None


def test_a_crowded_host_takes_no_more() -> None:
    host = Host(PendingJobs())
    host.held = HELD_PER_HOST

    postponed = host.postponement()

    assert postponed is not None
    assert postponed.reason == "its host is busy"


def test_a_delivery_whose_lease_was_lost_is_not_made() -> None:
    async def never() -> bool:
        return False

    async def send() -> DeliveryOutcome:
        raise AssertionError

    answer = asyncio.run(
        Host(PendingJobs()).call(send, worker_slots=asyncio.Semaphore(1), hold=never)
    )

    assert answer is None
