"""A second kind of work passes the executor: its result is an object, and it splits itself."""

import threading
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from labelyard.errors import (
    DeviceFailedError,
    InvalidMessageError,
    JobTimedOutError,
    StorageUnavailableError,
    UnknownLabelSetError,
)
from labelyard.ledger import Ledger, Pending, backoff_s
from labelyard.ledger.commands import job_digest
from labelyard.messages import Failure, ImageRef, Job, Result, parse_job
from labelyard.queues import Queue
from labelyard.testing import sample_job
from labelyard_worker.jobs.cancellation import Token, handed_back
from labelyard_worker.jobs.errors import MessageReturnedError
from labelyard_worker.jobs.work import ReceivedMessage, Work
from tests.integration.jobs.job_rig import JobRig, rig_settings
from tests.support.waiting import wait_until


@dataclass(frozen=True)
class Count:
    """A shard's result: the object that holds it, or why there is none."""

    object_uri: str = ""
    lines: int = 0
    error: Failure | None = None


ScoreLine = Callable[[ImageRef, Token], str]


@dataclass(frozen=True)
class Shard(Work[Count]):
    """Some lines of a manifest; the record of a job carries them here."""

    record: Job
    folder: Path
    score: ScoreLine

    @property
    def job_id(self) -> str:
        return self.record.job_id

    @property
    def tenant(self) -> str:
        return self.record.tenant

    @property
    def digest(self) -> str:
        return job_digest(self.record)

    def to_json(self) -> str:
        return self.record.model_dump_json()

    def adopt(self, ledger: Ledger, *, queue: Queue) -> bool:
        return ledger.adopt(self.record, queue=queue)

    def run(self, token: Token, *, queued_s: float) -> Count:
        lines = [self.score(line, token) for line in self.record.images]
        path = self.folder / f"results-{self.job_id}.txt"
        path.write_text("\n".join(lines))
        return Count(path.as_uri(), len(lines))

    def failed(self, failure: Failure) -> Count:
        return Count(error=failure)

    def split(self, ledger: Ledger, *, reason: str) -> Count | None:
        lines = self.record.images
        if len(lines) == 1:
            return None
        for name, half in (("a", lines[: len(lines) // 2]), ("b", lines[len(lines) // 2 :])):
            part = self.record.model_copy(
                update={"job_id": f"{self.job_id}-{name}", "images": half}
            )
            ledger.open(part, queue=Queue.BULK)
        return Count()

    def finish(self, ledger: Ledger, result: Count, *, pending: Pending, is_dead: bool) -> bool:
        written = Result(
            job_id=self.job_id,
            tenant=self.tenant,
            status="failed" if result.error else "succeeded",
            error=result.error,
            object_uri=result.object_uri or None,
        )
        return ledger.finish(self.job_id, written, pending=pending, is_dead=is_dead)

    def describe(self, result: Count) -> Mapping[str, object]:
        return {"lines": result.lines}


class ShardRig(JobRig):
    """An executor that gets messages of shards."""

    def __init__(self, url: str, folder: Path) -> None:
        super().__init__(rig_settings(url))
        self.folder = folder

    def run_shard(
        self, record: Job, score: ScoreLine | None = None, *, queue: Queue = Queue.BULK
    ) -> None:
        """Deliver the shard's message."""

        def score_and_note(line: ImageRef, token: Token) -> str:
            self.seen.append(line.id)
            return score(line, token) if score else line.uri

        def read(message: ReceivedMessage) -> Shard:
            return Shard(parse_job(message.body), self.folder, score_and_note)

        self.executor.run(ReceivedMessage(record.model_dump_json(), queue), read)


@pytest.fixture
def rig(ledger_url: str, tmp_path: Path) -> Iterator[ShardRig]:
    with closing(ShardRig(ledger_url, tmp_path)) as made:
        yield made


def raising(error: BaseException) -> ScoreLine:
    def score(line: ImageRef, token: Token) -> str:
        raise error

    return score


def test_its_result_is_an_object_that_the_record_names(
    rig: ShardRig, caplog: pytest.LogCaptureFixture
) -> None:
    shard = rig.submit(Queue.BULK)

    with caplog.at_level("INFO"):
        rig.run_shard(shard)

    result = rig.record(shard.job_id).result
    assert result is not None
    assert (result.status, result.images) == ("succeeded", ())
    [path] = rig.folder.iterdir()
    assert result.object_uri == path.as_uri()
    assert path.read_text().splitlines() == [image.uri for image in shard.images]
    [done] = [record for record in caplog.records if record.message == "job_done"]
    assert vars(done)["fields"] == {"job_id": shard.job_id, "first": True, "lines": 2}


def test_a_transient_error_has_it_sent_again_and_the_next_attempt_finishes_it(
    rig: ShardRig,
) -> None:
    shard = rig.submit(Queue.BULK)

    rig.run_shard(shard, raising(StorageUnavailableError("s3")))

    assert (rig.record(shard.job_id).state, rig.record(shard.job_id).attempts) == ("pending", 1)
    due_in_s = rig.due_in_s(shard)
    assert due_in_s is not None
    assert due_in_s <= backoff_s(1)

    rig.run_shard(shard)

    assert rig.record(shard.job_id).state == "succeeded"


@pytest.mark.parametrize(
    ("error", "times"), [(UnknownLabelSetError("x"), 1), (JobTimedOutError("x"), 3)]
)
def test_an_error_that_no_retry_helps_is_its_result(
    rig: ShardRig, error: UnknownLabelSetError | JobTimedOutError, times: int
) -> None:
    shard = rig.submit(Queue.BULK)

    for _ in range(times):
        rig.run_shard(shard, raising(error))

    result = rig.record(shard.job_id).result
    assert result is not None
    assert (result.status, result.error, result.object_uri) == ("failed", Failure.of(error), None)


def test_it_expires_by_its_token(rig: ShardRig) -> None:
    shard = rig.submit(Queue.BULK, expires_at=datetime.now(UTC) + timedelta(seconds=0.3))

    def score(line: ImageRef, token: Token) -> str:
        token.wait_until(lambda wait_s: threading.Event().wait(wait_s))
        raise AssertionError

    for _ in range(2):  # a moment too early for the ledger, it is run again
        rig.run_shard(shard, score)

    assert rig.record(shard.job_id).state == "expired"


def test_a_cancel_stops_it_and_stands(rig: ShardRig) -> None:
    shard = rig.submit(Queue.BULK)

    def score(line: ImageRef, token: Token) -> str:
        rig.ledger.cancel(shard.job_id)
        return line.uri

    rig.run_shard(shard, score)

    record = rig.record(shard.job_id)
    assert (record.state, record.result) == ("cancelled", None)


def test_a_drain_hands_it_back_without_an_attempt(rig: ShardRig) -> None:
    shard = rig.submit(Queue.BULK)

    def score(line: ImageRef, token: Token) -> str:
        token.wait_until(lambda wait_s: threading.Event().wait(wait_s))
        raise AssertionError

    with ThreadPoolExecutor(1) as pool:
        delivery = pool.submit(rig.run_shard, shard, score)
        wait_until(lambda: rig.seen)
        rig.running.stop_all(handed_back)
        with pytest.raises(MessageReturnedError):
            delivery.result(timeout=5)

    record = rig.record(shard.job_id)
    assert (record.state, record.attempts, rig.due_in_s(shard)) == ("pending", 0, None)


def test_a_lost_device_hands_it_back_and_stops_the_worker(rig: ShardRig) -> None:
    shard = rig.submit(Queue.BULK)

    with pytest.raises(DeviceFailedError):
        rig.run_shard(shard, raising(DeviceFailedError("CUDA error")))

    assert (rig.record(shard.job_id).state, rig.record(shard.job_id).attempts) == ("pending", 0)


def test_an_error_that_breaks_its_thread_is_a_death_and_deaths_lead_to_quarantine(
    rig: ShardRig,
) -> None:
    shard = rig.submit(Queue.BULK)
    for _ in range(rig.settings.quarantine_after):
        rig.run_shard(shard, raising(MemoryError("no room")))

    rig.run_shard(shard)

    record = rig.record(shard.job_id)
    assert (record.queue, record.deaths) == ("quarantine", rig.settings.quarantine_after)

    rig.run_shard(shard, queue=Queue.QUARANTINE)

    assert rig.record(shard.job_id).state == "succeeded"


def test_one_that_keeps_killing_its_workers_is_split_and_not_buried(
    rig: ShardRig, caplog: pytest.LogCaptureFixture
) -> None:
    shard = rig.submit(Queue.BULK)
    rig.die_with(shard, times=rig.settings.dead_after, isolation="alone")

    rig.run_shard(shard, queue=Queue.QUARANTINE)

    assert rig.record(shard.job_id).is_final
    assert (rig.ledger.dead(), rig.seen) == ([], [])
    halves = [rig.record(f"{shard.job_id}-{name}") for name in "ab"]
    assert [half.state for half in halves] == ["pending", "pending"]
    ids = [image.id for half in halves for image in half.job().images]
    assert ids == [image.id for image in shard.images]
    assert "job_split" in [record.message for record in caplog.records]


def test_one_that_cannot_be_split_is_buried(rig: ShardRig) -> None:
    [line, *_] = sample_job().images
    shard = rig.submit(Queue.BULK, images=(line,))
    rig.die_with(shard, times=rig.settings.dead_after, isolation="alone")

    rig.run_shard(shard, queue=Queue.QUARANTINE)

    result = rig.record(shard.job_id).result
    assert result is not None
    assert result.error is not None
    assert (result.error.code, rig.ledger.dead()) == ("job_dead_lettered", [shard.job_id])


def test_its_message_without_a_record_is_adopted(rig: ShardRig) -> None:
    shard = sample_job()

    rig.run_shard(shard)

    record = rig.record(shard.job_id)
    assert (record.state, record.queue) == ("succeeded", Queue.BULK)


def test_a_message_that_its_kind_cannot_read_is_failed_under_its_id(rig: ShardRig) -> None:
    shard = sample_job()

    def read(message: ReceivedMessage) -> Shard:
        raise InvalidMessageError("not a shard")

    rig.executor.run(ReceivedMessage(f'{{"job_id": "{shard.job_id}"}}', Queue.BULK), read)

    assert rig.record(shard.job_id).state == "failed"
