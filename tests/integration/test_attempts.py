"""Each delivery of a job comes to one end, which the ledger knows; on a real Valkey."""

import json
import logging
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

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
from labelyard.ledger import Isolation, Ledger, Queue, Record, backoff_s, connect
from labelyard.messages import Deliver, Failure, Job, Result, new_job_id
from labelyard.set_aside import SetAside
from labelyard.testing import sample_job, sample_result
from labelyard.testing.samples import fail_image, score_image
from labelyard_worker.delivery.pool import DeliveryPool
from labelyard_worker.delivery.senders import senders_of
from labelyard_worker.durability.attempts import Attempts, MessageReturnedError
from labelyard_worker.durability.watchdog import Watchdog
from labelyard_worker.local.servers import ValkeyServer
from labelyard_worker.settings import WorkerSettings
from labelyard_worker.tokens import HandedBackError, RunningJobs, Token
from tests.support.delivering import delivery_settings
from tests.support.receiver import running_receiver, running_slow_receiver
from tests.support.waiting import wait_until

Answer = Callable[[Job], Result]


def succeed(job: Job) -> Result:
    return sample_result(job=job)


def fail_with(error: BaseException) -> Answer:
    def answer(job: Job) -> Result:
        raise error

    return answer


def half(error: LabelyardError) -> Answer:
    """Score the first image, and fail the second."""

    def answer(job: Job) -> Result:
        first, second = job.images
        images = (score_image(first, job), fail_image(second, error))
        return sample_result("partial", job=job).model_copy(update={"images": images})

    return answer


class Bench:
    """One worker's attempts, and the ledger to look at them."""

    def __init__(self, settings: WorkerSettings, *, worker: str = "w1") -> None:
        self.settings = settings
        self.client = connect(settings)
        self.ledger = Ledger(self.client, settings)
        self.running = RunningJobs()
        self.worker = worker
        self.live(worker)
        self.deliveries = DeliveryPool(
            worker=worker, ledger=self.ledger, senders=senders_of(settings), look_every_s=0.05
        )
        self.attempts = Attempts(
            worker=worker,
            ledger=self.ledger,
            delivery=self.deliveries,
            watchdog=Watchdog(model_busy_s=lambda: 0.0, model_timeout_s=60.0, is_on=False),
            running=self.running,
            settings=settings,
        )
        self.seen: list[str] = []

    def close(self) -> None:
        self.deliveries.close()
        self.client.close()

    def live(self, worker: str) -> None:
        """Say that *worker* lives."""
        self.client.set(self.ledger.calls.key(f"worker:{worker}"), "[]", ex=60)

    def submit(self, queue: Queue = "interactive", **changes: Any) -> Job:
        job = sample_job(**changes)
        self.ledger.open(job, queue=queue)
        return job

    def run(self, job: Job, answer: Answer = succeed, *, queue: Queue = "interactive") -> None:
        """Deliver the job's message."""
        self.run_message(job.model_dump(mode="json"), answer, queue=queue)

    def run_message(
        self, message: Any, answer: Answer = succeed, *, queue: Queue = "interactive"
    ) -> None:
        def classify(job: Job, queue: Queue, token: Token) -> Result:
            self.seen.append(job.job_id)
            return answer(job)

        self.attempts.run(message, queue=queue, classify=classify)

    def record(self, job_id: str) -> Record:
        record = self.ledger.read(job_id)
        assert record is not None
        return record

    def due_in_s(self, job: Job) -> float | None:
        """Tell in how many seconds the job is to be sent again."""
        due = self.client.zscore(self.ledger.calls.key("due"), job.job_id)
        seconds, microseconds = self.client.time()
        return None if due is None else float(due) - seconds - microseconds / 1_000_000

    def die_with(self, job: Job, *, times: int, isolation: Isolation = "none") -> None:
        """Have workers begin the job and vanish."""
        for number in range(times):
            self.ledger.start(
                job.job_id,
                worker=f"gone-{isolation}-{number}",
                isolation=isolation,
                quarantine_after=99,
                dead_after=99,
            )


def bench_settings(ledger_url: str, **changes: Any) -> WorkerSettings:
    return WorkerSettings(
        **{"ledger_url": ledger_url, "namespace": "test", "max_attempts": 3, **changes}
    )


@pytest.fixture
def bench(ledger_url: str) -> Iterator[Bench]:
    with closing(Bench(bench_settings(ledger_url))) as made:
        yield made


def test_a_job_that_succeeds_has_its_result_and_how_long_it_was_queued(bench: Bench) -> None:
    job = bench.submit()

    bench.run(job)

    record = bench.record(job.job_id)
    assert (record.state, record.attempts) == ("succeeded", 1)
    assert record.result is not None
    assert 0 < record.result.timing.queued_s < 60
    assert bench.attempts.finished == 1
    assert len(bench.running) == 0


@pytest.mark.parametrize(
    "error", [StorageUnavailableError("s3"), BatcherFullError("x"), JobTimedOutError("x")]
)
def test_a_transient_error_has_the_job_sent_again_after_a_while(
    bench: Bench, error: LabelyardError
) -> None:
    job = bench.submit()

    bench.run(job, fail_with(error))

    record = bench.record(job.job_id)
    assert (record.state, record.attempts, record.deaths) == ("pending", 1, 0)
    due_in_s = bench.due_in_s(job)
    assert due_in_s is not None
    assert -1 < due_in_s <= backoff_s(1)


@pytest.mark.parametrize("error", [StorageUnavailableError("s3"), BatcherFullError("x")])
def test_an_image_that_may_do_better_has_its_job_sent_again(
    error: LabelyardError, bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    """The log names the image's own code."""
    job = bench.submit()

    bench.run(job, half(error))

    assert bench.record(job.job_id).state == "pending"
    assert bench.due_in_s(job) is not None
    (retry,) = [record for record in caplog.records if record.message == "job_retry"]
    assert retry.fields["code"] == error.code  # type: ignore[attr-defined]


def test_an_image_that_cannot_do_better_keeps_nothing_back(bench: Bench) -> None:
    job = bench.submit()

    bench.run(job, half(ImageNotFoundError("s3://photos/gone.jpg")))

    assert bench.record(job.job_id).state == "partial"


def test_the_last_attempt_keeps_what_it_has(bench: Bench) -> None:
    job = bench.submit()

    for _ in range(bench.settings.max_attempts):
        bench.run(job, half(StorageUnavailableError("s3://photos/gone.jpg")))

    result = bench.record(job.job_id).result
    assert result is not None
    assert result.status == "partial"
    assert [bool(image.labels) for image in result.images] == [True, False]


def test_a_transient_error_of_the_last_attempt_is_the_result(bench: Bench) -> None:
    job = bench.submit()

    for _ in range(bench.settings.max_attempts):
        bench.run(job, fail_with(JobTimedOutError(job.job_id)))

    result = bench.record(job.job_id).result
    assert result is not None
    assert result.error == Failure.of(JobTimedOutError(job.job_id))
    assert [image.error for image in result.images] == [result.error] * 2


def test_a_label_set_that_nobody_knows_is_not_tried_again(bench: Bench) -> None:
    job = bench.submit()

    bench.run(job, fail_with(UnknownLabelSetError("pets@sha256:0")))

    record = bench.record(job.job_id)
    assert (record.state, bench.due_in_s(job)) == ("failed", None)


def test_a_job_that_expires_in_work_is_expired(bench: Bench) -> None:
    soon = datetime.now(UTC) + timedelta(seconds=0.3)
    job = bench.submit(expires_at=soon)

    def expire(job: Job) -> Result:
        wait_until(lambda: datetime.now(UTC) > soon)
        raise JobExpiredError(job.job_id)

    bench.run(job, expire)

    assert bench.record(job.job_id).state == "expired"


def test_a_result_that_comes_after_a_cancel_changes_nothing(bench: Bench) -> None:
    job = bench.submit()

    def cancel_meanwhile(job: Job) -> Result:
        bench.ledger.cancel(job.job_id)
        return succeed(job)

    bench.run(job, cancel_meanwhile)

    record = bench.record(job.job_id)
    assert (record.state, record.result) == ("cancelled", None)


def test_a_final_job_is_not_run_again(bench: Bench) -> None:
    job = bench.submit()
    bench.run(job)

    bench.run(job)

    assert bench.seen == [job.job_id]


def test_a_job_that_is_handed_back_has_used_no_attempt(bench: Bench) -> None:
    job = bench.submit()

    with pytest.raises(MessageReturnedError):
        bench.run(job, fail_with(HandedBackError(job.job_id)))

    record = bench.record(job.job_id)
    assert (record.state, record.attempts, record.runner) == ("pending", 0, "")
    assert bench.due_in_s(job) is None  # the broker still has the message


def test_a_lost_device_stops_the_worker_and_costs_the_job_no_attempt(bench: Bench) -> None:
    job = bench.submit()

    with pytest.raises(DeviceFailedError):
        bench.run(job, fail_with(DeviceFailedError("CUDA error")))

    record = bench.record(job.job_id)
    assert (record.state, record.attempts, record.deaths) == ("pending", 0, 0)


def test_a_draining_worker_begins_no_job(bench: Bench) -> None:
    job = bench.submit()
    bench.attempts.is_draining = True

    with pytest.raises(MessageReturnedError):
        bench.run(job)

    assert (bench.seen, bench.record(job.job_id).attempts) == ([], 0)


@pytest.mark.parametrize("error", [MemoryError("no room"), ZeroDivisionError("a bug")])
def test_what_no_stage_expected_counts_as_a_death_and_is_tried_again(
    bench: Bench, error: Exception
) -> None:
    job = bench.submit()

    bench.run(job, fail_with(error))

    record = bench.record(job.job_id)
    assert (record.state, record.deaths) == ("pending", 1)
    assert record.last_death == f"raised {type(error).__name__}: {error}"
    due_in_s = bench.due_in_s(job)
    assert due_in_s is not None
    assert due_in_s <= 0


def test_what_would_end_a_thread_is_a_death_and_the_job_is_sent_again(bench: Bench) -> None:
    job = bench.submit()

    bench.run(job, fail_with(SystemExit("poison")))

    assert bench.record(job.job_id).deaths == 1
    assert bench.due_in_s(job) is not None


def test_a_ledger_that_is_away_for_the_labels_costs_an_attempt_and_no_death(bench: Bench) -> None:
    job = bench.submit()

    bench.run(job, fail_with(LedgerUnavailableError("for a moment")))

    record = bench.record(job.job_id)
    assert (record.state, record.attempts, record.deaths) == ("pending", 1, 0)


def test_a_job_whose_workers_died_is_sent_to_quarantine(bench: Bench) -> None:
    job = bench.submit()
    bench.die_with(job, times=bench.settings.quarantine_after)

    bench.run(job)

    record = bench.record(job.job_id)
    assert (record.state, record.queue, bench.seen) == ("pending", "quarantine", [])
    assert bench.due_in_s(job) is not None


def test_an_innocent_job_passes_its_quarantine(bench: Bench) -> None:
    job = bench.submit()
    bench.die_with(job, times=bench.settings.quarantine_after)

    bench.run(job, queue="quarantine")

    assert bench.record(job.job_id).state == "succeeded"


def test_a_job_that_kills_its_worker_alone_is_buried_with_its_reason(bench: Bench) -> None:
    job = bench.submit()
    bench.die_with(job, times=bench.settings.dead_after, isolation="alone")

    bench.run(job, queue="quarantine")

    result = bench.record(job.job_id).result
    assert result is not None
    assert result.error is not None
    assert result.error.code == "job_dead_lettered"
    assert "gone-alone-1 died" in result.error.message
    assert (bench.ledger.dead(), bench.seen) == ([job.job_id], [])


def test_a_job_that_runs_at_another_worker_is_left_to_it_and_looked_at_again(bench: Bench) -> None:
    job = bench.submit()
    bench.die_with(job, times=1)
    bench.live("gone-none-0")

    bench.run(job)

    assert (bench.record(job.job_id).deaths, bench.seen) == (0, [])
    due_in_s = bench.due_in_s(job)
    assert due_in_s is not None
    assert 55 < due_in_s < 61


@contextmanager
def in_work(bench: Bench, job: Job, *, queue: Queue = "bulk") -> Iterator[None]:
    """Keep a delivery of *job* in work while the block runs."""
    may_end = threading.Event()

    def take_long(job: Job) -> Result:
        may_end.wait()
        return succeed(job)

    with ThreadPoolExecutor(1) as pool:
        delivery = pool.submit(bench.run, job, take_long, queue=queue)
        wait_until(lambda: job.job_id in bench.seen)
        try:
            yield
        finally:
            may_end.set()
            delivery.result(timeout=5)


def test_a_suspect_holds_up_no_job_and_is_held_up_by_none(bench: Bench) -> None:
    suspect, bulk, interactive = bench.submit(), bench.submit(), bench.submit()
    bench.die_with(suspect, times=bench.settings.quarantine_after)

    with in_work(bench, bulk), in_work(bench, suspect, queue="quarantine"):
        bench.run(interactive)

        assert bench.record(interactive.job_id).state == "succeeded"

    assert bench.record(suspect.job_id).state == "succeeded"


def test_two_suspects_do_not_run_beside_each_other(bench: Bench) -> None:
    first, second = bench.submit(), bench.submit()
    with ThreadPoolExecutor(1) as pool:
        with in_work(bench, first, queue="quarantine"):
            other = pool.submit(bench.run, second, queue="quarantine")
            wait_until(lambda: len(bench.attempts._single_flight) == 2)
            seen_meanwhile = list(bench.seen)
        other.result(timeout=5)

    assert seen_meanwhile == [first.job_id]
    assert bench.record(second.job_id).state == "succeeded"


def test_a_suspect_whose_next_death_would_bury_it_has_its_worker_to_itself(bench: Bench) -> None:
    suspect, other = bench.submit(), bench.submit()
    bench.die_with(suspect, times=2)
    bench.die_with(suspect, times=bench.settings.dead_after - 1, isolation="suspect")
    with ThreadPoolExecutor(1) as pool:
        with in_work(bench, other):
            waiting = pool.submit(bench.run, suspect, queue="quarantine")
            wait_until(lambda: bench.attempts._quarantine._has_suspect)
            seen_meanwhile = list(bench.seen)
        waiting.result(timeout=5)

    assert seen_meanwhile == [other.job_id]
    assert bench.record(suspect.job_id).state == "succeeded"


def test_two_deliveries_of_one_job_run_it_once(bench: Bench) -> None:
    job = bench.submit()
    may_end = threading.Event()

    def take_long(job: Job) -> Result:
        may_end.wait()
        return succeed(job)

    with ThreadPoolExecutor(2) as pool:
        deliveries = [pool.submit(bench.run, job, take_long) for _ in range(2)]
        wait_until(lambda: bench.seen)
        may_end.set()
        for delivery in deliveries:
            delivery.result(timeout=5)

    record = bench.record(job.job_id)
    assert (bench.seen, record.attempts, record.deaths) == ([job.job_id], 1, 0)


def test_a_message_without_a_record_is_adopted(bench: Bench) -> None:
    """A producer in another language writes to the queue only."""
    job = sample_job(tenant="shop-eu")

    bench.run(job, queue="bulk")

    record = bench.record(job.job_id)
    assert (record.state, record.tenant, record.queue) == ("succeeded", "shop-eu", "bulk")


def test_a_record_that_was_lost_while_its_job_ran_is_written_again(bench: Bench) -> None:
    job = bench.submit()

    def lose_record(job: Job) -> Result:
        bench.client.flushdb()
        return succeed(job)

    bench.run(job, lose_record)

    assert bench.record(job.job_id).state == "succeeded"


def test_a_message_that_is_no_job_fails_its_record_on_behalf_of_its_tenant(bench: Bench) -> None:
    broken = sample_job(tenant="shop-eu").model_copy(update={"top_k": 0})
    bench.ledger.open(broken, queue="bulk")

    bench.run(broken)

    result = bench.record(broken.job_id).result
    assert result is not None
    assert (result.status, result.tenant, bench.seen) == ("failed", "shop-eu", [])
    assert result.error is not None
    assert (result.error.code, "top_k" in result.error.message) == ("invalid_message", True)


def test_a_message_that_is_no_job_fails_under_its_id_without_a_record(bench: Bench) -> None:
    job_id = new_job_id()

    bench.run_message({"job_id": job_id, "images": []})

    record = bench.record(job_id)
    assert record.result is not None
    assert record.result.error is not None
    assert record.result.error.code == "invalid_message"
    assert '"images": []' in record.message


def test_a_bad_message_under_the_id_of_a_real_job_does_not_end_that(bench: Bench) -> None:
    job = bench.submit()

    bench.run_message({"job_id": job.job_id, "images": "stolen"})

    assert bench.record(job.job_id).state == "pending"


@pytest.mark.parametrize("message", [None, 7, "text", ["a"], {}, {"job_id": 7}, {"job_id": "../"}])
def test_a_message_without_a_usable_id_is_set_aside_for_the_operator(
    bench: Bench, message: object, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.ERROR, logger="labelyard_worker"):
        bench.run_message(message)

    [kept] = SetAside(bench.client, bench.settings).messages()
    assert kept.raw.decode() in (json.dumps(message), message)
    assert [record.getMessage() for record in caplog.records] == ["job_refused"]


def test_a_job_ends_while_its_receiver_hangs(ledger_url: str) -> None:
    """The slot is free, and the message acknowledged, before the result is delivered."""
    settings = delivery_settings(ledger_url, webhook_timeout_s=20.0)
    with running_slow_receiver() as slow, closing(Bench(settings)) as bench:
        bench.deliveries.start()
        job = bench.submit(deliver=Deliver(webhook=slow.url))

        bench.run(job)

        assert (bench.record(job.job_id).state, len(bench.running)) == ("succeeded", 0)
        wait_until(lambda: slow.calls == 1)
        assert bench.record(job.job_id).undelivered == ("webhook",)


@pytest.mark.parametrize("has_worker", [True, False], ids=["with room", "without room"])
def test_a_result_is_delivered_by_its_worker_or_by_whoever_has_room(
    ledger_url: str, has_worker: bool
) -> None:
    with running_receiver() as receiver, closing(Bench(delivery_settings(ledger_url))) as bench:
        if has_worker:
            bench.deliveries.start()
        job = bench.submit(deliver=Deliver(webhook=receiver.url))

        bench.run(job)
        if not has_worker:
            bench.deliveries.start()

        wait_until(lambda: bench.record(job.job_id).undelivered == ())
        assert len(receiver.hooks) == 1


def test_a_message_of_a_finished_job_delivers_nothing_twice(ledger_url: str) -> None:
    with running_receiver() as receiver, closing(Bench(delivery_settings(ledger_url))) as bench:
        bench.deliveries.start()
        job = bench.submit(deliver=Deliver(webhook=receiver.url))
        bench.run(job)

        bench.run(job)

        wait_until(lambda: bench.record(job.job_id).undelivered == ())
        assert (bench.seen, len(receiver.hooks)) == ([job.job_id], 1)


def test_the_end_of_a_job_waits_until_the_ledger_is_back(own_valkey: ValkeyServer) -> None:
    with closing(Bench(bench_settings(own_valkey.url))) as bench, ThreadPoolExecutor(1) as pool:
        job = bench.submit()

        def lose_ledger(job: Job) -> Result:
            own_valkey.stop()
            return succeed(job)

        delivery = pool.submit(bench.run, job, lose_ledger)
        wait_until(lambda: not own_valkey.is_running())
        own_valkey.start()
        delivery.result(timeout=30)

        assert bench.record(job.job_id).state == "succeeded"


def test_a_draining_worker_does_not_wait_for_the_ledger(own_valkey: ValkeyServer) -> None:
    with closing(Bench(bench_settings(own_valkey.url))) as bench:
        job = bench.submit()

        def lose_ledger(job: Job) -> Result:
            own_valkey.stop()
            bench.attempts.is_draining = True
            return succeed(job)

        with pytest.raises(MessageReturnedError):
            bench.run(job, lose_ledger)


def test_the_log_tells_of_a_job_without_its_labels_and_addresses(
    bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    job = bench.submit(trace={"traceparent": "00-abc"})

    with caplog.at_level(logging.INFO, logger="labelyard_worker"):
        bench.run(job, fail_with(StorageUnavailableError("s3://photos/cat.jpg")))
        bench.run(job)

    events = {record.getMessage(): vars(record)["fields"] for record in caplog.records}
    assert events["job_done"]["trace"] == {"traceparent": "00-abc"}
    assert events["job_retry"]["code"] == "storage_unavailable"
    assert not any(word in str(events) for word in ("s3://", "a bowl of soup"))
