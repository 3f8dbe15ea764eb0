"""Client on a real Valkey: what is accepted is in the ledger, and who waits is called."""

import logging
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from itertools import islice
from statistics import median
from typing import Any

import pytest
import redis

from labelyard import Client, ClientSettings, ImageRef, JobHandle, Label, LabelSet
from labelyard.errors import (
    BrokerUnavailableError,
    IdempotencyConflictError,
    InvalidMessageError,
    JobCancelledError,
    JobExpiredError,
    JobNotFoundError,
    LabelyardError,
    LedgerUnavailableError,
    QueueFullError,
    ResultTimeoutError,
    ServiceConfigError,
    UnknownLabelSetError,
)
from labelyard.ledger import Ledger, connect, listener
from labelyard.messages import Status
from labelyard.testing import sample_job, sample_result
from labelyard_worker.local.servers import ValkeyServer
from tests.support.waiting import wait_until

IMAGES = ["s3://photos/cat.jpg", "s3://photos/dog.jpg"]
LABELS = ["cat", "dog"]


@pytest.fixture
def client_settings(broker_url: str, ledger_url: str) -> ClientSettings:
    return ClientSettings(broker_url=broker_url, ledger_url=ledger_url, tenant="shop-eu")


@pytest.fixture
def client(client_settings: ClientSettings) -> Iterator[Client]:
    with Client(client_settings) as client:
        yield client


@pytest.fixture
def ledger(client_settings: ClientSettings) -> Iterator[Ledger]:
    """The worker's side."""
    with connect(client_settings) as connection:
        yield Ledger(connection, client_settings)


def finish(ledger: Ledger, job_id: str, status: Status = "succeeded") -> None:
    record = ledger.read(job_id)
    assert record is not None
    ledger.finish(job_id, sample_result(status, job=record.job()))


@contextmanager
def meanwhile(act: Callable[[], object]) -> Iterator[None]:
    """Run *act* in a thread while the block runs."""
    thread = threading.Thread(target=act)
    thread.start()
    try:
        yield
    finally:
        thread.join()


@contextmanager
def once_listened_to(ledger: Ledger, job_id: str, act: Callable[[], object]) -> Iterator[None]:
    """Run *act* as soon as somebody listens for the job."""
    channel = ledger.keys.done_channel(job_id)

    def is_listened_to() -> bool:
        return bool(ledger.client.pubsub_numsub(channel)[0][1])

    def wait_and_act() -> None:
        wait_until(is_listened_to)
        act()

    with meanwhile(wait_and_act):
        yield


def test_a_submitted_job_is_in_the_ledger_and_in_its_queue(
    client: Client, broker_redis: redis.Redis
) -> None:
    job = client.submit(IMAGES, LABELS, top_k=1, trace={"request": "7"})

    record = client.status(job.id)
    submitted = record.job()
    assert (job.is_new, job.is_published, job.state()) == (True, True, "pending")
    assert (submitted.tenant, submitted.top_k, submitted.trace) == ("shop-eu", 1, {"request": "7"})
    assert [image.id for image in submitted.images] == IMAGES
    assert broker_redis.llen("labelyard.interactive") == 1


def test_bulk_jobs_go_to_the_bulk_queue(client: Client) -> None:
    client.submit(IMAGES, LABELS, queue="bulk")

    assert client.queue_lengths()["bulk"] == 1


def test_an_idempotency_key_names_one_job_that_is_sent_once(client: Client) -> None:
    first = client.submit(IMAGES, LABELS, idempotency_key="order-1")
    second = client.submit(IMAGES, LABELS, idempotency_key="order-1", expires_in_s=60)
    other = client.submit(IMAGES, LABELS, idempotency_key="order-1", tenant="shop-us")

    assert (first.is_new, second.is_new, other.is_new) == (True, False, True)
    assert second.id == first.id
    assert client.queue_lengths()["interactive"] == 2
    assert client.open_images() == 4


def test_an_idempotency_key_is_refused_for_another_job(client: Client) -> None:
    first = client.submit(IMAGES, LABELS, idempotency_key="order-1")

    with pytest.raises(IdempotencyConflictError, match=first.id):
        client.submit(["s3://other/1.jpg"], LABELS, idempotency_key="order-1")

    assert client.queue_lengths()["interactive"] == 1


def test_a_tenant_cannot_take_another_tenants_id(client: Client) -> None:
    taken = client.prepare(IMAGES, LABELS, tenant="shop-eu", idempotency_key="order-1")
    client.submit_job(taken.model_copy(update={"tenant": "shop-us"}))

    with pytest.raises(IdempotencyConflictError):
        client.submit_job(taken)


def test_one_conflict_among_many_jobs_names_itself_and_keeps_the_others(client: Client) -> None:
    jobs = [client.prepare([f"s3://photos/{n}.jpg"], LABELS) for n in range(3)]
    client.submit_job(jobs[1])
    other = jobs[1].model_copy(update={"top_k": 1})

    with pytest.raises(IdempotencyConflictError, match=f"{other.job_id}.*2 jobs were accepted"):
        client.submit_many([jobs[0], other, jobs[2]])

    assert client.open_images() == 3


def test_a_job_that_breaks_the_contract_is_not_accepted(client: Client) -> None:
    with pytest.raises(InvalidMessageError, match="tenant"):
        client.submit(IMAGES, LABELS, tenant="no spaces")

    assert client.open_images() == 0


def test_many_jobs_go_in_batches_and_come_back_in_order(client: Client) -> None:
    jobs = [client.prepare([f"s3://photos/{n}.jpg"], LABELS) for n in range(1200)]

    handles = client.submit_many(iter(jobs))

    assert [handle.id for handle in handles] == [job.job_id for job in jobs]
    assert all(handle.is_new and handle.is_published for handle in handles)
    assert client.queue_lengths()["bulk"] == client.open_images() == 1200


def test_a_full_queue_refuses_the_rest_and_the_same_jobs_can_be_submitted_again(
    client_settings: ClientSettings, client: Client, ledger: Ledger
) -> None:
    jobs = [client.prepare(IMAGES, LABELS) for _ in range(3)]
    limited = client_settings.model_copy(update={"max_queued_images": 4})

    with Client(limited) as careful:
        with pytest.raises(QueueFullError, match=r"limit 4; 2 jobs were accepted before"):
            careful.submit_many(jobs)
        for job in jobs[:2]:
            finish(ledger, job.job_id)
        handles = careful.submit_many(jobs)

    assert [handle.is_new for handle in handles] == [False, False, True]
    assert client.queue_lengths()["bulk"] == 3


def test_a_result_is_read_as_it_was_written(client: Client, ledger: Ledger) -> None:
    job = client.submit(IMAGES, LABELS)
    finish(ledger, job.id, "partial")

    result = job.result()

    assert result.status == "partial"
    assert [image.id for image in result.images] == IMAGES
    assert result.images[1].error is not None


def test_a_result_that_is_not_there_yet_is_a_timeout(client: Client) -> None:
    job = client.submit(IMAGES, LABELS)

    with pytest.raises(ResultTimeoutError, match=f"{job.id}: not final after 0.05 s"):
        job.result(timeout_s=0.05)


@pytest.mark.parametrize("timeout_s", [0.0, 1.0])
def test_an_unknown_job_is_not_found(client: Client, timeout_s: float) -> None:
    with pytest.raises(JobNotFoundError):
        client.result("nothing", timeout_s=timeout_s)
    with pytest.raises(JobNotFoundError):
        client.status("nothing")
    with pytest.raises(JobNotFoundError):
        client.cancel("nothing")


def test_who_waits_is_called_when_the_job_ends(
    client: Client, ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By the call, well before the next look."""
    monkeypatch.setattr(listener, "LOOK_EVERY_S", 600.0)
    delays_s = []
    for _ in range(20):
        job = client.submit(IMAGES, LABELS)
        ended: list[float] = []

        def end(job: JobHandle = job, ended: list[float] = ended) -> None:
            finish(ledger, job.id)
            ended.append(time.perf_counter())

        with once_listened_to(ledger, job.id, end):
            job.result(timeout_s=30)
            woken = time.perf_counter()
        delays_s.append(woken - ended[0])

    assert median(delays_s) < 0.5


def test_a_lost_call_costs_one_look(client: Client, ledger: Ledger) -> None:
    """The ledger changes without a word, as when the connection broke at the wrong moment."""
    heard, unheard = client.submit(IMAGES, LABELS), client.submit(IMAGES, LABELS)
    result = sample_result(job=client.status(unheard.id).job())
    fields: Any = {"state": "succeeded", "result": result.model_dump_json()}
    ended = client.as_completed([heard, unheard], timeout_s=30)
    with once_listened_to(ledger, heard.id, lambda: finish(ledger, heard.id)):
        next(ended)

    ledger.client.hset(ledger.keys.job(unheard.id), mapping=fields)

    assert next(ended).result == result


def test_who_waits_outlives_the_ledgers_restart(own_valkey: ValkeyServer) -> None:
    used = ClientSettings(broker_url=own_valkey.url_of(0), ledger_url=own_valkey.url_of(1))
    with Client(used) as client, connect(used) as connection:
        ledger = Ledger(connection, used)
        job = client.submit(IMAGES, LABELS)

        def restart_and_finish() -> None:
            own_valkey.kill()
            own_valkey.start()
            finish(ledger, job.id)

        with once_listened_to(ledger, job.id, restart_and_finish):
            assert job.result(timeout_s=20).status == "succeeded"


def test_waiting_for_many_yields_them_as_they_end_and_returns_them_in_order(
    client: Client, ledger: Ledger
) -> None:
    handles = client.submit_many([client.prepare(IMAGES, LABELS) for _ in range(300)])

    def end_backwards() -> None:
        for handle in reversed(handles):
            finish(ledger, handle.id)

    with meanwhile(end_backwards):
        ended = [record.job_id for record in client.as_completed(handles, timeout_s=20)]
    records = client.wait([handle.id for handle in handles], timeout_s=0)

    assert sorted(ended) == sorted(handle.id for handle in handles)
    assert [record.job_id for record in records] == [handle.id for handle in handles]
    assert {record.outcome().status for record in records} == {"succeeded"}


def test_one_job_that_does_not_end_does_not_hide_the_others(client: Client, ledger: Ledger) -> None:
    stuck, done, cancelled = [client.submit(IMAGES, LABELS) for _ in range(3)]
    finish(ledger, done.id)
    cancelled.cancel()

    records = client.as_completed([stuck, done, cancelled], timeout_s=0.1)
    states = {record.job_id: record.state for record in islice(records, 2)}

    assert states == {done.id: "succeeded", cancelled.id: "cancelled"}
    with pytest.raises(ResultTimeoutError, match=stuck.id):
        next(records)


def test_a_cancelled_job_stays_cancelled_and_says_so(client: Client, ledger: Ledger) -> None:
    job = client.submit(IMAGES, LABELS)

    cancels = [job.cancel(), job.cancel()]
    finish(ledger, job.id)

    assert cancels == [True, True]
    with pytest.raises(JobCancelledError):
        job.result()


def test_a_finished_job_cannot_be_cancelled(client: Client, ledger: Ledger) -> None:
    job = client.submit(IMAGES, LABELS)
    finish(ledger, job.id)

    assert not job.cancel()
    assert job.result().status == "succeeded"


def test_a_job_that_nobody_took_in_time_expires_for_who_waits(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without a worker, and when its time is over, not at the next look."""
    monkeypatch.setattr(listener, "LOOK_EVERY_S", 600.0)
    job = client.submit(IMAGES, LABELS, expires_in_s=0.2)

    with pytest.raises(JobExpiredError):
        job.result(timeout_s=30)

    assert client.totals() == {"expired": 1}
    assert client.open_images() == 0


def test_an_expiry_is_said_in_one_way(client: Client) -> None:
    at = datetime.now(UTC) + timedelta(hours=1)

    job = client.prepare(IMAGES, LABELS, expires_at=at)

    assert job.expires_at == at
    with pytest.raises(InvalidMessageError, match="not both"):
        client.prepare(IMAGES, LABELS, expires_at=at, expires_in_s=1)


def test_a_job_is_accepted_while_the_broker_is_away(
    client_settings: ClientSettings, own_valkey: ValkeyServer, caplog: pytest.LogCaptureFixture
) -> None:
    own_valkey.kill()
    broken = client_settings.model_copy(
        update={"broker_url": own_valkey.url, "publish_timeout_s": 0.2}
    )

    with Client(broken) as client, caplog.at_level(logging.WARNING, "labelyard"):
        single = client.submit(IMAGES, LABELS)
        [one, two] = client.submit_many([client.prepare(IMAGES, LABELS) for _ in range(2)])
        with pytest.raises(BrokerUnavailableError):
            client.ping()

        assert [job.is_published for job in (single, one, two)] == [False] * 3
        assert [job.state() for job in (single, one, two)] == ["pending"] * 3
    assert [record.message for record in caplog.records] == ["publish_failed"] * 2


def test_nothing_is_accepted_while_the_ledger_is_away(
    client_settings: ClientSettings, own_valkey: ValkeyServer, broker_redis: redis.Redis
) -> None:
    own_valkey.kill()
    broken = client_settings.model_copy(update={"ledger_url": own_valkey.url})

    with Client(broken) as client:
        with pytest.raises(LedgerUnavailableError):
            client.submit(IMAGES, LABELS)
        with pytest.raises(LedgerUnavailableError):
            client.submit_many([client.prepare(IMAGES, LABELS)])
        with pytest.raises(LedgerUnavailableError):
            client.result("any", timeout_s=5)
        with pytest.raises(LedgerUnavailableError):
            client.ping()

    assert broker_redis.dbsize() == 0


@pytest.mark.parametrize(
    ("setting", "error"),
    [("broker_url", BrokerUnavailableError), ("ledger_url", LedgerUnavailableError)],
)
def test_a_ping_finds_both_servers(
    client: Client, client_settings: ClientSettings, setting: str, error: type[LabelyardError]
) -> None:
    client.ping()

    with_a_dead_one = client_settings.model_copy(update={setting: "redis://127.0.0.1:1/0"})
    with Client(with_a_dead_one) as other, pytest.raises(error):
        other.ping()


def test_threads_share_a_client(client: Client, ledger: Ledger) -> None:
    results = []

    def classify() -> None:
        results.append(client.classify(IMAGES, LABELS, timeout_s=10).status)

    threads = [threading.Thread(target=classify) for _ in range(8)]
    for thread in threads:
        thread.start()
    wait_until(lambda: client.open_images() == 16)
    for job_id in [key.rpartition(":")[2] for key in ledger.client.scan_iter("labelyard:job:*")]:
        finish(ledger, job_id)
    for thread in threads:
        thread.join()

    assert results == ["succeeded"] * 8


@pytest.mark.allow_persistent_keys("label sets stay until somebody deletes them")
def test_a_registered_label_set_can_be_referred_to(client: Client) -> None:
    animals = LabelSet(labels=(Label(name="cat"), Label(name="dog")), scoring="sigmoid")

    reference = client.label_sets.register("animals", animals)
    job = client.prepare(IMAGES, reference)

    assert job.label_set == reference
    assert client.label_sets.get(reference) == animals
    with pytest.raises(UnknownLabelSetError):
        client.label_sets.get(f"other@{reference.partition('@')[2][:-1]}0")


def test_images_come_with_ids_or_are_called_by_their_address(client: Client) -> None:
    ref = ImageRef(id="sku-3", uri="s3://p/3.jpg", etag="abc")

    job = client.prepare(["s3://p/1.jpg", ("sku-2", "s3://p/2.jpg"), ref, "s3://p/1.jpg"], LABELS)

    assert [image.id for image in job.images] == [
        "s3://p/1.jpg",
        "sku-2",
        "sku-3",
        "s3://p/1.jpg#2",
    ]
    assert job.images[2] == ref


def test_a_dead_letter_is_listed_replayed_and_purged(client: Client, ledger: Ledger) -> None:
    replayed, purged = [client.submit(IMAGES, LABELS, queue="bulk") for _ in range(2)]
    for job in (replayed, purged):
        ledger.finish(job.id, sample_result("failed", job=sample_job()), is_dead=True)
    listed = client.dead_letters.ids()

    client.dead_letters.replay(replayed.id)
    client.dead_letters.purge(purged.id)

    assert listed == [replayed.id, purged.id]
    assert client.dead_letters.records() == []
    assert (replayed.state(), purged.state()) == ("pending", "failed")
    assert client.queue_lengths()["bulk"] == 3
    assert ledger.client.zcard(ledger.keys.due) == 0
    with pytest.raises(JobNotFoundError, match="is not a dead letter"):
        client.dead_letters.replay(purged.id)
    with pytest.raises(JobNotFoundError, match="is not a dead letter"):
        client.dead_letters.purge(purged.id)


def test_a_replay_without_a_broker_is_left_to_the_reconciler(
    client_settings: ClientSettings, ledger: Ledger, own_valkey: ValkeyServer
) -> None:
    job = sample_job()
    ledger.open(job, queue="bulk")
    ledger.finish(job.job_id, sample_result("failed", job=job), is_dead=True)
    own_valkey.kill()
    broken = client_settings.model_copy(
        update={"broker_url": own_valkey.url, "publish_timeout_s": 0.2}
    )

    with Client(broken) as client:
        client.dead_letters.replay(job.job_id)

    assert ledger.client.zscore(ledger.keys.due, job.job_id)


def test_settings_come_from_the_environment(
    service_environment: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LABELYARD_TENANT", "from-env")
    with Client() as client:
        assert client.settings.broker_url == service_environment["LABELYARD_BROKER_URL"]
        assert client.prepare(IMAGES, LABELS).tenant == "from-env"

    monkeypatch.setenv("LABELYARD_PUBLISH_TIMEOUT_S", "soon")
    with pytest.raises(ServiceConfigError, match="LABELYARD_PUBLISH_TIMEOUT_S"):
        Client()
