"""Blame for the death of a worker: its suspect's alone, or else each job's in part."""

from collections.abc import Iterator
from contextlib import closing

import pytest

from labelyard.ledger import Isolation, Ledger, Record, Started, connect
from labelyard.ledger.limits import FORGIVEN_TIMES, UNCONFIRMED_DEATHS
from labelyard.messages import Job
from labelyard.settings import ClientSettings
from labelyard.testing import sample_job, sample_result

QUARANTINE_AFTER, DEAD_AFTER = 2, 2


@pytest.fixture
def ledger(ledger_url: str) -> Iterator[Ledger]:
    settings = ClientSettings(ledger_url=ledger_url, namespace="test")
    with closing(connect(settings)) as client:
        yield Ledger(client, settings)


def submitted(ledger: Ledger, count: int = 1) -> list[Job]:
    jobs = [sample_job() for _ in range(count)]
    for job in jobs:
        ledger.open(job, queue="bulk")
    return jobs


def start(ledger: Ledger, job: Job, worker: str, isolation: Isolation = "none") -> Started:
    """Begin the job at a worker whose presence key is gone at once."""
    return ledger.start(
        job.job_id,
        worker=worker,
        isolation=isolation,
        quarantine_after=QUARANTINE_AFTER,
        dead_after=DEAD_AFTER,
    )


def record(ledger: Ledger, job: Job) -> Record:
    found = ledger.read(job.job_id)
    assert found is not None
    return found


def deaths(ledger: Ledger, job: Job) -> tuple[int, int, int, int]:
    found = record(ledger, job)
    return found.deaths, found.deaths_suspect, found.deaths_alone, found.deaths_beside


def test_a_death_without_a_suspect_is_counted_for_all(ledger: Ledger) -> None:
    jobs = submitted(ledger, 3)
    for job in jobs:
        start(ledger, job, "w1")

    for job in jobs:
        start(ledger, job, "w2")

    assert [deaths(ledger, job) for job in jobs] == [(1, 0, 0, 0)] * 3


@pytest.mark.parametrize("comes_first", [True, False])
def test_a_death_beside_a_suspect_is_the_suspects(ledger: Ledger, comes_first: bool) -> None:
    suspect, *others = submitted(ledger, 3)
    start(ledger, suspect, "w1", "suspect")
    for job in others:
        start(ledger, job, "w1")

    for job in [suspect, *others] if comes_first else [*others, suspect]:
        start(ledger, job, "w2", "suspect" if job is suspect else "none")

    assert deaths(ledger, suspect) == (1, 1, 0, 0)
    assert [deaths(ledger, job) for job in others] == [(0, 0, 0, 1)] * 2


@pytest.mark.parametrize("end", ["finish", "retry", "hand back", "cancel"])
def test_a_suspect_that_ended_before_its_worker_died_clears_nobody(
    ledger: Ledger, end: str
) -> None:
    suspect, other = submitted(ledger, 2)
    start(ledger, suspect, "w1", "suspect")
    start(ledger, other, "w1")
    match end:
        case "finish":
            ledger.finish(suspect.job_id, sample_result(job=suspect))
        case "retry":
            ledger.retry(suspect.job_id, worker="w1", delay_s=0)
        case "hand back":
            ledger.hand_back(suspect.job_id, worker="w1")
        case _:
            ledger.cancel(suspect.job_id)

    start(ledger, other, "w2")

    assert deaths(ledger, other) == (1, 0, 0, 0)


def test_what_keeps_dying_beside_suspects_becomes_one(ledger: Ledger) -> None:
    """Or a job that kills its workers could hide behind others for ever."""
    (culprit,) = submitted(ledger)
    verdicts = []
    for number in range(2 * QUARANTINE_AFTER + 1):
        (suspect,) = submitted(ledger)
        start(ledger, suspect, f"w{number}", "suspect")
        verdicts.append(start(ledger, culprit, f"w{number}").verdict)

    assert verdicts == ["run"] * 2 * QUARANTINE_AFTER + ["to_quarantine"]


def test_neighbours_of_a_culprit_are_not_suspected(ledger: Ledger) -> None:
    culprit, neighbour = submitted(ledger, 2)
    modes: list[Isolation] = ["none", "none", "suspect", "alone"]
    for number, mode in enumerate(modes[2:]):
        start(ledger, culprit, f"w{number}", mode)
        assert start(ledger, neighbour, f"w{number}").verdict == "run"

    assert start(ledger, neighbour, "w9").verdict == "run"


def test_a_culprit_is_buried_after_it_died_alone(ledger: Ledger) -> None:
    (culprit,) = submitted(ledger)
    plan: list[tuple[Isolation, str]] = [
        ("none", "run"),
        ("none", "run"),
        ("none", "to_quarantine"),
        ("suspect", "run"),
        ("suspect", "isolate"),
        ("alone", "run"),
        ("suspect", "dead"),
    ]

    verdicts = [
        start(ledger, culprit, f"w{number}", mode).verdict for number, (mode, _) in enumerate(plan)
    ]

    assert verdicts == [verdict for _, verdict in plan]
    assert deaths(ledger, culprit) == (4, 1, 1, 0)


def test_a_culprit_whose_workers_are_never_idle_is_buried_a_little_later(ledger: Ledger) -> None:
    (culprit,) = submitted(ledger)
    start(ledger, culprit, "w-1")
    start(ledger, culprit, "w-2")
    verdicts = [
        start(ledger, culprit, f"w{number}", "crowded").verdict
        for number in range(DEAD_AFTER + UNCONFIRMED_DEATHS + 1)
    ]

    assert verdicts == ["run"] * (DEAD_AFTER + UNCONFIRMED_DEATHS) + ["dead"]


def test_a_suspect_that_got_company_did_not_die_alone(ledger: Ledger) -> None:
    (job,) = submitted(ledger)
    start(ledger, job, "w1", "alone")
    ledger.crowd(job.job_id, worker="w1")

    start(ledger, job, "w2", "suspect")

    assert deaths(ledger, job) == (1, 1, 0, 0)


def test_company_at_another_worker_changes_nothing(ledger: Ledger) -> None:
    (job,) = submitted(ledger)
    start(ledger, job, "w1", "alone")

    ledger.crowd(job.job_id, worker="w9")
    start(ledger, job, "w2", "suspect")

    assert deaths(ledger, job) == (1, 0, 1, 0)


def test_a_job_that_comes_back_to_wait_for_storage_is_cleared_of_deaths(ledger: Ledger) -> None:
    """Begun every few seconds, it meets more kills of its workers than other jobs do."""
    (job,) = submitted(ledger)
    for number in range(FORGIVEN_TIMES):
        start(ledger, job, f"killed-{number}")
        start(ledger, job, f"killed-too-{number}")
        assert start(ledger, job, f"killed-again-{number}", "suspect").verdict == "run"
        assert start(ledger, job, f"w{number}", "alone").verdict == "run"
        assert deaths(ledger, job) == (3, 1, 0, 0)
        ledger.postpone(job.job_id, worker=f"w{number}", delay_s=0)
        assert deaths(ledger, job) == (0, 0, 0, 0)

    assert start(ledger, job, "last").verdict == "run"


def test_a_job_that_waits_and_kills_in_turn_is_buried_in_the_end(ledger: Ledger) -> None:
    (job,) = submitted(ledger)
    verdicts = []
    for number in range(FORGIVEN_TIMES + DEAD_AFTER + UNCONFIRMED_DEATHS + 2):
        start(ledger, job, f"killed-{number}", "crowded")
        verdicts.append(start(ledger, job, f"w{number}", "crowded").verdict)
        if verdicts[-1] == "run":
            ledger.postpone(job.job_id, worker=f"w{number}", delay_s=0)

    assert verdicts[:FORGIVEN_TIMES] == ["run"] * FORGIVEN_TIMES
    assert verdicts[-1] == "dead"


def test_a_replayed_job_may_be_cleared_as_often_as_a_new_one(ledger: Ledger) -> None:
    (job,) = submitted(ledger)
    for number in range(FORGIVEN_TIMES + 1):
        start(ledger, job, f"killed-{number}")
        start(ledger, job, f"w{number}")
        ledger.postpone(job.job_id, worker=f"w{number}", delay_s=0)
    assert deaths(ledger, job) == (1, 0, 0, 0)

    ledger.finish(job.job_id, sample_result(job=job), is_dead=True)
    assert ledger.replay(job.job_id)
    start(ledger, job, "killed")
    start(ledger, job, "w")
    ledger.postpone(job.job_id, worker="w", delay_s=0)

    assert deaths(ledger, job) == (0, 0, 0, 0)


def test_a_suspect_that_was_handed_back_keeps_its_deaths(ledger: Ledger) -> None:
    """A worker hands back a job that hangs, too."""
    (job,) = submitted(ledger)
    start(ledger, job, "w-1")
    start(ledger, job, "w-2")
    start(ledger, job, "w1", "suspect")
    start(ledger, job, "w2", "crowded")
    ledger.hand_back(job.job_id, worker="w2")

    assert deaths(ledger, job) == (3, 1, 0, 0)
