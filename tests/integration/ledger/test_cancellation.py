"""All open jobs of a tenant or a queue are cancelled in bounded pages."""

from collections.abc import Iterator
from typing import Any

import pytest

from labelyard.ledger import Ledger, cancellation, connect
from labelyard.ledger.cancellation import cancel_open
from labelyard.queues import Queue
from labelyard.settings import ClientSettings
from labelyard.testing import sample_job, sample_result


@pytest.fixture
def ledger(ledger_url: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Ledger]:
    monkeypatch.setattr(cancellation, "READ_AT_ONCE", 3)
    settings = ClientSettings(ledger_url=ledger_url, namespace="test")
    with connect(settings) as client:
        yield Ledger(client, settings)


def opened(
    ledger: Ledger, *, queue: str = "bulk", tenant: str = "shop", count: int = 1
) -> list[str]:
    jobs = [sample_job(tenant=tenant) for _ in range(count)]
    ledger.open_many(jobs, queue=queue)
    return [job.job_id for job in jobs]


def cancelled(ledger: Ledger, job_ids: list[str]) -> int:
    return sum(ledger.state(job_id) == "cancelled" for job_id in job_ids)


def test_every_open_job_is_cancelled_and_counted(ledger: Ledger) -> None:
    ids = opened(ledger, count=8) + opened(ledger, queue="interactive", tenant="blog", count=2)
    [final] = opened(ledger)
    ledger.finish(final, sample_result())

    number = cancel_open(ledger, tenant=None, queue=None)

    assert (number, cancelled(ledger, ids), ledger.state(final)) == (10, 10, "succeeded")
    assert (ledger.backlog(), ledger.open_images()) == ({}, 0)


def test_jobs_of_others_stay(ledger: Ledger) -> None:
    mine = opened(ledger, count=5)
    urgent = opened(ledger, queue="interactive")
    others = opened(ledger, tenant="blog", count=5)

    number = cancel_open(ledger, tenant="shop", queue=Queue.BULK)

    assert (number, cancelled(ledger, mine), cancelled(ledger, urgent + others)) == (5, 5, 0)


def test_jobs_that_come_meanwhile_do_not_keep_it_going(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = opened(ledger, count=7)
    after: list[str] = []
    cancel_many = ledger.cancel_many

    def cancel_while_others_submit(job_ids: list[str]) -> Any:
        after.extend(opened(ledger, count=10))
        return cancel_many(job_ids)

    monkeypatch.setattr(ledger, "cancel_many", cancel_while_others_submit)

    number = cancel_open(ledger, tenant=None, queue=None)

    assert (number, cancelled(ledger, before), cancelled(ledger, after)) == (7, 7, 0)


def test_a_job_that_moves_to_quarantine_meanwhile_is_cancelled_there(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    [suspect] = opened(ledger)
    cancel_many = ledger.cancel_many

    def cancel_while_it_moves(job_ids: list[str]) -> Any:
        for worker in ("gone-1", "gone-2"):
            ledger.start(suspect, worker=worker, quarantine_after=1, dead_after=9)
        return cancel_many([one for one in job_ids if one != suspect])

    monkeypatch.setattr(ledger, "cancel_many", cancel_while_it_moves)
    cancel_open(ledger, tenant=None, queue=Queue.BULK)
    monkeypatch.setattr(ledger, "cancel_many", cancel_many)

    assert cancel_open(ledger, tenant="shop", queue=Queue.QUARANTINE) == 1
    assert ledger.state(suspect) == "cancelled"
