"""A message that outlives its job's record brings nothing back; one that the ledger lost is run."""

from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime
from typing import Any

import pytest

from labelyard.ledger import Ledger
from labelyard.ledger.set_aside import SetAside
from labelyard.messages import Job, new_job_id
from labelyard.queues import Queue
from labelyard.testing import sample_job, sample_result
from labelyard_worker.jobs.cancellation import Token
from labelyard_worker.jobs.work import ReceivedMessage
from tests.integration.jobs.job_rig import JobRig, rig_settings, succeed

TTL_S = 100


@pytest.fixture
def rig(ledger_url: str) -> Iterator[JobRig]:
    with closing(JobRig(rig_settings(ledger_url, result_ttl_s=TTL_S))) as made:
        yield made


def receive(rig: JobRig, job: Job, *, age_s: float | None = None, **call: Any) -> None:
    """Deliver the job's message.

    Args:
        age_s: Seconds since the message was published; ``None``: it does not say.
    """
    published_at = 0.0 if age_s is None else rig.ledger.now() - age_s

    def classify(job: Job, queue: str, token: Token) -> Any:
        rig.seen.append(job.job_id)
        return succeed(job)

    message = ReceivedMessage(job.model_dump_json(), Queue.BULK, published_at=published_at, **call)
    rig.receive(message, classify)


def drop_record(ledger: Ledger, job: Job) -> None:
    """Delete the record as Redis does when its TTL is over."""
    ledger.client.delete(ledger.keys.job(job.job_id))


def drop_all(ledger: Ledger, job: Job) -> None:
    """Let more time pass: the tombstone is gone, too."""
    ledger.client.delete(ledger.keys.job(job.job_id), ledger.keys.tombstone(job.job_id))


def kept_reasons(rig: JobRig) -> list[str]:
    return [message.reason for message in SetAside(rig.client, rig.settings).messages()]


@pytest.mark.parametrize("age_s", [None, 1.0, TTL_S - 5.0, TTL_S + 5.0, 10.0 * TTL_S])
@pytest.mark.parametrize("end", ["cancel", "expire"])
def test_a_job_that_ended_before_its_message_came_stays_ended(
    rig: JobRig, end: str, age_s: float | None
) -> None:
    over = datetime(2020, 1, 1, tzinfo=UTC)
    job = sample_job(expires_at=over if end == "expire" else None)
    rig.ledger.open(job, queue=Queue.BULK)
    assert getattr(rig.ledger, end)(job.job_id)
    drop_record(rig.ledger, job)

    receive(rig, job, age_s=age_s)

    assert rig.seen == []
    assert rig.ledger.state(job.job_id) is None


def test_the_message_of_a_job_whose_tombstone_is_gone_is_kept_for_the_operator(
    rig: JobRig,
) -> None:
    job = rig.submit()
    rig.ledger.cancel(job.job_id)
    drop_all(rig.ledger, job)

    receive(rig, job, age_s=TTL_S + 5.0)

    assert rig.seen == []
    assert [job.job_id in reason for reason in kept_reasons(rig)] == [True]


def test_a_message_of_which_the_ledger_lost_the_record_is_run(rig: JobRig) -> None:
    job = rig.submit()
    drop_all(rig.ledger, job)

    receive(rig, job, age_s=TTL_S - 5.0)

    assert rig.record(job.job_id).state == "succeeded"


def test_an_adopted_job_is_not_adopted_twice(rig: JobRig) -> None:
    """The producer writes no time of publication, and the message comes again long afterwards."""
    job = sample_job(job_id=new_job_id())
    receive(rig, job)
    drop_record(rig.ledger, job)

    receive(rig, job)

    assert rig.seen == [job.job_id]


def test_a_job_that_is_submitted_again_after_its_end_is_run(rig: JobRig) -> None:
    """The idempotency key gives the same id; the record of the first job is gone."""
    job = rig.submit()
    rig.ledger.cancel(job.job_id)
    drop_record(rig.ledger, job)

    rig.ledger.open(job, queue=Queue.BULK)
    receive(rig, job, age_s=0.0)

    assert rig.record(job.job_id).state == "succeeded"


def test_a_result_does_not_bring_back_a_job_whose_record_expired_meanwhile(rig: JobRig) -> None:
    job = rig.submit()

    def outlive(job: Job) -> Any:
        rig.ledger.cancel(job.job_id)
        drop_record(rig.ledger, job)
        return sample_result(job=job)

    rig.run(job, outlive)

    assert rig.ledger.state(job.job_id) is None


@pytest.mark.parametrize("state", ["pending", "final"])
@pytest.mark.parametrize("changes", [{"tenant": "another"}, {"top_k": 1}], ids=lambda one: str(one))
def test_another_jobs_message_under_the_same_id_is_set_aside(
    rig: JobRig, state: str, changes: dict[str, Any]
) -> None:
    job = rig.submit()
    if state == "final":
        rig.ledger.finish(job.job_id, sample_result(job=job))
    before = rig.record(job.job_id)

    receive(rig, job.model_copy(update=changes), age_s=0.0)

    after = rig.record(job.job_id)
    assert rig.seen == []
    assert (after.state, after.result, after.message) == (
        before.state,
        before.result,
        before.message,
    )
    assert [job.job_id in reason for reason in kept_reasons(rig)] == [True]


def test_of_two_foreign_messages_under_one_id_the_first_result_stands(rig: JobRig) -> None:
    first = sample_job(job_id=new_job_id())
    receive(rig, first)

    receive(rig, first.model_copy(update={"top_k": 1}))

    record = rig.record(first.job_id)
    assert rig.seen == [first.job_id]
    assert record.job() == first
    assert len(kept_reasons(rig)) == 1


def test_an_attempt_that_was_given_back_while_the_ledger_was_away_is_not_a_death(
    rig: JobRig,
) -> None:
    job = rig.submit()
    rig.die_with(job, times=1)
    start = rig.client.hget(rig.ledger.keys.job(job.job_id), "start")

    receive(rig, job, age_s=0.0, returned_by=f"gone-none-0:{start}")

    record = rig.record(job.job_id)
    assert (record.state, record.deaths, record.attempts) == ("succeeded", 0, 1)


@pytest.mark.parametrize("word", ["gone-none-0:7", "another:1", "nonsense", "gone-none-0:"])
def test_a_word_about_another_attempt_hides_no_death(rig: JobRig, word: str) -> None:
    job = rig.submit()
    rig.die_with(job, times=1)

    receive(rig, job, age_s=0.0, returned_by=word)

    assert rig.record(job.job_id).deaths == 1
