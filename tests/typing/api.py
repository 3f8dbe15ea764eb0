"""Uses of the public API that mypy checks and nobody runs."""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import assert_type

from labelyard import (
    AsyncClient,
    AsyncEvent,
    AsyncEventGap,
    AsyncJobHandle,
    Client,
    ClientSettings,
    Deliver,
    Event,
    EventGap,
    ImageRef,
    Job,
    JobHandle,
    Label,
    LabelSet,
    Record,
    Result,
    RunHandle,
    RunProgress,
    RunRecord,
)
from labelyard.evaluation.evaluation import Evaluation
from labelyard.explaining import ExplainedImage
from labelyard.ledger import Backlog, BacklogKey, State
from labelyard.ledger.listing import JobSummary
from labelyard.ledger.undelivered import UndeliveredResult
from labelyard.tenants import TenantPolicy
from labelyard.testing import AsyncFakeClient, FakeClient, answer_by_scores
from labelyard.webhooks import WebhookPayload, verify


def submits(client: Client) -> None:
    assert_type(client.submit(["s3://a/b.jpg"], ["cat", "dog"]), JobHandle)
    animals = LabelSet(labels=(Label(name="cat"),), scoring="sigmoid")
    client.submit([("id", "s3://a/b.jpg"), ImageRef(id="c", uri="s3://a/c.jpg")], animals)
    job = client.prepare(
        ["s3://a/b.jpg"],
        ("cat", Label(name="dog", threshold=0.5)),
        top_k=3,
        tenant="shop-eu",
        expires_at=datetime.now(UTC),
        idempotency_key="order-1",
        tag="spring-campaign",
        deliver=Deliver(stream="events"),
        trace={"traceparent": "00-1"},
    )
    assert_type(job, Job)
    assert_type(client.submit_many([job], queue="bulk"), list[JobHandle])
    client.submit(["s3://a/b.jpg"], ["cat"], topk=3)  # type: ignore[call-arg]
    client.submit(["s3://a/b.jpg"], ["cat"], queue="quarantine")  # type: ignore[arg-type]
    client.submit(["s3://a/b.jpg"], [1])  # type: ignore[list-item]


def evaluates(client: Client) -> None:
    evaluation = client.evaluate(["cat", "dog"], "manifest.jsonl", require=["accuracy>=0.9"])
    assert_type(evaluation, Evaluation)
    assert_type(evaluation.accuracy, float | None)
    client.evaluate(["cat"], "manifest.jsonl", out="s3://results/evaluations/")
    client.evaluate("pets@sha256:00", [{"image": "s3://a/b.jpg", "label": None}], split="test")
    client.evaluate(["cat"], "manifest.jsonl", queue="quarantine")  # type: ignore[arg-type]


def explains(client: Client) -> None:
    explained = client.explain("photo.jpg", "cat", ["cat", "dog"], grid=8)
    assert_type(explained, ExplainedImage)
    assert_type(explained.explanation.window.left, float)
    client.explain("photo.jpg", ["cat"], ["cat"])  # type: ignore[arg-type]


def waits(client: Client, job: JobHandle) -> None:
    assert_type(job.result(timeout_s=1), Result)
    assert_type(job.state(), State)
    assert_type(client.wait([job, "id"], timeout_s=1), list[Record])
    for record in client.as_completed([job], timeout_s=1):
        assert_type(record.outcome(), Result)
    for image in client.classify(["s3://a/b.jpg"], ["cat"]).images:
        assert_type([(label.name, label.score) for label in image.labels], list[tuple[str, float]])


def administers(client: Client) -> None:
    assert_type(client.backlog(), Mapping[BacklogKey, Backlog])
    assert_type(client.list_jobs(state="pending", queue="bulk").jobs, tuple[JobSummary, ...])
    assert_type(client.cancel_all(tenant="shop"), int)
    assert_type(client.forget("id").object_uri, str)
    assert_type(client.tenants.set("shop", weight=3, max_open_images=10), TenantPolicy)
    client.list_jobs(queue="express")  # type: ignore[arg-type]


def receives(client: Client, headers: dict[str, str], body: bytes) -> None:
    payload = verify(headers, body, ["whsec_b2xk", "whsec_bmV3"])
    assert_type(payload, WebhookPayload)
    assert_type(payload.id, str)
    assert_type(payload.sent_at, datetime)
    assert_type(payload.result(), Result)
    verify([(b"webhook-id", b"1")], body.decode(), "whsec_b2xk", tolerance_s=60)
    found = client.webhooks.list(state="dead", host="hooks.example.com", since=datetime.now(UTC))
    assert_type(found.deliveries, tuple[UndeliveredResult, ...])
    assert_type(client.webhooks.replay_all(kind="object"), int)


def runs_in_bulk(client: Client) -> None:
    handle = client.runs.start(
        "s3://photos/**/*.jpg", ["a cat"], out="s3://results/cats/", output_format="parquet"
    )
    assert_type(handle, RunHandle)
    assert_type(handle.wait(timeout_s=1), RunRecord)
    assert_type(next(client.runs.watch(handle.id)), RunProgress)
    client.runs.start("s3://photos/", ["a cat"], out="s3://r/", output_format="csv")  # type: ignore[arg-type]


def consumes(client: Client) -> None:
    for event in client.events("indexer", start="oldest", kinds=["job"], timeout_s=1):
        if event.kind == "gap":
            assert_type(event, EventGap)
            assert_type(event.lost, int | None)
        else:
            assert_type(event, Event)
            assert_type(event.result, Result | None)
        event.ack()
    client.events("indexer", begin="oldest")  # type: ignore[call-arg]
    client.events("indexer", start="newest")  # type: ignore[arg-type]


async def awaits(client: AsyncClient) -> None:
    job = await client.submit(["s3://a/b.jpg"], ["cat"], expires_in_s=60)
    assert_type(job, AsyncJobHandle)
    assert_type(await job.result(timeout_s=1), Result)
    assert_type(await client.wait([job], timeout_s=1), list[Record])
    async for record in client.as_completed([job], timeout_s=1):
        assert_type(record, Record)
    async for event in client.events("indexer"):
        assert_type(event, AsyncEvent | AsyncEventGap)
        await event.ack()


async def fakes_stand_in() -> None:
    administers(FakeClient())
    submits(FakeClient(answer_by_scores({"s3://a/b.jpg": {"cat": 1.0}})))
    await awaits(AsyncFakeClient(FakeClient(answer=None)))


def settings_are_keywords() -> Client:
    return Client(ClientSettings(broker_url="redis://h/0", max_queued_images=10))
