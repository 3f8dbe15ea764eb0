"""Jobs are listed by time, newest first, from a bounded index in bounded steps."""

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import pytest

from labelyard.errors import InvalidMessageError
from labelyard.ledger import Ledger, connect, listing
from labelyard.ledger.listing import JobFilter, JobList, list_jobs
from labelyard.ledger.scripts import SCRIPTS
from labelyard.settings import ClientSettings
from labelyard.testing import sample_job


@pytest.fixture
def ledger(ledger_url: str) -> Iterator[Ledger]:
    settings = ClientSettings(ledger_url=ledger_url, namespace="test")
    with connect(settings) as client:
        yield Ledger(client, settings)


def opened(ledger: Ledger, *, queue: str = "bulk", **changes: Any) -> str:
    job = sample_job(**changes)
    ledger.open(job, queue=queue)
    return job.job_id


def found(ledger: Ledger, *, limit: int = 100, **wanted: Any) -> list[str]:
    return [job.job_id for job in list_jobs(ledger, JobFilter(**wanted), limit=limit).jobs]


def test_jobs_are_listed_newest_first(ledger: Ledger) -> None:
    ids = [opened(ledger) for _ in range(3)]

    assert found(ledger) == ids[::-1]
    assert found(ledger, limit=1) == ids[-1:]


def test_each_condition_chooses_its_jobs(ledger: Ledger) -> None:
    plain = opened(ledger)
    urgent = opened(ledger, queue="interactive")
    others = opened(ledger, tenant="shop")
    cancelled = opened(ledger)
    ledger.cancel(cancelled)
    [newest] = list_jobs(ledger, JobFilter(), limit=1).jobs

    assert found(ledger, queue="interactive") == [urgent]
    assert found(ledger, tenant="shop") == [others]
    assert found(ledger, state="cancelled") == [cancelled]
    assert found(ledger, state="pending", tenant="default", queue="bulk") == [plain]
    since = datetime.fromtimestamp(newest.submitted_at, UTC)
    assert found(ledger, since=since) in ([cancelled], [])  # a datetime has whole microseconds
    assert found(ledger, since=datetime(2020, 1, 1, tzinfo=UTC)) == [
        cancelled,
        others,
        urgent,
        plain,
    ]


def test_a_summary_is_the_record_without_message_and_result(ledger: Ledger) -> None:
    job_id = opened(ledger, tenant="shop")
    record = ledger.read(job_id)
    assert record is not None

    [job] = list_jobs(ledger, JobFilter(), limit=1).jobs

    shared = set(job.__slots__)
    assert {name: getattr(job, name) for name in shared} == {
        name: getattr(record, name) for name in shared
    }
    assert not job.is_final


def test_an_entry_without_a_record_is_dropped(ledger: Ledger) -> None:
    lost, kept = opened(ledger), opened(ledger)
    ledger.client.delete(ledger.keys.job(lost))

    assert found(ledger) == [kept]
    assert ledger.client.zrange(ledger.keys.jobs, 0, -1) == [kept]


def test_a_search_ends_at_its_bound_and_says_so(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    ledger.open_many([sample_job(tenant="shop") for _ in range(20)], queue="bulk")
    monkeypatch.setattr(listing, "EXAMINED_AT_ONCE", 4)
    monkeypatch.setattr(listing, "MAX_EXAMINED", 10)

    answer = list_jobs(ledger, JobFilter(tenant="blog"), limit=5)

    assert answer == JobList((), examined=12, is_cut=True)
    assert len(list_jobs(ledger, JobFilter(), limit=10).jobs) == 10


def test_jobs_of_one_instant_are_all_listed_once(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    jobs = [sample_job() for _ in range(11)]
    ledger.open_many(jobs, queue="bulk")
    ledger.client.zadd(ledger.keys.jobs, {job.job_id: 1234.5 for job in jobs})
    monkeypatch.setattr(listing, "EXAMINED_AT_ONCE", 2)

    ids = found(ledger)

    assert (len(ids), set(ids)) == (11, {job.job_id for job in jobs})


def test_the_index_keeps_the_newest_jobs(ledger: Ledger) -> None:
    text = SCRIPTS["open"].replace("JOB_INDEX_MAX_ENTRIES = 200000", "JOB_INDEX_MAX_ENTRIES = 2")
    ledger._scripts["open"] = ledger.client.register_script(text)

    ids = [opened(ledger) for _ in range(4)]

    assert ledger.client.zrange(ledger.keys.jobs, 0, -1) == ids[-2:]


@pytest.mark.parametrize(
    "wrong",
    [
        {"state": "done"},
        {"state": ["pending"]},
        {"tenant": 5},
        {"queue": "express"},
        {"since": 5},
        {"since": datetime(2030, 1, 1)},  # noqa: DTZ001 - a naive one is meant
    ],
    ids=repr,
)
def test_a_condition_that_no_job_can_meet_is_refused(wrong: dict[str, Any]) -> None:
    given: dict[str, Any] = dict.fromkeys(("state", "tenant", "queue", "since")) | wrong

    with pytest.raises(InvalidMessageError, match=next(iter(wrong))):
        JobFilter.checked(**given)
