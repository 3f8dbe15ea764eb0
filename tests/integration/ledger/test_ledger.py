"""The ledger on a real Valkey: one final state, whatever happens and in whatever order."""

import json
import uuid
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any

import pytest
import redis
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    invariant,
    rule,
    run_state_machine_as_test,
)

from labelyard.errors import (
    IdempotencyConflictError,
    LedgerUnavailableError,
    QueueFullError,
)
from labelyard.ledger import (
    FINAL_STATES,
    Backlog,
    BacklogKey,
    Isolation,
    Ledger,
    Opened,
    Receipt,
    Record,
    Started,
    connect,
)
from labelyard.ledger.backlog import BacklogRecount
from labelyard.ledger.commands import NO_RECEIPT, job_digest
from labelyard.ledger.limits import PRESENCE_S
from labelyard.ledger.script_answers import read_opened
from labelyard.messages import Deliver, ImageRef, Job, Label, LabelSet, new_job_id
from labelyard.settings import ClientSettings
from labelyard.testing import sample_job, sample_result
from labelyard_worker.local.servers import ValkeyServer

PAST = datetime(2020, 1, 1, tzinfo=UTC)


@pytest.fixture
def client_settings(ledger_url: str) -> ClientSettings:
    return ClientSettings(ledger_url=ledger_url, namespace="test")


@pytest.fixture
def ledger(client_settings: ClientSettings) -> Iterator[Ledger]:
    with connect(client_settings) as client:
        yield Ledger(client, client_settings)


def start(
    ledger: Ledger,
    job_id: str,
    worker: str = "w1",
    *,
    isolation: Isolation = "none",
    receipt: Receipt = NO_RECEIPT,
) -> Started:
    ledger.client.set(ledger.keys.worker(worker), "1", ex=60)
    return ledger.start(
        job_id,
        worker=worker,
        isolation=isolation,
        quarantine_after=2,
        dead_after=3,
        receipt=receipt,
    )


def receipt_for(job: Job, **changes: Any) -> Receipt:
    """Describe the receipt of a message that holds *job*."""
    return Receipt(**{"tenant": job.tenant, "digest": job_digest(job), **changes})


def kill(ledger: Ledger, worker: str = "w1") -> None:
    ledger.client.delete(ledger.keys.worker(worker))


def bury(ledger: Ledger, job: Job) -> None:
    ledger.open(job, queue="interactive")
    start(ledger, job.job_id, isolation="alone")
    ledger.finish(job.job_id, sample_result("failed", job=job), is_dead=True)


def test_a_record_holds_what_was_submitted(ledger: Ledger) -> None:
    job = sample_job(tenant="shop-eu", expires_at=datetime.now(UTC) + timedelta(hours=1))

    opened = ledger.open(job, queue="bulk")

    record = ledger.read(job.job_id)
    assert record is not None
    assert record.job() == job
    assert (record.state, record.queue, record.tenant) == ("pending", "bulk", "shop-eu")
    assert (record.images, record.attempts, record.submitted_at) == (2, 0, opened.at)
    assert job.expires_at is not None
    assert record.expires_at == job.expires_at.timestamp()


def test_an_unknown_job_has_no_record(ledger: Ledger) -> None:
    assert ledger.read("nothing") is None
    assert ledger.state("nothing") is None
    assert ledger.read_many(["nothing"]) == [None]
    assert ledger.glance_many(["nothing"]) == [None]


@pytest.mark.parametrize(
    "changes",
    [{}, {"expires_at": datetime(2100, 1, 1, tzinfo=UTC)}, {"trace": {"traceparent": "00-b"}}],
    ids=["the same", "with another expiry", "with another trace"],
)
def test_opening_a_job_twice_keeps_the_first(ledger: Ledger, changes: dict[str, Any]) -> None:
    job = sample_job(tenant="first")
    ledger.open(job, queue="interactive")

    again = ledger.open(job.model_copy(update=changes), queue="bulk")

    record = ledger.read(job.job_id)
    assert not again.is_new
    assert record is not None
    assert (record.tenant, record.queue) == ("first", "interactive")
    assert ledger.open_images() == 2


OTHER_CONTENTS: list[dict[str, Any]] = [
    {"tenant": "second"},
    {"top_k": 1},
    {"rescore": True},
    {"deliver": Deliver(stream="events")},
    {"images": (ImageRef(id="1", uri="s3://other/1.jpg"),)},
    {"label_set": LabelSet(labels=(Label(name="a dog"),))},
]


@pytest.mark.parametrize("changes", OTHER_CONTENTS, ids=lambda changes: next(iter(changes)))
def test_another_job_under_the_same_id_is_a_conflict(
    ledger: Ledger, changes: dict[str, Any]
) -> None:
    job = sample_job(tenant="first")
    other = job.model_copy(update=changes)
    ledger.open(job, queue="interactive")

    with pytest.raises(IdempotencyConflictError, match=job.job_id):
        ledger.open(other, queue="bulk")
    answers = ledger.open_many([other, job], queue="bulk")

    record = ledger.read(job.job_id)
    assert record is not None
    assert record.job() == job
    assert [type(answer) for answer in answers] == [IdempotencyConflictError, Opened]


@pytest.mark.parametrize("changes", OTHER_CONTENTS, ids=lambda changes: next(iter(changes)))
def test_a_message_of_another_job_under_the_same_id_is_not_started(
    ledger: Ledger, changes: dict[str, Any]
) -> None:
    job = sample_job(tenant="first")
    ledger.open(job, queue="interactive")

    started = start(ledger, job.job_id, receipt=receipt_for(job.model_copy(update=changes)))

    assert (started.verdict, ledger.state(job.job_id)) == ("conflict", "pending")


def test_a_record_of_an_earlier_version_is_the_same_jobs(ledger: Ledger) -> None:
    """Such a record has no digest, and no fields that identify repeated calls."""
    job = sample_job()
    ledger.open(job, queue="interactive")
    ledger.client.hdel(ledger.keys.job(job.job_id), "digest", "source")

    again = ledger.open(job.model_copy(update={"top_k": 1}), queue="bulk")
    started = start(ledger, job.job_id, receipt=receipt_for(job))
    ledger.client.hdel(ledger.keys.job(job.job_id), "start", "start_call")
    ledger.retry(job.job_id, worker="w1", delay_s=0, start=started.start)

    record = ledger.read(job.job_id)
    assert not again.is_new
    assert record is not None
    assert (started.verdict, record.state) == ("run", "pending")
    assert start(ledger, job.job_id, receipt=receipt_for(job)).verdict == "run"


def test_a_repeated_call_whose_answer_was_lost_has_opened_the_job(ledger: Ledger) -> None:
    job = sample_job()
    command = ledger.commands.open(job, queue="bulk", is_limited=True)
    ledger.run(command)

    again = read_opened(job.job_id, ledger.run(command), limit=0)

    assert again.is_new
    assert ledger.open_images() == 2


def test_a_repeated_finish_whose_answer_was_lost_has_finished_the_job(ledger: Ledger) -> None:
    job = sample_job()
    ledger.open(job, queue="bulk")
    result = sample_result(job=job)

    assert ledger.finish(job.job_id, result)
    assert ledger.finish(job.job_id, result)
    assert not ledger.finish(job.job_id, sample_result("failed", job=job))
    assert ledger.totals() == {"succeeded": 1}
    assert ledger.image_totals() == {"succeeded": len(job.images)}


def test_a_job_runs_and_ends(ledger: Ledger) -> None:
    job = sample_job()
    ledger.open(job, queue="interactive")

    started = start(ledger, job.job_id)
    is_finished = ledger.finish(job.job_id, sample_result("partial", job=job))

    record = ledger.read(job.job_id)
    assert (started.verdict, started.attempt, is_finished) == ("run", 1, True)
    assert record is not None
    assert record.is_final
    assert record.result == sample_result("partial", job=job)
    assert record.finished_at is not None
    assert ledger.open_images() == 0


def test_one_of_many_racing_final_states_stands(ledger: Ledger) -> None:
    job = sample_job(expires_at=PAST)
    ledger.open(job, queue="interactive")
    results = [sample_result(status, job=job) for status in ("succeeded", "partial", "failed")]
    races = [
        *(lambda result=result: ledger.finish(job.job_id, result) for result in results),
        lambda: ledger.cancel(job.job_id),
        lambda: ledger.expire(job.job_id),
    ]

    with ThreadPoolExecutor(len(races)) as pool:
        wins = sum(pool.map(lambda race: race(), races))

    assert wins == 1
    assert sum(ledger.totals().values()) == 1
    assert ledger.open_images() == 0


def test_a_final_record_lives_for_its_ttl(ledger_url: str, ledger_redis: redis.Redis) -> None:
    short = ClientSettings(ledger_url=ledger_url, namespace="test", result_ttl_s=77)
    job = sample_job()
    with connect(short) as client:
        ledger = Ledger(client, short)
        ledger.open(job, queue="bulk")
        ledger.cancel(job.job_id)

    assert 70 < int(ledger_redis.ttl(f"test:job:{job.job_id}")) <= 77


def test_a_job_expires_only_when_its_time_is_over(ledger: Ledger) -> None:
    overdue, early, timeless = (
        sample_job(job_id=new_job_id(), expires_at=expires_at)
        for expires_at in (PAST, datetime.now(UTC) + timedelta(hours=1), None)
    )
    for job in (overdue, early, timeless):
        ledger.open(job, queue="bulk")

    expired = [ledger.expire(job.job_id) for job in (overdue, early, timeless)]

    assert expired == [True, False, False]


def test_a_start_tells_how_long_the_job_may_live_by_the_ledgers_clock(ledger: Ledger) -> None:
    seconds, _ = ledger.client.time()
    job = sample_job(expires_at=datetime.fromtimestamp(seconds + 60, UTC))
    timeless = sample_job()
    for one in (job, timeless):
        ledger.open(one, queue="bulk")

    to_live = [start(ledger, one.job_id).expires_in_s for one in (job, timeless)]

    assert to_live[0] is not None
    assert 50 < to_live[0] <= 60
    assert to_live[1] is None


def test_an_overdue_job_is_not_started(ledger: Ledger) -> None:
    job = sample_job(expires_at=PAST)
    ledger.open(job, queue="bulk")

    started = start(ledger, job.job_id)

    assert (started.verdict, started.state) == ("final", "expired")
    assert ledger.state(job.job_id) == "expired"


def test_submits_past_the_limit_are_refused_and_leave_nothing(ledger_url: str) -> None:
    limited = ClientSettings(ledger_url=ledger_url, namespace="test", max_queued_images=3)
    with connect(limited) as client:
        ledger = Ledger(client, limited)
        ledger.open(sample_job(), queue="bulk")
        refused = sample_job()

        with pytest.raises(QueueFullError, match="2 images wait, limit 3"):
            ledger.open(refused, queue="bulk")

        assert ledger.read(refused.job_id) is None
        assert ledger.open_images() == 2


def test_a_job_larger_than_the_limit_is_refused_by_an_empty_ledger(ledger_url: str) -> None:
    limited = ClientSettings(ledger_url=ledger_url, namespace="test", max_queued_images=1)
    with connect(limited) as client, pytest.raises(QueueFullError, match="0 images wait, limit 1"):
        Ledger(client, limited).open(sample_job(), queue="bulk")


def test_a_batch_of_opens_answers_for_each_job(ledger_url: str) -> None:
    limited = ClientSettings(ledger_url=ledger_url, namespace="test", max_queued_images=5)
    jobs = [sample_job(), sample_job(), sample_job()]
    with connect(limited) as client:
        answers = Ledger(client, limited).open_many([*jobs[:2], jobs[0], jobs[2]], queue="bulk")

    kinds = [getattr(answer, "is_new", type(answer)) for answer in answers]
    assert kinds == [True, True, False, QueueFullError]


def test_a_worker_that_dies_counts_against_the_job(ledger: Ledger) -> None:
    job = sample_job()
    ledger.open(job, queue="interactive")

    verdicts = []
    for worker in ("w1", "w2", "w3"):
        verdicts.append(start(ledger, job.job_id, worker).verdict)
        kill(ledger, worker)

    record = ledger.read(job.job_id)
    assert verdicts == ["run", "run", "to_quarantine"]
    assert record is not None
    assert (record.deaths, record.queue) == (2, "quarantine")
    assert "w2 died" in record.last_death


def test_a_job_that_kills_workers_on_its_own_is_dead(ledger: Ledger) -> None:
    job = sample_job()
    ledger.open(job, queue="interactive")
    for worker in ("w1", "w2", "w3"):
        start(ledger, job.job_id, worker, isolation="alone")
        kill(ledger, worker)

    verdict = start(ledger, job.job_id, "w4", isolation="alone")

    assert (verdict.verdict, verdict.deaths) == ("dead", 3)
    assert "w3 died" in verdict.reason


def test_a_job_runs_at_one_worker_at_a_time(ledger: Ledger) -> None:
    job = sample_job()
    ledger.open(job, queue="interactive")
    start(ledger, job.job_id, "w1")

    started = start(ledger, job.job_id, "w2")

    record = ledger.read(job.job_id)
    due = ledger.client.zscore("test:due", job.job_id)
    assert (started.verdict, started.runner) == ("elsewhere", "w1")
    assert record is not None
    assert (record.state, record.runner, record.attempts) == ("running", "w1", 1)
    assert due is not None
    assert 59 < float(due) - record.submitted_at < 65  # the life of w1's key


def test_a_death_that_was_not_known_at_the_next_delivery_is_counted_later(ledger: Ledger) -> None:
    job = sample_job()
    ledger.open(job, queue="interactive")
    start(ledger, job.job_id, "w1")
    start(ledger, job.job_id, "w2")
    kill(ledger, "w1")

    started = start(ledger, job.job_id, "w2")

    assert (started.verdict, started.deaths, started.attempt) == ("run", 1, 2)
    assert ledger.client.zscore("test:due", job.job_id) is None


@pytest.mark.parametrize("names_it", [True, False])
def test_a_job_that_its_worker_names_no_more_is_taken_over(ledger: Ledger, names_it: bool) -> None:
    job = sample_job()
    ledger.open(job, queue="interactive")
    start(ledger, job.job_id, "w1")
    named = json.dumps(["another", *([job.job_id] if names_it else [])])
    ledger.client.set("test:worker:w1", named, ex=60)
    long_ago = float(ledger.client.time()[0] - PRESENCE_S - 1)
    ledger.client.hset(f"test:job:{job.job_id}", "started_at", str(long_ago))

    started = start(ledger, job.job_id, "w2")

    assert (started.verdict, started.deaths) == ("elsewhere" if names_it else "run", 0)


def test_handing_back_costs_no_attempt(ledger: Ledger) -> None:
    job = sample_job()
    ledger.open(job, queue="interactive")
    start(ledger, job.job_id)

    ledger.hand_back(job.job_id, worker="w1")
    ledger.hand_back(job.job_id, worker="w1")

    record = ledger.read(job.job_id)
    assert record is not None
    assert (record.state, record.attempts, record.runner) == ("pending", 0, "")


def test_a_retry_is_due_after_its_delay_and_counts(
    ledger: Ledger, ledger_redis: redis.Redis
) -> None:
    job = sample_job()
    ledger.open(job, queue="interactive")
    start(ledger, job.job_id)

    ledger.retry(job.job_id, worker="w1", delay_s=30)

    record = ledger.read(job.job_id)
    due = ledger_redis.zscore("test:due", job.job_id)
    assert record is not None
    assert (record.state, record.attempts) == ("pending", 1)
    assert due is not None
    assert 29 < float(due) - record.submitted_at < 35


def test_a_worker_that_lost_the_job_cannot_release_it(ledger: Ledger) -> None:
    job = sample_job()
    ledger.open(job, queue="interactive")
    start(ledger, job.job_id, "w1")
    kill(ledger, "w1")
    start(ledger, job.job_id, "w2")

    ledger.hand_back(job.job_id, worker="w1")

    record = ledger.read(job.job_id)
    assert record is not None
    assert (record.state, record.runner) == ("running", "w2")


def test_a_dead_letter_can_be_replayed_once(ledger: Ledger) -> None:
    job = sample_job(expires_at=datetime.now(UTC) + timedelta(hours=1))
    bury(ledger, job)

    replays = [ledger.replay(job.job_id) is not None for _ in range(2)]

    record = ledger.read(job.job_id)
    assert replays == [True, False]
    assert record is not None
    assert (record.state, record.attempts, record.deaths) == ("pending", 0, 0)
    assert record.result is None
    assert ledger.open_images() == 2
    assert ledger.client.zscore("test:expiring", job.job_id) == record.expires_at


def test_a_purged_dead_letter_keeps_its_result_for_the_ttl(
    ledger: Ledger, client_settings: ClientSettings
) -> None:
    job = sample_job()
    bury(ledger, job)

    purges = [ledger.purge(job.job_id), ledger.purge(job.job_id)]

    assert purges == [True, False]
    assert ledger.dead() == []
    assert ledger.state(job.job_id) == "failed"
    ttl_s = int(ledger.client.ttl(ledger.keys.job(job.job_id)))
    assert 0 < ttl_s <= client_settings.result_ttl_s


def test_a_stream_gets_an_entry_for_each_result(ledger: Ledger) -> None:
    job = sample_job(deliver=Deliver(stream="events"))
    ledger.open(job, queue="bulk")

    ledger.finish(job.job_id, sample_result(job=job))

    entries: Any = ledger.client.xrange("test:stream:events")
    [[_, entry]] = entries
    assert (entry["job_id"], entry["status"]) == (job.job_id, "succeeded")


def test_a_stream_names_the_record_of_a_long_result(ledger: Ledger) -> None:
    job = sample_job(deliver=Deliver(stream="events"))
    ledger.open(job, queue="bulk")
    result = sample_result(job=job)
    long = result.model_copy(update={"tenant": "t" * 65_536})

    ledger.finish(job.job_id, long)

    entries: Any = ledger.client.xrange("test:stream:events")
    [[_, entry]] = entries
    assert "result" not in entry
    assert int(entry["result_bytes"]) == len(long.model_dump_json())
    kept: Any = ledger.client.hget(entry["result_key"], "result")
    assert kept == long.model_dump_json()


def test_a_ledger_that_is_away_says_so_and_what_it_means(own_valkey: ValkeyServer) -> None:
    away = ClientSettings(ledger_url=own_valkey.url)
    own_valkey.kill()

    with connect(away) as client, pytest.raises(LedgerUnavailableError, match="refused"):
        Ledger(client, away).open(sample_job(), queue="bulk")


def test_a_ledger_at_maxmemory_accepts_nothing_and_says_why(own_valkey: ValkeyServer) -> None:
    full = ClientSettings(ledger_url=own_valkey.url)
    with connect(full) as client:
        client.config_set("maxmemory", "1")
        ledger = Ledger(client, full)
        jobs = [sample_job(), sample_job()]

        with pytest.raises(LedgerUnavailableError, match="maxmemory"):
            ledger.open(jobs[0], queue="bulk")
        refusals = ledger.open_many(jobs, queue="bulk")

        assert all(isinstance(refusal, LedgerUnavailableError) for refusal in refusals)
        assert ledger.read(jobs[0].job_id) is None


ISOLATIONS: list[Isolation] = ["none", "suspect", "crowded", "alone"]
WORKERS = st.sampled_from(["w1", "w2"])


def backlog_of(records: Sequence[Record | None]) -> dict[BacklogKey, Backlog]:
    """Count open records by queue and tenant."""
    counted: dict[BacklogKey, Backlog] = {}
    for record in records:
        assert record is not None
        key = BacklogKey(record.queue, record.tenant)
        known = counted.get(key, Backlog(images=0, jobs=0))
        counted[key] = Backlog(images=known.images + record.images, jobs=known.jobs + 1)
    return counted


class LedgerMachine(RuleBasedStateMachine):
    """State machine: every operation of clients, workers and operators, in any order."""

    jobs: Bundle[str] = Bundle("jobs")

    def __init__(self, ledger_url: str) -> None:
        super().__init__()
        used = ClientSettings(ledger_url=ledger_url, namespace=f"m{uuid.uuid4().hex}")
        self.ledger = Ledger(connect(used), used)
        self.messages: dict[str, Job] = {}
        self.states: dict[str, str] = {}
        self.dead: set[str] = set()
        self.ended = 0

    def teardown(self) -> None:
        self.ledger.client.close()

    @rule(
        target=jobs,
        images=st.integers(1, 64),
        is_overdue=st.booleans(),
        tenant=st.sampled_from(["shop", "blog"]),
        is_adopted=st.booleans(),
    )
    def open(self, images: int, is_overdue: bool, tenant: str, is_adopted: bool) -> str:
        refs = tuple(ImageRef(id=str(n), uri=f"s3://b/{n}") for n in range(images))
        expires_at = PAST if is_overdue else None
        job = sample_job(job_id=new_job_id(), images=refs, expires_at=expires_at, tenant=tenant)
        if is_adopted:
            assert self.ledger.adopt(job, queue="bulk")
        else:
            assert self.ledger.open(job, queue="interactive").is_new
        self.messages[job.job_id] = job
        self.states[job.job_id] = "pending"
        return job.job_id

    @rule(job_id=jobs)
    def open_again(self, job_id: str) -> None:
        assert not self.ledger.open(self.messages[job_id], queue="bulk").is_new

    @rule(job_id=jobs, worker=WORKERS, isolation=st.sampled_from(ISOLATIONS))
    def start(self, job_id: str, worker: str, isolation: Isolation) -> None:
        started = start(self.ledger, job_id, worker, isolation=isolation)
        if self.states[job_id] in FINAL_STATES:
            assert (started.verdict, started.state) == ("final", self.states[job_id])
        elif self.messages[job_id].expires_at:
            assert (started.verdict, started.state) == ("final", "expired")
            self.end(job_id, "expired", is_first=True)
        elif started.verdict == "dead":
            self.finish(job_id, status="failed", is_dead=True)
        elif started.verdict == "elsewhere":
            assert self.states[job_id] == "running"
            assert started.runner != worker
        else:
            assert started.verdict in {"run", "to_quarantine"}
            self.states[job_id] = "running" if started.verdict == "run" else "pending"

    @rule(worker=WORKERS)
    def kill(self, worker: str) -> None:
        kill(self.ledger, worker)

    @rule(
        job_id=jobs, worker=WORKERS, delay_s=st.none() | st.floats(0, 9), death=st.text(max_size=3)
    )
    def release(self, job_id: str, worker: str, delay_s: float | None, death: str) -> None:
        before = self.ledger.read(job_id)
        assert before is not None
        if delay_s is None:
            self.ledger.hand_back(job_id, worker=worker)
        else:
            self.ledger.retry(job_id, worker=worker, delay_s=delay_s, death=death)
        if not before.is_final and before.runner in {"", worker}:
            self.states[job_id] = "pending"

    @rule(
        job_id=jobs,
        status=st.sampled_from(["succeeded", "partial", "failed"]),
        is_dead=st.booleans(),
    )
    def finish(self, job_id: str, status: str, is_dead: bool) -> None:
        result = sample_result(job=self.messages[job_id]).model_copy(update={"status": status})
        was_final = self.states[job_id] in FINAL_STATES
        is_repeated = was_final and self.states[job_id] == status
        is_first = self.ledger.finish(job_id, result, is_dead=is_dead)
        if is_repeated:  # the same words as before: its own answer, lost and asked for again
            return
        self.end(job_id, status, is_first=is_first)
        if is_first and is_dead:
            self.dead.add(job_id)

    @rule(job_id=jobs)
    def cancel(self, job_id: str) -> None:
        self.end(job_id, "cancelled", is_first=self.ledger.cancel(job_id))

    @rule(job_id=jobs)
    def expire(self, job_id: str) -> None:
        if self.messages[job_id].expires_at:
            self.end(job_id, "expired", is_first=self.ledger.expire(job_id))
        else:
            assert not self.ledger.expire(job_id)

    @rule(job_id=jobs)
    def replay(self, job_id: str) -> None:
        assert (self.ledger.replay(job_id) is not None) == (job_id in self.dead)
        if job_id in self.dead:
            self.dead.remove(job_id)
            self.states[job_id] = "pending"

    @rule(job_id=jobs)
    def purge(self, job_id: str) -> None:
        assert self.ledger.purge(job_id) == (job_id in self.dead)
        self.dead.discard(job_id)

    def end(self, job_id: str, state: str, *, is_first: bool) -> None:
        assert is_first == (self.states[job_id] not in FINAL_STATES)
        if is_first:
            self.states[job_id] = state
            self.ended += 1

    @invariant()
    def records_are_as_modelled(self) -> None:
        records = self.ledger.read_many(list(self.states))
        assert {r.job_id: r.state for r in records if r is not None} == self.states
        assert all(r is not None and r.attempts >= 0 for r in records)
        assert all(
            (r.result is None) == (r.state not in {"succeeded", "partial", "failed"})
            for r in records
            if r is not None
        )

    @invariant()
    def sums_are_right(self) -> None:
        still_open = [job_id for job_id, state in self.states.items() if state not in FINAL_STATES]
        images = sum(len(self.messages[job_id].images) for job_id in still_open)
        keys = self.ledger.keys
        assert self.ledger.open_images() == images
        assert self.ledger.backlog() == backlog_of(self.ledger.read_many(still_open))
        assert BacklogRecount(self.ledger).step() == 0
        assert sorted(self.ledger.client.zrange(keys.open, 0, -1)) == sorted(still_open)
        assert set(self.ledger.client.zrange(keys.due, 0, -1)) <= set(still_open)
        assert set(self.ledger.client.zrange(keys.expiring, 0, -1)) <= set(still_open)
        assert set(self.ledger.dead()) == self.dead
        assert sum(self.ledger.totals().values()) == self.ended


def test_every_job_has_one_final_state_and_the_sums_hold_in_any_order_of_events(
    ledger_url: str,
) -> None:
    new_machine: Any = partial(LedgerMachine, ledger_url)
    run_state_machine_as_test(
        new_machine,
        settings=settings(
            max_examples=25,
            stateful_step_count=30,
            deadline=None,
            suppress_health_check=list(HealthCheck),
        ),
    )
