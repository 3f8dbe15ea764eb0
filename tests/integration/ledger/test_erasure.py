"""Erasing a job leaves nothing of it in the ledger but its final state; others stay untouched."""

import asyncio
from collections.abc import Iterator

import pytest
import redis

from labelyard import AsyncClient, Client
from labelyard.errors import JobNotFoundError
from labelyard.ledger import Ledger, Pending, connect
from labelyard.ledger.erasure import Erasure, erase_job
from labelyard.ledger.set_aside import SetAside, SetAsideMessage
from labelyard.messages import Deliver, Job
from labelyard.settings import ClientSettings
from labelyard.testing import sample_job, sample_result
from tests.integration.ledger.test_lost_replies import begin

TARGET = "s3://results/7.json"
HOOK = "https://shop.example/hook"
DELIVER = Deliver(stream="events", object_uri=TARGET, webhook=HOOK)
JOB = sample_job(job_id="the-job", deliver=DELIVER)
OTHER = sample_job(job_id="other", deliver=DELIVER)


@pytest.fixture
def settings(ledger_url: str, broker_url: str) -> ClientSettings:
    return ClientSettings(ledger_url=ledger_url, broker_url=broker_url, namespace="test")


@pytest.fixture
def ledger(settings: ClientSettings) -> Iterator[Ledger]:
    with connect(settings) as client:
        yield Ledger(client, settings)


def bury(ledger: Ledger, job: Job) -> None:
    """Bring a job to the end that writes most: a dead letter with pending deliveries."""
    ledger.open(job, queue="bulk")
    ledger.client.set("test:worker:w1", "[]", ex=60)
    ledger.start(job.job_id, worker="w1", quarantine_after=2, dead_after=2)
    result = sample_result("failed", job=job)
    ledger.finish(job.job_id, result, pending=Pending(("object", "webhook")), is_dead=True)


def traces(client: redis.Redis, job_id: str) -> set[str]:
    """Name the keys that hold a job's id in their name or their content."""
    found = set()
    for key in client.scan_iter():
        content = {
            "hash": lambda key: str(client.hgetall(key)),
            "zset": lambda key: str(client.zrange(key, 0, -1)),
            "stream": lambda key: str(client.xrange(key)),
        }.get(client.type(key), client.get)(key)
        if job_id in f"{key} {content}":
            found.add(key)
    return found


def test_the_maps_of_an_erased_job_s_explanations_are_named(ledger: Ledger) -> None:
    explained = sample_job(job_id="explained", explain=("cat", "dog"))
    ledger.open(explained, queue="bulk")
    result = sample_result(job=explained)
    ledger.finish(explained.job_id, result)

    erasure = erase_job(ledger, explained.job_id)

    assert len(erasure.maps) == 4
    assert erasure.maps[0] == "s3://results/explanations/explained/0-0.png"


def test_an_erased_job_leaves_a_tombstone_alone(ledger: Ledger, settings: ClientSettings) -> None:
    bury(ledger, JOB)
    bury(ledger, OTHER)
    before = traces(ledger.client, "other")
    SetAside(ledger.client, settings).add(SetAsideMessage("odd", "q", 9, b'"the-job"'))
    SetAside(ledger.client, settings).add(SetAsideMessage("odd", "q", 9, b'"another"'))

    erasure = erase_job(ledger, "the-job")

    assert erasure == Erasure("the-job", object_uri=TARGET, webhook=HOOK, set_aside=1)
    assert traces(ledger.client, "the-job") == {"test:ended:the-job"}
    assert ledger.client.get("test:ended:the-job") == "failed"
    assert traces(ledger.client, "other") == before
    assert SetAside(ledger.client, settings).count() == 1


def test_every_event_of_a_replayed_job_is_erased(ledger: Ledger) -> None:
    bury(ledger, JOB)
    ledger.replay("the-job")
    ledger.finish("the-job", sample_result(job=JOB))
    assert len(ledger.client.xrange("test:stream:events")) == 2

    erase_job(ledger, "the-job")

    assert ledger.client.xrange("test:stream:events") == []


def test_a_running_job_is_cancelled_and_its_worker_is_notified(ledger: Ledger) -> None:
    ledger.open(JOB, queue="bulk")
    begin(ledger)
    with ledger.client.pubsub(ignore_subscribe_messages=True) as pubsub:
        pubsub.subscribe(ledger.keys.stopped_channel)
        pubsub.get_message(timeout=5)

        erase_job(ledger, "the-job")

        message = pubsub.get_message(timeout=5)
    assert message is not None
    assert message["data"] == "the-job"
    assert (ledger.backlog(), ledger.open_images(), ledger.totals()) == ({}, 0, {"cancelled": 1})
    assert not ledger.finish("the-job", sample_result(job=JOB))
    assert not ledger.adopt(JOB, queue="bulk")


def test_a_message_in_the_broker_does_not_bring_an_erased_job_back(ledger: Ledger) -> None:
    bury(ledger, JOB)
    erase_job(ledger, "the-job")

    started = ledger.start("the-job", worker="w2", quarantine_after=2, dead_after=2)

    assert (started.verdict, started.state) == ("final", "failed")
    assert ledger.read("the-job") is None


def test_a_job_can_be_erased_twice_but_an_unknown_one_is_an_error(ledger: Ledger) -> None:
    bury(ledger, JOB)
    erase_job(ledger, "the-job")

    assert erase_job(ledger, "the-job") == Erasure("the-job")
    with pytest.raises(JobNotFoundError):
        erase_job(ledger, "unknown")


def test_another_client_that_knew_the_job_does_not_take_its_erasure_for_an_outage(
    settings: ClientSettings,
) -> None:
    with Client(settings) as submitter, Client(settings) as eraser:
        job = submitter.submit(["s3://a/b.jpg"], ["cat"])

        eraser.forget(job.id)

        with pytest.raises(JobNotFoundError):
            submitter.status(job.id)
        with pytest.raises(JobNotFoundError):
            job.result(timeout_s=5)


def test_the_asynchronous_client_erases_and_lists_too(settings: ClientSettings) -> None:
    async def scenario() -> None:
        async with AsyncClient(settings) as client:
            job = await client.submit(["s3://a/b.jpg"], ["cat"])
            listed = await client.list_jobs()
            assert [one.job_id for one in listed.jobs] == [job.id]
            await client.forget(job.id)
            with pytest.raises(JobNotFoundError):
                await client.status(job.id)
            assert (await client.list_jobs()).jobs == ()
            assert await client.cancel_all() == 0

    asyncio.run(scenario())


def test_the_events_of_a_job_whose_record_was_dropped_are_erased(ledger: Ledger) -> None:
    for job in (OTHER, JOB):
        ledger.open(job, queue="bulk")
        ledger.finish(job.job_id, sample_result(job=job))
    ledger.client.delete(ledger.keys.job("the-job"))
    ledger.client.delete(ledger.keys.jobs, ledger.keys.stream("events"))

    erase_job(ledger, "the-job")

    assert traces(ledger.client, "the-job") == set()
    assert len(ledger.client.xrange(ledger.keys.events)) == 1
    with pytest.raises(JobNotFoundError):
        erase_job(ledger, "the-job")
