"""``labelyard why``: each situation of a job on a real Valkey, and the bounds of the search."""

import json
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass

import pytest
import redis
from typer.testing import CliRunner

from labelyard import Client, ClientSettings
from labelyard.cli import app
from labelyard.diagnosis import Diagnosis, DiagnosisSettings, Situation, diagnose
from labelyard.diagnosis.explanations import EXPLANATIONS
from labelyard.diagnosis.phrases import START_WORKER
from labelyard.ledger import Ledger, connect
from labelyard.ledger.commands import Pending, Receipt
from labelyard.ledger.deliveries import DeliveryLedger, DeliveryOutcome
from labelyard.ledger.set_aside import SetAside, SetAsideMessage
from labelyard.message_search import MAX_SEARCHED
from labelyard.messages import Failure
from labelyard.tenant_lines.keys import PRIORITY_SUFFIXES
from labelyard.testing import sample_result
from labelyard_worker.broker.claim import CLAIM
from labelyard_worker.local.servers import ValkeyServer
from labelyard_worker.settings import WorkerSettings
from tests.support.claiming import Claims

pytestmark = pytest.mark.usefixtures("service_environment")

WORKER = "gpu-1-77-abcdef"

CLAIM_KEYS = tuple(
    f"labelyard.{name}" for name in ("unacked", "unacked_index", "weights", "sorted")
)


@dataclass
class StuckJobRig:
    """A producer, the ledger as workers use it, and the broker's lists."""

    client: Client
    ledger: Ledger
    broker: redis.Redis

    def submit(self, **options: object) -> str:
        """Submit an interactive job."""
        return self.client.submit(["s3://photos/cat.jpg"], labels=["a", "b"], **options).id  # type: ignore[arg-type]

    def claim(self, *, queue: str = "labelyard.interactive") -> str:
        """Claim the next message as a worker does; return its delivery tag."""
        tag = uuid.uuid4().hex
        claimed = self.broker.eval(CLAIM, 5, *CLAIM_KEYS, queue, tag, 1, "0", json.dumps(queue), "")
        assert claimed is not None
        return tag

    def acknowledge(self, tag: str) -> None:
        self.broker.hdel(CLAIM_KEYS[0], tag)
        self.broker.zrem(CLAIM_KEYS[1], tag)

    def start(self, job_id: str, *, worker: str = WORKER) -> None:
        """Begin an attempt, or count the death of the one before."""
        self.ledger.start(
            job_id, worker=worker, quarantine_after=2, dead_after=2, receipt=Receipt()
        )

    def show_presence(self, *job_ids: str, worker: str = WORKER) -> None:
        """Renew a worker's presence key once."""
        self.ledger.client.set(self.ledger.keys.worker(worker), json.dumps(job_ids), px=9000)

    def lead(self) -> None:
        """Hold the reconciler's lock, as one live worker does."""
        self.ledger.client.set(self.ledger.keys.leader, WORKER, px=10_000)

    def drop_messages(self) -> None:
        """Lose all messages."""
        self.broker.flushdb()


@pytest.fixture
def rig(broker_redis: redis.Redis) -> Iterator[StuckJobRig]:
    settings = ClientSettings()
    with Client() as client, connect(settings) as connection:
        yield StuckJobRig(client, Ledger(connection, settings), broker_redis)


def why(job_id: str, **settings: object) -> Diagnosis:
    return diagnose(job_id, DiagnosisSettings(**settings))  # type: ignore[arg-type]


def advice(diagnosis: Diagnosis) -> str:
    return " ".join(diagnosis.advice)


def test_a_queued_job_shows_its_queue_and_the_messages_before_it(rig: StuckJobRig) -> None:
    rig.submit()
    job_id = rig.submit()
    rig.submit()

    diagnosis = why(job_id)

    [message] = diagnosis.fields()["messages"]
    assert diagnosis.situation is Situation.QUEUED
    assert message == {"place": "queued", "queue": "interactive", "ahead": 1}
    assert "queue interactive, behind 1 message." in diagnosis.summary
    assert diagnosis.advice == (START_WORKER,)


def test_a_job_in_its_tenants_line_shows_whose_turn_it_is(rig: StuckJobRig) -> None:
    claims = Claims(rig.broker, queues=("interactive",), namespace="labelyard")
    claims.push_many(*[{"tenant": name} for name in "abab"], queue="interactive")
    rig.submit(tenant="shop-eu")
    job_id = rig.submit(tenant="shop-eu")
    claims.push_many({"tenant": "a"}, queue="interactive")
    claims.claim()

    diagnosis = why(job_id)

    [message] = diagnosis.fields()["messages"]
    turn = {"line": "shop-eu", "lines_ahead": 1, "next_line": "b"}
    assert message == {"place": "queued", "queue": "interactive", "ahead": 1, **turn}
    assert (
        "behind 1 message of tenant shop-eu; 1 tenant comes first, it is the turn of b"
        in diagnosis.summary
    )


def test_a_job_in_a_long_line_is_not_lost(rig: StuckJobRig) -> None:
    claims = Claims(rig.broker, queues=("interactive",), namespace="labelyard")
    claims.push_many(*[{"tenant": name} for name in ("a", "shop-eu")], queue="interactive")
    for _ in range(2):
        claims.push_many(*[{"tenant": "a"}] * 1500, queue="interactive")
    job_id = [rig.submit(tenant="shop-eu") for _ in range(10)][-1]
    for _ in range(16):
        claims.claim()

    assert why(job_id).situation is Situation.QUEUED


def test_no_worker_is_asked_for_while_one_leads(rig: StuckJobRig) -> None:
    job_id = rig.submit()
    rig.lead()

    diagnosis = why(job_id)

    assert START_WORKER not in diagnosis.advice
    assert diagnosis.fields()["has_live_worker"] is True


@pytest.mark.parametrize("suffix", PRIORITY_SUFFIXES[1:])
def test_a_message_in_a_list_of_another_priority_is_found(rig: StuckJobRig, suffix: str) -> None:
    job_id = rig.submit()
    rig.broker.rename("labelyard.interactive", "labelyard.interactive" + suffix)
    rig.broker.expire("labelyard.interactive" + suffix, 60)

    diagnosis = why(job_id)

    assert diagnosis.situation is Situation.QUEUED


def test_a_pending_job_whose_message_is_nowhere_is_lost_and_comes_again(rig: StuckJobRig) -> None:
    job_id = rig.submit()
    rig.drop_messages()
    rig.lead()

    diagnosis = why(job_id, reconcile_after_s=20, reconcile_every_s=10)

    assert diagnosis.situation is Situation.LOST
    assert "Wait 30 s" in advice(diagnosis)


def test_a_claimed_message_says_when_it_comes_again(rig: StuckJobRig) -> None:
    job_id = rig.submit()
    rig.claim()
    rig.lead()

    diagnosis = why(job_id, visibility_timeout_s=300)

    [message] = diagnosis.fields()["messages"]
    assert diagnosis.situation is Situation.UNACKNOWLEDGED
    assert message["place"] == "unacknowledged"
    assert message["comes_again_in_s"] == pytest.approx(300, abs=5)
    assert "another one gets the message in 5 min" in advice(diagnosis)


def test_a_job_on_a_living_worker_runs(rig: StuckJobRig) -> None:
    job_id = rig.submit()
    rig.claim()
    rig.start(job_id)
    rig.show_presence("another", job_id)

    diagnosis = why(job_id)

    assert diagnosis.situation is Situation.RUNNING
    assert f"Worker {WORKER} is alive" in diagnosis.summary
    assert "attempt 1 of 5" in diagnosis.summary
    assert diagnosis.fields()["worker"]["names_job"] is True
    assert f"labelyard cancel {job_id}" in advice(diagnosis)


def test_a_job_on_a_dead_worker_says_when_it_comes_again(rig: StuckJobRig) -> None:
    job_id = rig.submit()
    rig.claim()
    rig.start(job_id)
    rig.lead()

    diagnosis = why(job_id)

    assert diagnosis.situation is Situation.WORKER_DIED
    assert diagnosis.fields()["worker"]["is_alive"] is False
    assert "Wait 120 s" in advice(diagnosis)


def test_a_job_that_its_living_worker_does_not_name_has_ended_there(rig: StuckJobRig) -> None:
    job_id = rig.submit()
    rig.claim()
    rig.start(job_id)
    rig.show_presence("another")
    begun = why(job_id)
    rig.ledger.client.hset(rig.ledger.keys.job(job_id), "started_at", str(time.time() - 60))

    diagnosis = why(job_id)

    assert begun.situation is Situation.RUNNING  # presence is renewed every few seconds
    assert diagnosis.situation is Situation.ABANDONED


def test_a_retry_says_when_it_is_due_and_how_many_attempts_are_used(rig: StuckJobRig) -> None:
    job_id = rig.submit()
    tag = rig.claim()
    rig.start(job_id)
    rig.ledger.retry(job_id, worker=WORKER, delay_s=40, start=1)
    rig.acknowledge(tag)
    rig.lead()

    diagnosis = why(job_id, max_attempts=7)

    assert diagnosis.situation is Situation.DUE
    assert diagnosis.fields()["due_in_s"] == pytest.approx(40, abs=5)
    assert "1 of 7 attempts are used" in diagnosis.summary
    assert "job_retry" in advice(diagnosis)


def test_a_retry_that_is_overdue_needs_a_worker(rig: StuckJobRig) -> None:
    job_id = rig.submit()
    rig.acknowledge(rig.claim())
    rig.start(job_id)
    rig.ledger.retry(job_id, worker=WORKER, delay_s=-50, start=1)

    diagnosis = why(job_id)

    assert "was due 50 s ago" in diagnosis.summary
    assert diagnosis.advice == (START_WORKER,)


def test_a_suspect_shows_its_deaths_and_what_buries_it(rig: StuckJobRig) -> None:
    job_id = rig.submit()
    rig.acknowledge(rig.claim())
    for worker in ("w-1", "w-2"):
        rig.start(job_id, worker=worker)  # and the worker shows no presence: it died
    rig.start(job_id, worker="w-3")

    diagnosis = why(job_id, dead_after=4)

    assert diagnosis.situation is Situation.QUARANTINED
    assert "died 2 times" in diagnosis.summary
    assert "after 4 such deaths" in diagnosis.summary
    assert "w-2 died or hung" in diagnosis.summary


def test_a_final_job_shows_each_pending_delivery(rig: StuckJobRig) -> None:
    job_id = rig.submit()
    rig.acknowledge(rig.claim())
    rig.start(job_id)
    result = sample_result("succeeded").model_copy(update={"job_id": job_id})
    rig.ledger.finish(job_id, result, pending=Pending(("object", "webhook"), deliverer=WORKER))
    failed = DeliveryOutcome("failed", "the receiver answered 503", retry_in_s=600)
    delivered = DeliveryOutcome("delivered")
    deliveries = DeliveryLedger(rig.ledger, worker=WORKER)
    deliveries.settle(job_id, {"webhook": failed, "object": delivered})

    diagnosis = why(job_id)

    fields = diagnosis.fields()["deliveries"]
    assert diagnosis.situation is Situation.DELIVERING
    assert (
        "webhook (1 attempt, next try in 10 min, last reason: the receiver answered 503)"
        in diagnosis.summary
    )
    assert "object" not in diagnosis.summary
    assert fields["webhook"]["next_try_in_s"] == pytest.approx(600, abs=5)
    assert fields["object"]["state"] == "delivered"
    assert "webhook's receiver" in advice(diagnosis)


def test_a_dead_letter_names_its_last_death_and_the_replay(rig: StuckJobRig) -> None:
    job_id = rig.submit()
    rig.start(job_id)
    rig.ledger.retry(job_id, worker=WORKER, delay_s=0, death="MemoryError", start=1)
    result = sample_result("failed").model_copy(update={"job_id": job_id})
    rig.ledger.finish(job_id, result, is_dead=True)

    diagnosis = why(job_id)

    assert diagnosis.situation is Situation.DEAD_LETTER
    assert "MemoryError" in diagnosis.summary
    assert f"labelyard dead replay {job_id}" in advice(diagnosis)


def test_a_message_that_was_set_aside_is_named_by_its_job(rig: StuckJobRig) -> None:
    raw = json.dumps({"job_id": "from-elsewhere", "labels": 7})
    kept = SetAsideMessage("labels: a list", "labelyard.bulk", len(raw), raw.encode())
    SetAside(rig.ledger.client, ClientSettings()).add(kept)
    unrecorded = why("from-elsewhere")
    rig.ledger.refuse("from-elsewhere", raw, Failure(code="x", message="x", is_retryable=False))

    diagnosis = why("from-elsewhere")

    assert (unrecorded.situation, diagnosis.situation) == (Situation.SET_ASIDE,) * 2
    assert "labels: a list" in diagnosis.summary
    assert f"labelyard set-aside replay {kept.id}" in advice(diagnosis)
    assert diagnosis.fields()["set_aside"] == [{"id": kept.id, "reason": "labels: a list"}]


def test_a_set_aside_message_of_a_similar_id_is_not_shown(rig: StuckJobRig) -> None:
    raw = b'{"job_id": "abc-2"}'
    SetAside(rig.ledger.client, ClientSettings()).add(SetAsideMessage("x", "q", len(raw), raw))

    assert why("abc").situation is Situation.UNKNOWN


def test_an_unknown_job_names_the_namespace_and_the_reasons(rig: StuckJobRig) -> None:
    diagnosis = why("nothing", namespace="other")

    assert diagnosis.situation is Situation.UNKNOWN
    assert "namespace other" in diagnosis.summary
    assert "LABELYARD_NAMESPACE" in advice(diagnosis)
    assert "LABELYARD_RESULT_TTL_S" in advice(diagnosis)


def test_a_message_without_a_record_is_adopted_by_its_worker(rig: StuckJobRig) -> None:
    job_id = rig.submit()
    rig.ledger.client.delete(rig.ledger.keys.job(job_id))

    assert why(job_id).situation is Situation.UNRECORDED


def test_a_job_whose_record_was_dropped_after_its_cancellation_says_so(rig: StuckJobRig) -> None:
    job_id = rig.submit()
    rig.client.cancel(job_id)
    cancelled = why(job_id)
    rig.ledger.client.delete(rig.ledger.keys.job(job_id))

    diagnosis = why(job_id)

    assert (cancelled.situation, "was cancelled" in cancelled.summary) == (Situation.FINISHED, True)
    assert (diagnosis.situation, "was cancelled" in diagnosis.summary) == (Situation.DROPPED, True)


def test_a_job_past_its_expiry_waits_for_a_worker_that_expires_it(rig: StuckJobRig) -> None:
    job_id = rig.submit(expires_in_s=0.01)
    time.sleep(0.02)
    overdue = why(job_id)
    assert rig.ledger.expire(job_id)

    diagnosis = why(job_id)

    assert overdue.situation is Situation.OVERDUE
    assert overdue.advice == (START_WORKER,)
    assert (diagnosis.situation, "it expired" in diagnosis.summary) == (Situation.FINISHED, True)


def test_a_succeeded_job_is_not_stuck(rig: StuckJobRig) -> None:
    job_id = rig.submit()
    rig.start(job_id)
    rig.ledger.finish(job_id, sample_result("succeeded").model_copy(update={"job_id": job_id}))

    diagnosis = why(job_id)

    assert diagnosis.situation is Situation.FINISHED
    assert f"labelyard result {job_id}" in advice(diagnosis)


def test_a_broker_that_is_away_leaves_the_ledgers_part(
    rig: StuckJobRig, own_valkey: ValkeyServer
) -> None:
    job_id = rig.submit()
    own_valkey.kill()

    diagnosis = why(job_id, broker_url=own_valkey.url, publish_timeout_s=0.3)

    assert diagnosis.situation is Situation.UNCLEAR
    assert "gives no answer" in diagnosis.summary
    assert diagnosis.fields()["state"] == "pending"
    assert diagnosis.fields()["broker"]["fault"].startswith("broker_unavailable")


def fill(rig: StuckJobRig, queue: str, *, published_at: float) -> None:
    """Put more messages into a list than one search reads, next to be claimed."""
    message = json.dumps({"headers": {"id": "other", "labelyard_published_at": published_at}})
    rig.broker.rpush(queue, *[message] * (MAX_SEARCHED + 5))
    rig.broker.expire(queue, 60)


def test_a_search_that_is_cut_tells_a_late_message_from_a_lost_one(rig: StuckJobRig) -> None:
    fill(rig, "labelyard.interactive", published_at=time.time() - 60)
    late = rig.submit()
    lost = rig.submit()
    rig.ledger.client.hset(rig.ledger.keys.job(lost), "published_at", str(time.time() - 600))

    behind, gone = why(late), why(lost)

    assert behind.situation is Situation.QUEUED
    assert f"behind more than the {MAX_SEARCHED} messages" in behind.summary
    assert behind.fields()["broker"]["searched"] == MAX_SEARCHED
    assert behind.fields()["broker"]["cut_in"] == "interactive"
    assert gone.situation is Situation.LOST


def test_a_long_queue_of_another_kind_does_not_hide_a_message(rig: StuckJobRig) -> None:
    fill(rig, "labelyard.bulk", published_at=time.time())
    job_id = rig.submit()

    diagnosis = why(job_id)

    assert diagnosis.situation is Situation.QUEUED
    assert diagnosis.fields()["broker"]["cut_in"] == "bulk"


def test_a_message_whose_place_nobody_can_tell_is_unclear(rig: StuckJobRig) -> None:
    rig.broker.rpush("labelyard.interactive", *["no envelope"] * (MAX_SEARCHED + 5))
    rig.broker.expire("labelyard.interactive", 60)
    job_id = rig.submit()

    diagnosis = why(job_id)

    assert diagnosis.situation is Situation.UNCLEAR
    assert f"first {MAX_SEARCHED} messages" in diagnosis.summary


def test_large_messages_end_the_search_early(
    rig: StuckJobRig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("labelyard.message_search.MAX_SEARCHED_BYTES", 10_000)
    rig.broker.rpush("labelyard.interactive", *["x" * 1000] * 100)
    rig.broker.expire("labelyard.interactive", 60)
    job_id = rig.submit()

    diagnosis = why(job_id)

    assert diagnosis.fields()["broker"]["searched"] <= 50
    assert diagnosis.fields()["broker"]["cut_in"] == "interactive"


def test_the_command_prints_sentences_and_with_json_an_object(rig: StuckJobRig) -> None:
    job_id = rig.submit()

    for_people = CliRunner().invoke(app, ["why", job_id])
    for_programs = CliRunner().invoke(app, ["why", job_id, "--json"])
    unknown = CliRunner().invoke(app, ["why", "nothing"])

    assert (for_people.exit_code, for_programs.exit_code, unknown.exit_code) == (0, 0, 1)
    assert f"{job_id}: queued" in for_people.stdout
    assert "labelyard-worker start" in for_people.stdout
    [line] = for_programs.stdout.splitlines()
    assert json.loads(line)["situation"] == "queued"
    assert "nothing: unknown" in unknown.stdout


def test_every_situation_is_explained() -> None:
    assert set(EXPLANATIONS) == set(Situation)


def test_the_workers_settings_have_the_workers_defaults() -> None:
    own = set(DiagnosisSettings.model_fields) - set(ClientSettings.model_fields)

    assert {name: DiagnosisSettings.model_fields[name].default for name in own} == {
        name: WorkerSettings.model_fields[name].default for name in own
    }
