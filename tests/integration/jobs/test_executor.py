"""Each delivery of a job comes to one end, which the ledger knows; on a real Valkey."""

import json
import logging
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from datetime import UTC, datetime, timedelta

import pytest

from labelyard.errors import (
    BatcherFullError,
    DeviceFailedError,
    ImageNotFoundError,
    JobExpiredError,
    JobTimedOutError,
    LabelyardError,
    LedgerUnavailableError,
    StorageUnavailableError,
    UnknownLabelSetError,
)
from labelyard.ledger import backoff_s
from labelyard.ledger.set_aside import SetAside
from labelyard.messages import Deliver, Failure, Job, Result, new_job_id
from labelyard.queues import Queue
from labelyard.testing import sample_job
from labelyard_worker.jobs.cancellation import HandedBackError
from labelyard_worker.jobs.errors import MessageReturnedError
from labelyard_worker.local.servers import ValkeyServer
from tests.integration.jobs.job_rig import JobRig, fail_with, half, rig_settings, succeed
from tests.support.delivering import delivery_settings
from tests.support.receiver import running_receiver, running_slow_receiver
from tests.support.waiting import wait_until


@pytest.fixture
def rig(ledger_url: str) -> Iterator[JobRig]:
    with closing(JobRig(rig_settings(ledger_url))) as made:
        yield made


def test_a_job_that_succeeds_has_its_result_and_how_long_it_was_queued(rig: JobRig) -> None:
    job = rig.submit()

    rig.run(job)

    record = rig.record(job.job_id)
    assert (record.state, record.attempts) == ("succeeded", 1)
    assert record.result is not None
    assert 0 < record.result.timing.queued_s < 60
    assert rig.executor.finished == 1
    assert len(rig.running) == 0


@pytest.mark.parametrize(
    "error", [StorageUnavailableError("s3"), BatcherFullError("x"), JobTimedOutError("x")]
)
def test_a_transient_error_has_the_job_sent_again_after_a_while(
    rig: JobRig, error: LabelyardError
) -> None:
    job = rig.submit()

    rig.run(job, fail_with(error))

    record = rig.record(job.job_id)
    assert (record.state, record.attempts, record.deaths) == ("pending", 1, 0)
    due_in_s = rig.due_in_s(job)
    assert due_in_s is not None
    assert -1 < due_in_s <= backoff_s(1)


@pytest.mark.parametrize("error", [StorageUnavailableError("s3"), BatcherFullError("x")])
def test_an_image_that_may_do_better_has_its_job_sent_again(
    error: LabelyardError, rig: JobRig, caplog: pytest.LogCaptureFixture
) -> None:
    """The log names the image's own code."""
    job = rig.submit()

    rig.run(job, half(error))

    assert rig.record(job.job_id).state == "pending"
    assert rig.due_in_s(job) is not None
    (retry,) = [record for record in caplog.records if record.message == "job_retry"]
    assert retry.fields["code"] == error.code  # type: ignore[attr-defined]


def test_an_image_that_cannot_do_better_keeps_nothing_back(rig: JobRig) -> None:
    job = rig.submit()

    rig.run(job, half(ImageNotFoundError("s3://photos/gone.jpg")))

    assert rig.record(job.job_id).state == "partial"


def test_the_last_attempt_keeps_what_it_has(rig: JobRig) -> None:
    job = rig.submit()

    for _ in range(rig.settings.max_attempts):
        rig.run(job, half(StorageUnavailableError("s3://photos/gone.jpg")))

    result = rig.record(job.job_id).result
    assert result is not None
    assert result.status == "partial"
    assert [bool(image.labels) for image in result.images] == [True, False]


def test_a_transient_error_of_the_last_attempt_is_the_result(rig: JobRig) -> None:
    job = rig.submit()

    for _ in range(rig.settings.max_attempts):
        rig.run(job, fail_with(JobTimedOutError(job.job_id)))

    result = rig.record(job.job_id).result
    assert result is not None
    assert result.error == Failure.of(JobTimedOutError(job.job_id))
    assert [image.error for image in result.images] == [result.error] * 2


def test_a_label_set_that_nobody_knows_is_not_tried_again(rig: JobRig) -> None:
    job = rig.submit()

    rig.run(job, fail_with(UnknownLabelSetError("pets@sha256:0")))

    record = rig.record(job.job_id)
    assert (record.state, rig.due_in_s(job)) == ("failed", None)


def test_a_job_that_expires_in_work_is_expired(rig: JobRig) -> None:
    soon = datetime.now(UTC) + timedelta(seconds=0.3)
    job = rig.submit(expires_at=soon)

    def expire(job: Job) -> Result:
        wait_until(lambda: datetime.now(UTC) > soon)
        raise JobExpiredError(job.job_id)

    rig.run(job, expire)

    assert rig.record(job.job_id).state == "expired"


def test_a_result_that_comes_after_a_cancel_changes_nothing(rig: JobRig) -> None:
    job = rig.submit()

    def cancel_meanwhile(job: Job) -> Result:
        rig.ledger.cancel(job.job_id)
        return succeed(job)

    rig.run(job, cancel_meanwhile)

    record = rig.record(job.job_id)
    assert (record.state, record.result) == ("cancelled", None)


def test_a_final_job_is_not_run_again(rig: JobRig) -> None:
    job = rig.submit()
    rig.run(job)

    rig.run(job)

    assert rig.seen == [job.job_id]


def test_a_job_that_is_handed_back_has_used_no_attempt(rig: JobRig) -> None:
    job = rig.submit()

    with pytest.raises(MessageReturnedError):
        rig.run(job, fail_with(HandedBackError(job.job_id)))

    record = rig.record(job.job_id)
    assert (record.state, record.attempts, record.runner) == ("pending", 0, "")
    assert rig.due_in_s(job) is None  # the broker still has the message


def test_a_lost_device_stops_the_worker_and_costs_the_job_no_attempt(rig: JobRig) -> None:
    job = rig.submit()

    with pytest.raises(DeviceFailedError):
        rig.run(job, fail_with(DeviceFailedError("CUDA error")))

    record = rig.record(job.job_id)
    assert (record.state, record.attempts, record.deaths) == ("pending", 0, 0)


def test_a_draining_worker_begins_no_job(rig: JobRig) -> None:
    job = rig.submit()
    rig.executor.is_draining = True

    with pytest.raises(MessageReturnedError):
        rig.run(job)

    assert (rig.seen, rig.record(job.job_id).attempts) == ([], 0)


@pytest.mark.parametrize("error", [MemoryError("no room"), ZeroDivisionError("a bug")])
def test_what_no_stage_expected_counts_as_a_death_and_is_tried_again(
    rig: JobRig, error: Exception
) -> None:
    job = rig.submit()

    rig.run(job, fail_with(error))

    record = rig.record(job.job_id)
    assert (record.state, record.deaths) == ("pending", 1)
    assert record.last_death == f"raised {type(error).__name__}: {error}"
    due_in_s = rig.due_in_s(job)
    assert due_in_s is not None
    assert due_in_s <= 0


def test_what_would_end_a_thread_is_a_death_and_the_job_is_sent_again(rig: JobRig) -> None:
    job = rig.submit()

    rig.run(job, fail_with(SystemExit("poison")))

    assert rig.record(job.job_id).deaths == 1
    assert rig.due_in_s(job) is not None


def test_a_ledger_that_is_away_for_the_labels_costs_an_attempt_and_no_death(rig: JobRig) -> None:
    job = rig.submit()

    rig.run(job, fail_with(LedgerUnavailableError("for a moment")))

    record = rig.record(job.job_id)
    assert (record.state, record.attempts, record.deaths) == ("pending", 1, 0)


def test_a_job_whose_workers_died_is_sent_to_quarantine(rig: JobRig) -> None:
    job = rig.submit()
    rig.die_with(job, times=rig.settings.quarantine_after)

    rig.run(job)

    record = rig.record(job.job_id)
    assert (record.state, record.queue, rig.seen) == ("pending", "quarantine", [])
    assert rig.due_in_s(job) is not None


def test_an_innocent_job_passes_its_quarantine(rig: JobRig) -> None:
    job = rig.submit()
    rig.die_with(job, times=rig.settings.quarantine_after)

    rig.run(job, queue=Queue.QUARANTINE)

    assert rig.record(job.job_id).state == "succeeded"


def test_a_job_that_kills_its_worker_alone_is_buried_with_its_reason(rig: JobRig) -> None:
    job = rig.submit()
    rig.die_with(job, times=rig.settings.dead_after, isolation="alone")

    rig.run(job, queue=Queue.QUARANTINE)

    result = rig.record(job.job_id).result
    assert result is not None
    assert result.error is not None
    assert result.error.code == "job_dead_lettered"
    assert "gone-alone-1 died" in result.error.message
    assert (rig.ledger.dead(), rig.seen) == ([job.job_id], [])


def test_a_job_that_runs_at_another_worker_is_left_to_it_and_looked_at_again(rig: JobRig) -> None:
    job = rig.submit()
    rig.die_with(job, times=1)
    rig.live("gone-none-0")

    rig.run(job)

    assert (rig.record(job.job_id).deaths, rig.seen) == (0, [])
    due_in_s = rig.due_in_s(job)
    assert due_in_s is not None
    assert 55 < due_in_s < 61


@contextmanager
def in_work(rig: JobRig, job: Job, *, queue: Queue = Queue.BULK) -> Iterator[None]:
    """Keep a delivery of *job* in work while the block runs."""
    may_end = threading.Event()

    def take_long(job: Job) -> Result:
        may_end.wait()
        return succeed(job)

    with ThreadPoolExecutor(1) as pool:
        delivery = pool.submit(rig.run, job, take_long, queue=queue)
        wait_until(lambda: job.job_id in rig.seen)
        try:
            yield
        finally:
            may_end.set()
            delivery.result(timeout=5)


def test_a_suspect_holds_up_no_job_and_is_held_up_by_none(rig: JobRig) -> None:
    suspect, bulk, interactive = rig.submit(), rig.submit(), rig.submit()
    rig.die_with(suspect, times=rig.settings.quarantine_after)

    with in_work(rig, bulk), in_work(rig, suspect, queue=Queue.QUARANTINE):
        rig.run(interactive)

        assert rig.record(interactive.job_id).state == "succeeded"

    assert rig.record(suspect.job_id).state == "succeeded"


def test_two_suspects_do_not_run_beside_each_other(rig: JobRig) -> None:
    first, second = rig.submit(), rig.submit()
    with ThreadPoolExecutor(1) as pool:
        with in_work(rig, first, queue=Queue.QUARANTINE):
            other = pool.submit(rig.run, second, queue=Queue.QUARANTINE)
            wait_until(lambda: len(rig.executor._single_flight) == 2)
            seen_meanwhile = list(rig.seen)
        other.result(timeout=5)

    assert seen_meanwhile == [first.job_id]
    assert rig.record(second.job_id).state == "succeeded"


def test_a_suspect_whose_next_death_would_bury_it_has_its_worker_to_itself(rig: JobRig) -> None:
    suspect, other = rig.submit(), rig.submit()
    rig.die_with(suspect, times=2)
    rig.die_with(suspect, times=rig.settings.dead_after - 1, isolation="suspect")
    with ThreadPoolExecutor(1) as pool:
        with in_work(rig, other):
            waiting = pool.submit(rig.run, suspect, queue=Queue.QUARANTINE)
            wait_until(lambda: rig.executor._quarantine._has_suspect)
            seen_meanwhile = list(rig.seen)
        waiting.result(timeout=5)

    assert seen_meanwhile == [other.job_id]
    assert rig.record(suspect.job_id).state == "succeeded"


def test_two_deliveries_of_one_job_run_it_once(rig: JobRig) -> None:
    job = rig.submit()
    may_end = threading.Event()

    def take_long(job: Job) -> Result:
        may_end.wait()
        return succeed(job)

    with ThreadPoolExecutor(2) as pool:
        deliveries = [pool.submit(rig.run, job, take_long) for _ in range(2)]
        wait_until(lambda: rig.seen)
        may_end.set()
        for delivery in deliveries:
            delivery.result(timeout=5)

    record = rig.record(job.job_id)
    assert (rig.seen, record.attempts, record.deaths) == ([job.job_id], 1, 0)


def test_a_message_without_a_record_is_adopted(rig: JobRig) -> None:
    """A producer in another language writes to the queue only."""
    job = sample_job(tenant="shop-eu")

    rig.run(job, queue=Queue.BULK)

    record = rig.record(job.job_id)
    assert (record.state, record.tenant, record.queue) == ("succeeded", "shop-eu", "bulk")


def test_a_record_that_was_lost_while_its_job_ran_is_written_again(rig: JobRig) -> None:
    job = rig.submit()

    def lose_record(job: Job) -> Result:
        rig.client.flushdb()
        return succeed(job)

    rig.run(job, lose_record)

    assert rig.record(job.job_id).state == "succeeded"


def test_a_message_that_is_no_job_fails_its_record_on_behalf_of_its_tenant(rig: JobRig) -> None:
    broken = sample_job(tenant="shop-eu").model_copy(update={"top_k": 0})
    rig.ledger.open(broken, queue=Queue.BULK)

    rig.run(broken)

    result = rig.record(broken.job_id).result
    assert result is not None
    assert (result.status, result.tenant, rig.seen) == ("failed", "shop-eu", [])
    assert result.error is not None
    assert (result.error.code, "top_k" in result.error.message) == ("invalid_message", True)


def test_a_message_that_is_no_job_fails_under_its_id_without_a_record(rig: JobRig) -> None:
    job_id = new_job_id()

    rig.run_message({"job_id": job_id, "images": []})

    record = rig.record(job_id)
    assert record.result is not None
    assert record.result.error is not None
    assert record.result.error.code == "invalid_message"
    assert '"images": []' in record.message


def test_a_bad_message_under_the_id_of_a_real_job_does_not_end_that(rig: JobRig) -> None:
    job = rig.submit()

    rig.run_message({"job_id": job.job_id, "images": "stolen"})

    assert rig.record(job.job_id).state == "pending"


@pytest.mark.parametrize("message", [None, 7, "text", ["a"], {}, {"job_id": 7}, {"job_id": "../"}])
def test_a_message_without_a_usable_id_is_set_aside_for_the_operator(
    rig: JobRig, message: object, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.ERROR, logger="labelyard_worker"):
        rig.run_message(message)

    [kept] = SetAside(rig.client, rig.settings).messages()
    assert kept.raw.decode() in (json.dumps(message), message)
    assert [record.getMessage() for record in caplog.records] == ["job_refused"]


def test_a_job_ends_while_its_receiver_hangs(ledger_url: str) -> None:
    """The slot is free, and the message acknowledged, before the result is delivered."""
    settings = delivery_settings(ledger_url, webhook_timeout_s=20.0)
    with running_slow_receiver() as slow, closing(JobRig(settings)) as rig:
        rig.deliveries.start()
        job = rig.submit(deliver=Deliver(webhook=slow.url))

        rig.run(job)

        assert (rig.record(job.job_id).state, len(rig.running)) == ("succeeded", 0)
        wait_until(lambda: slow.calls == 1)
        assert rig.record(job.job_id).undelivered == ("webhook",)


@pytest.mark.parametrize("has_worker", [True, False], ids=["with room", "without room"])
def test_a_result_is_delivered_by_its_worker_or_by_whoever_has_room(
    ledger_url: str, has_worker: bool
) -> None:
    with running_receiver() as receiver, closing(JobRig(delivery_settings(ledger_url))) as rig:
        if has_worker:
            rig.deliveries.start()
        job = rig.submit(deliver=Deliver(webhook=receiver.url))

        rig.run(job)
        if not has_worker:
            rig.deliveries.start()

        wait_until(lambda: rig.record(job.job_id).undelivered == ())
        assert len(receiver.hooks) == 1


def test_a_message_of_a_finished_job_delivers_nothing_twice(ledger_url: str) -> None:
    with running_receiver() as receiver, closing(JobRig(delivery_settings(ledger_url))) as rig:
        rig.deliveries.start()
        job = rig.submit(deliver=Deliver(webhook=receiver.url))
        rig.run(job)

        rig.run(job)

        wait_until(lambda: rig.record(job.job_id).undelivered == ())
        assert (rig.seen, len(receiver.hooks)) == ([job.job_id], 1)


def test_the_end_of_a_job_waits_until_the_ledger_is_back(own_valkey: ValkeyServer) -> None:
    with closing(JobRig(rig_settings(own_valkey.url))) as rig, ThreadPoolExecutor(1) as pool:
        job = rig.submit()

        def lose_ledger(job: Job) -> Result:
            own_valkey.stop()
            return succeed(job)

        delivery = pool.submit(rig.run, job, lose_ledger)
        wait_until(lambda: not own_valkey.is_running())
        own_valkey.start()
        delivery.result(timeout=30)

        assert rig.record(job.job_id).state == "succeeded"


def test_a_draining_worker_does_not_wait_for_the_ledger(own_valkey: ValkeyServer) -> None:
    with closing(JobRig(rig_settings(own_valkey.url))) as rig:
        job = rig.submit()

        def lose_ledger(job: Job) -> Result:
            own_valkey.stop()
            rig.executor.is_draining = True
            return succeed(job)

        with pytest.raises(MessageReturnedError):
            rig.run(job, lose_ledger)


def test_the_log_tells_of_a_job_without_its_labels_and_addresses(
    rig: JobRig, caplog: pytest.LogCaptureFixture
) -> None:
    job = rig.submit(trace={"traceparent": "00-abc"})

    with caplog.at_level(logging.INFO, logger="labelyard_worker"):
        rig.run(job, fail_with(StorageUnavailableError("s3://photos/cat.jpg")))
        rig.run(job)

    events = {record.getMessage(): vars(record)["fields"] for record in caplog.records}
    assert events["job_done"]["trace"] == {"traceparent": "00-abc"}
    assert events["job_retry"]["code"] == "storage_unavailable"
    assert not any(word in str(events) for word in ("s3://", "a bowl of soup"))
