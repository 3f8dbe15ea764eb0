"""One of the workers republishes jobs that have no message in the broker; on real servers."""

import base64
import json
import logging
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import redis

from labelyard.ledger import Ledger, connect
from labelyard.messages import Job
from labelyard.publisher import Outgoing, Publisher
from labelyard.queues import Queue
from labelyard.testing import sample_job
from labelyard_worker.local.embedded import choose_ports
from labelyard_worker.maintenance import reconciler as reconciler_module
from labelyard_worker.maintenance.broker_view import BrokerSnapshot, QueueSnapshot, RedisBrokerView
from labelyard_worker.maintenance.leader import LeaderElection
from labelyard_worker.maintenance.reconciler import Reconciler, is_orphan
from labelyard_worker.metrics import REPUBLISHED
from labelyard_worker.settings import WorkerSettings
from tests.support.waiting import wait_until

NAMESPACE = "test"


class ReconcilerRig:
    """Reconcilers of some workers, the ledger, and the queues that they fill."""

    def __init__(self, stack: ExitStack, *, broker_url: str, ledger_url: str) -> None:
        self.settings = WorkerSettings(
            broker_url=broker_url, ledger_url=ledger_url, namespace=NAMESPACE
        )
        self._stack = stack
        self.client = stack.enter_context(closing(connect(self.settings)))
        self.ledger = Ledger(self.client, self.settings)
        self.publisher = stack.enter_context(closing(Publisher(self.settings, timeout_s=0.3)))
        self.broker = stack.enter_context(closing(RedisBrokerView(self.settings)))
        self.queues = stack.enter_context(redis.Redis.from_url(broker_url, decode_responses=True))
        self.reconciler = self.worker("w1")

    def worker(self, name: str, *, after_s: float = 0.0) -> Reconciler:
        """Make a reconciler, which is closed after the test."""
        reconciler = Reconciler(
            leader=LeaderElection(self.ledger, worker=name),
            ledger=self.ledger,
            publisher=self.publisher,
            broker=self.broker,
            every_s=0.1,
            after_s=after_s,
        )
        self._stack.callback(reconciler.close)
        return reconciler

    def open(self, queue: Any = "bulk", **changes: Any) -> Job:
        """Write a record; no message is sent."""
        job = sample_job(**changes)
        self.ledger.open(job, queue=queue)
        return job

    def submit(self, queue: Any = "bulk") -> Job:
        """Write a record and send its message."""
        job = sample_job()
        opened = self.ledger.open(job, queue=queue)
        assert self.publisher.publish(job, queue=queue, published_at=opened.at)
        return job

    def start(self, job: Job, *, worker: str, says: list[str] | None) -> None:
        """Have a worker begin the job and write its presence key; ``None``: it is gone."""
        if says is not None:
            key = self.ledger.keys.worker(worker)
            self.client.set(key, json.dumps(says), ex=60)
        self.ledger.start(job.job_id, worker=worker, quarantine_after=9, dead_after=9)

    def sent(self, queue: str) -> list[dict[str, Any]]:
        """Read a queue's messages, oldest first."""
        raw = self.queues.lrange(f"{NAMESPACE}.{queue}", 0, -1)
        return [json.loads(message) for message in reversed(raw)]

    def sent_ids(self, queue: str) -> list[str]:
        return [message["headers"]["id"] for message in self.sent(queue)]


@pytest.fixture
def rig(broker_url: str, ledger_url: str) -> Iterator[ReconcilerRig]:
    with ExitStack() as stack:
        yield ReconcilerRig(stack, broker_url=broker_url, ledger_url=ledger_url)


def arguments(message: dict[str, Any]) -> list[Any]:
    """Read the task's arguments."""
    body = message["body"]
    if message["properties"]["body_encoding"] == "base64":
        body = base64.b64decode(body)
    args: list[Any] = json.loads(body)[0]
    return args


@pytest.mark.parametrize("queue", ["interactive", "bulk", "quarantine"])
def test_a_job_whose_retry_is_due_is_sent_once_to_its_queue(rig: ReconcilerRig, queue: str) -> None:
    job = rig.open(queue)
    rig.ledger.retry(job.job_id, worker="w1", delay_s=0)

    sent = [rig.reconciler.send_due() for _ in range(2)]

    (message,) = rig.sent(queue)
    assert (sent, message["headers"]["id"]) == ([1, 0], job.job_id)
    assert Job.model_validate(arguments(message)[0]) == job
    assert rig.client.zscore(rig.ledger.keys.due, job.job_id) is None


def test_a_job_that_is_sent_again_keeps_its_tenants_share(rig: ReconcilerRig) -> None:
    job = sample_job(tenant="shop-eu")
    rig.ledger.open(job, queue=Queue.BULK)

    rig.reconciler.send_lost()

    (message,) = rig.sent("bulk")
    share = message["headers"]["labelyard_tenant"], message["headers"]["labelyard_images"]
    assert share == ("shop-eu", len(job.images))


def test_a_retry_is_not_sent_before_it_is_due(rig: ReconcilerRig) -> None:
    job = rig.open()
    rig.ledger.retry(job.job_id, worker="w1", delay_s=60)

    assert rig.reconciler.send_due() == 0
    assert rig.sent_ids("bulk") == []


def test_jobs_sent_again_are_counted_by_reason(rig: ReconcilerRig) -> None:
    def counts() -> list[float]:
        return [REPUBLISHED.labels(reason)._value.get() for reason in ("retry", "lost")]

    rig.ledger.retry(rig.open("interactive").job_id, worker="w1", delay_s=0)
    for _ in range(2):
        rig.open()
    before = counts()

    rig.reconciler.send_due()
    rig.reconciler.send_lost()

    assert [now - then for then, now in zip(before, counts(), strict=True)] == [1, 2]


def test_a_retry_that_nobody_wants_any_more_is_dropped(rig: ReconcilerRig) -> None:
    job = rig.open()
    rig.ledger.retry(job.job_id, worker="w1", delay_s=0)
    rig.client.hset(rig.ledger.keys.job(job.job_id), "state", "cancelled")

    assert rig.reconciler.send_due() == 0
    assert rig.client.zscore(rig.ledger.keys.due, job.job_id) is None


def test_a_due_retry_is_kept_while_the_broker_is_away(rig: ReconcilerRig) -> None:
    job = rig.open()
    rig.ledger.retry(job.job_id, worker="w1", delay_s=0)
    (port,) = choose_ports(1)
    away = rig.settings.model_copy(update={"broker_url": f"redis://127.0.0.1:{port}/0"})

    with closing(Publisher(away, timeout_s=0.2)) as publisher:
        rig.reconciler._publisher = publisher
        sent = rig.reconciler.send_due()

    assert sent == 0
    assert rig.client.zscore(rig.ledger.keys.due, job.job_id) is not None


def test_a_job_that_expires_while_no_worker_has_it_becomes_final(rig: ReconcilerRig) -> None:
    job = rig.open(expires_at=datetime.now(UTC) - timedelta(seconds=1))
    kept = rig.open(expires_at=datetime.now(UTC) + timedelta(hours=1))

    overdue = [rig.reconciler.expire_overdue() for _ in range(2)]

    assert overdue == [1, 0]
    assert rig.ledger.state(job.job_id) == "expired"
    assert rig.ledger.state(kept.job_id) == "pending"


def test_a_job_that_was_submitted_while_the_broker_was_down_is_sent(
    rig: ReconcilerRig, caplog: pytest.LogCaptureFixture
) -> None:
    job = rig.open()

    with caplog.at_level(logging.WARNING, logger="labelyard_worker"):
        lost = rig.reconciler.send_lost()

    assert (lost, rig.sent_ids("bulk")) == (1, [job.job_id])
    assert [record.getMessage() for record in caplog.records] == ["messages_sent_again"]


def test_jobs_of_a_broker_that_was_emptied_are_sent_again(rig: ReconcilerRig) -> None:
    jobs = [rig.submit() for _ in range(5)]
    rig.queues.flushdb()

    rig.reconciler.send_lost()

    assert rig.sent_ids("bulk") == [job.job_id for job in jobs]


def test_a_job_that_waits_in_its_queue_is_left_there(rig: ReconcilerRig) -> None:
    job = rig.submit()

    assert rig.reconciler.send_lost() == 0
    assert rig.sent_ids("bulk") == [job.job_id]


def test_a_job_that_is_delivered_and_not_acknowledged_is_left_alone(rig: ReconcilerRig) -> None:
    rig.submit()
    raw = rig.queues.rpop(f"{NAMESPACE}.bulk")
    rig.queues.hset(f"{NAMESPACE}.unacked", "tag", f'[{raw},"","{NAMESPACE}.bulk"]')

    assert rig.reconciler.send_lost() == 0


def test_a_job_that_its_worker_says_it_runs_is_left_alone(rig: ReconcilerRig) -> None:
    job = rig.open()
    rig.start(job, worker="w2", says=[job.job_id])

    assert rig.reconciler.send_lost() == 0


@pytest.mark.parametrize("says", [None, []], ids=["its worker is gone", "its worker denies it"])
def test_a_job_that_nobody_runs_whatever_the_ledger_says_is_sent(
    rig: ReconcilerRig, says: list[str] | None
) -> None:
    job = rig.open()
    rig.start(job, worker="w2", says=says)

    assert rig.reconciler.send_lost() == 1
    assert rig.sent_ids("bulk") == [job.job_id]


def test_a_young_job_is_not_looked_for(rig: ReconcilerRig) -> None:
    rig.open()

    assert rig.worker("w2", after_s=60).send_lost() == 0


def test_a_record_that_is_gone_is_looked_for_no_more(rig: ReconcilerRig) -> None:
    job = rig.open()
    rig.client.delete(rig.ledger.keys.job(job.job_id))

    rig.reconciler.send_lost()

    assert rig.client.zscore(rig.ledger.keys.open, job.job_id) is None


QUEUED_SINCE_S = 100.0


@pytest.mark.parametrize(
    ("snapshot", "is_lost"),
    [
        (BrokerSnapshot({"bulk": QueueSnapshot(is_empty=True)}), True),
        (BrokerSnapshot({"bulk": QueueSnapshot(False, QUEUED_SINCE_S + 60)}), True),
        (BrokerSnapshot({"bulk": QueueSnapshot(False, QUEUED_SINCE_S + 1)}), False),
        (BrokerSnapshot({"bulk": QueueSnapshot(False, QUEUED_SINCE_S - 60)}), False),
        (BrokerSnapshot({"bulk": QueueSnapshot(is_empty=False)}), False),
        (BrokerSnapshot({"interactive": QueueSnapshot(is_empty=True)}), False),
        (BrokerSnapshot(), False),
    ],
    ids=[
        "its queue is empty",
        "its queue is at later ones",
        "two sent at once may overtake each other",
        "its queue is at earlier ones",
        "nobody knows where its queue is",
        "another queue is empty",
        "nobody could look",
    ],
)
def test_a_message_is_lost_when_its_queue_has_passed_it_on(
    rig: ReconcilerRig, snapshot: BrokerSnapshot, is_lost: bool
) -> None:
    job = rig.open("bulk")
    key = rig.ledger.keys.job(job.job_id)
    rig.client.hset(key, "published_at", QUEUED_SINCE_S)
    record = rig.ledger.read(job.job_id)
    assert record is not None

    assert is_orphan(record, snapshot, is_running=False) == is_lost
    assert not is_orphan(record, snapshot, is_running=True)


def test_one_of_the_workers_makes_the_rounds_and_another_follows_it(rig: ReconcilerRig) -> None:
    second = rig.worker("w2")
    rig.reconciler.start()
    leader_key = rig.ledger.keys.leader
    wait_until(lambda: rig.client.get(leader_key) == "w1")
    second.start()
    job = rig.open()
    wait_until(lambda: rig.sent_ids("bulk") == [job.job_id])

    rig.reconciler.close()

    wait_until(lambda: rig.client.get(leader_key) == "w2")
    rig.queues.flushdb()
    wait_until(lambda: rig.sent_ids("bulk") == [job.job_id])


def test_a_waiting_jobs_record_lives_on_however_long_the_backlog_is(rig: ReconcilerRig) -> None:
    job = rig.submit()
    key = rig.ledger.keys.job(job.job_id)
    rig.client.expire(key, 5)

    rig.reconciler.send_lost()

    assert int(rig.client.ttl(key)) > 1000


def test_lost_interactive_jobs_are_sent_before_bulk_ones(rig: ReconcilerRig) -> None:
    bulk = [rig.open("bulk") for _ in range(3)]
    urgent = rig.open("interactive")
    sent: list[str] = []
    publish = rig.publisher.publish_many

    def note(messages: Sequence[Outgoing]) -> bool:
        sent.extend(message.job_id for message in messages)
        return publish(messages)

    rig.publisher.publish_many = note  # type: ignore[method-assign]
    rig.reconciler.send_lost()

    assert sent == [urgent.job_id, *(job.job_id for job in bulk)]


def test_a_round_goes_on_past_one_batch_and_sends_nothing_twice(
    rig: ReconcilerRig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reconciler_module, "AT_ONCE", 4)
    lost = [rig.open("bulk") for _ in range(10)]
    rig.ledger.cancel(lost.pop().job_id)

    sent = rig.reconciler.send_lost()

    assert sent == 9
    assert rig.sent_ids("bulk") == [job.job_id for job in lost]


def test_lost_jobs_behind_a_long_backlog_of_another_queue_are_found(
    rig: ReconcilerRig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reconciler_module, "AT_ONCE", 4)
    waiting = [rig.submit("bulk") for _ in range(9)]
    lost = rig.open("interactive")

    assert rig.reconciler.send_lost() == 1
    assert rig.sent_ids("interactive") == [lost.job_id]
    assert rig.sent_ids("bulk") == [job.job_id for job in waiting]


def test_due_retries_and_overdue_jobs_go_past_one_batch(
    rig: ReconcilerRig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reconciler_module, "AT_ONCE", 4)
    due = [rig.open("bulk") for _ in range(10)]
    for job in due:
        rig.ledger.retry(job.job_id, worker="w1", delay_s=0)

    assert rig.reconciler.send_due() == 10
    assert sorted(rig.sent_ids("bulk")) == sorted(job.job_id for job in due)


def test_a_job_whose_retry_is_set_is_not_lost(rig: ReconcilerRig) -> None:
    job = rig.open("bulk")
    rig.ledger.retry(job.job_id, worker="w1", delay_s=60)

    assert rig.reconciler.send_lost() == 0
    assert rig.sent_ids("bulk") == []
