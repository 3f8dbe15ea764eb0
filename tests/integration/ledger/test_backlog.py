"""The backlog by queue and tenant agrees with the records, lost ones and other versions' included."""

from collections.abc import Iterator

import pytest

from labelyard.ledger import Backlog, BacklogKey, Ledger, connect
from labelyard.ledger.backlog import EXAMINED_AT_ONCE, BacklogRecount
from labelyard.settings import ClientSettings
from labelyard.testing import sample_job, sample_result

SHOP = BacklogKey("bulk", "shop")


@pytest.fixture
def ledger(ledger_url: str) -> Iterator[Ledger]:
    settings = ClientSettings(ledger_url=ledger_url, namespace="test")
    with connect(settings) as client:
        yield Ledger(client, settings)


def opened(ledger: Ledger, *, queue: str = "bulk", tenant: str = "shop") -> str:
    job = sample_job(tenant=tenant)
    ledger.open(job, queue=queue)
    return job.job_id


def test_jobs_are_counted_by_queue_and_tenant(ledger: Ledger) -> None:
    opened(ledger)
    opened(ledger)
    opened(ledger, queue="interactive", tenant="blog")

    assert ledger.backlog() == {
        SHOP: Backlog(images=4, jobs=2),
        BacklogKey("interactive", "blog"): Backlog(images=2, jobs=1),
    }


def test_a_final_job_leaves_no_field_behind(ledger: Ledger) -> None:
    job_id = opened(ledger)

    ledger.cancel(job_id)

    assert ledger.client.hgetall(ledger.keys.backlog) == {}
    assert ledger.oldest_open() == {}


def test_a_suspect_is_counted_in_the_quarantine_queue_with_its_age(ledger: Ledger) -> None:
    job_id = opened(ledger)
    ledger.client.zincrby(ledger.keys.open_by_age("bulk"), -1000, f"shop:2:{job_id}")
    for _ in range(2):
        ledger.start(job_id, worker="gone-1", quarantine_after=1, dead_after=9)
        ledger.start(job_id, worker="gone-2", quarantine_after=1, dead_after=9)

    assert ledger.backlog() == {BacklogKey("quarantine", "shop"): Backlog(images=2, jobs=1)}
    assert ledger.oldest_open()["quarantine"] > 900


def test_the_age_of_a_queue_is_that_of_its_oldest_open_job(ledger: Ledger) -> None:
    first, _ = opened(ledger), opened(ledger)
    ledger.client.zincrby(ledger.keys.open_by_age("bulk"), -1000, f"shop:2:{first}")
    old = ledger.oldest_open()

    ledger.cancel(first)

    assert old.keys() == {"bulk"}
    assert old["bulk"] > 900
    assert ledger.oldest_open()["bulk"] < 900


def test_a_replayed_dead_letter_is_open_again_and_young(ledger: Ledger) -> None:
    job_id = opened(ledger)
    ledger.client.zincrby(ledger.keys.open_by_age("bulk"), -1000, f"shop:2:{job_id}")
    ledger.finish(job_id, sample_result("failed"), is_dead=True)

    ledger.replay(job_id)

    assert ledger.backlog() == {SHOP: Backlog(images=2, jobs=1)}
    assert ledger.oldest_open()["bulk"] < 900


def test_a_record_that_is_lost_while_its_job_is_open_is_taken_out_of_every_count(
    ledger: Ledger,
) -> None:
    lost = [opened(ledger) for _ in range(3)]
    opened(ledger)
    ledger.client.delete(*map(ledger.keys.job, lost))

    corrected = BacklogRecount(ledger).step()

    assert corrected == 3
    assert ledger.backlog() == {SHOP: Backlog(images=2, jobs=1)}
    assert ledger.open_images() == 2


def test_a_lost_record_that_is_opened_again_is_counted_once(ledger: Ledger) -> None:
    job = sample_job(tenant="shop")
    ledger.open(job, queue="bulk")
    ledger.client.delete(ledger.keys.job(job.job_id))

    ledger.open(job, queue="bulk")

    assert ledger.backlog() == {SHOP: Backlog(images=2, jobs=1)}
    assert ledger.open_images() == 2


def test_a_job_of_an_earlier_version_is_counted_and_leaves_again(ledger: Ledger) -> None:
    job_id = opened(ledger)
    ledger.client.delete(ledger.keys.backlog, ledger.keys.open_by_age("bulk"))

    added = BacklogRecount(ledger).step()
    counted = ledger.backlog()
    ledger.finish(job_id, sample_result())

    assert (added, counted) == (1, {SHOP: Backlog(images=2, jobs=1)})
    assert (ledger.backlog(), ledger.open_images()) == ({}, 0)


def test_a_job_that_an_earlier_version_made_final_is_taken_out(ledger: Ledger) -> None:
    job_id = opened(ledger)
    ledger.client.hset(ledger.keys.job(job_id), "state", "succeeded")
    ledger.client.zrem(ledger.keys.open, job_id)
    ledger.client.decrby(ledger.keys.open_images, 2)

    BacklogRecount(ledger).step()

    assert (ledger.backlog(), ledger.open_images()) == ({}, 0)


def test_a_recount_goes_round_in_bounded_steps(ledger: Ledger) -> None:
    jobs = [sample_job(tenant="shop") for _ in range(2 * EXAMINED_AT_ONCE + 10)]
    ledger.open_many(jobs, queue="bulk")
    lost = [job.job_id for job in jobs[100::100]]
    ledger.client.delete(*map(ledger.keys.job, lost))
    recount = BacklogRecount(ledger)

    corrected = [recount.step() for _ in range(4)]

    assert sum(corrected) == len(lost)
    assert max(corrected) < len(lost)
    assert ledger.backlog()[SHOP].jobs == len(jobs) - len(lost)
