"""The trace of a job: from its submit through a real worker to a collector."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from labelyard import Client
from labelyard.messages import Deliver
from tests.conftest import SESSION_SERVERS
from tests.e2e.instant import COMMAND, ROOT, SETTINGS
from tests.support import pictures
from tests.support.apps import orders
from tests.support.collector import CollectedSpan, Collector, running_collector
from tests.support.producer_spans import producer_spans
from tests.support.receiver import running_receiver
from tests.support.service import READY_WITHIN_S, Service
from tests.support.waiting import wait_until

NAMESPACE = "traced"
LABELS = ["a cat", "a secret dog"]
TIMEOUT_S = 30.0
PARENT = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
UNSAMPLED = "00-5bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-00"


@dataclass(frozen=True)
class TracedService:
    """A worker that exports its spans, and the collector that they come to."""

    service: Service
    collector: Collector
    flags: Path

    def client(self) -> Client:
        """Make a producer for this worker; the caller closes it."""
        return self.service.client(namespace=NAMESPACE)

    def picture(self, name: str) -> str:
        """Store a picture, and return its address."""
        return self.service.pictures.put(name, pictures.jpeg() + name.encode())

    def order(self, order: str) -> None:
        """Give the worker an order; see ``tests.support.apps.orders``."""
        (self.flags / order).touch()


@pytest.fixture(scope="module")
def traced(service: Service) -> Iterator[TracedService]:
    """Run a worker with batches of two images, whose spans arrive at once."""
    flags = service.folder / "traced-flags"
    flags.mkdir()
    with running_collector() as collector:
        variables = {
            "PYTHONPATH": str(ROOT),
            "TEST_EFFECTS": str(service.folder / "traced-effects.log"),
            "TEST_FLAGS": str(flags),
            "OTEL_EXPORTER_OTLP_ENDPOINT": collector.url,
            "OTEL_BSP_SCHEDULE_DELAY": "20",
        }
        settings = {**SETTINGS, "namespace": NAMESPACE, "max_attempts": "2", "max_batch_size": "2"}
        worker = service.worker(name="traced", command=COMMAND, variables=variables, **settings)
        with worker.start(within_s=READY_WITHIN_S) as process:
            SESSION_SERVERS.append(process)
            yield TracedService(service, collector, flags)
            SESSION_SERVERS.remove(process)


@pytest.fixture
def producer(traced: TracedService) -> Iterator[Client]:
    with traced.client() as client:
        yield client


def finished_attempt(collector: Collector, job_id: str, *, number: int = 1) -> CollectedSpan:
    """Wait for the span of a job's attempt; the spans below it were sent before."""

    def find() -> CollectedSpan | None:
        return next(
            (
                span
                for span in collector.named("labelyard.attempt")
                if span.attributes["messaging.message.id"] == job_id
                and span.attributes["labelyard.attempt"] == number
            ),
            None,
        )

    span = wait_until(find, within_s=TIMEOUT_S, message=f"attempt {number} of {job_id}")
    assert span is not None
    return span


def below(collector: Collector, parent: CollectedSpan) -> list[CollectedSpan]:
    """Return the spans right below another one."""
    spans = collector.of_trace(parent.trace_id)
    return [span for span in spans if span.parent_id == parent.span_id]


def names(spans: list[CollectedSpan]) -> list[str]:
    """Return the names of spans, sorted."""
    return sorted(span.name.removeprefix("labelyard.") for span in spans)


def test_a_job_of_three_images_has_one_trace_and_its_batches_have_their_own(
    traced: TracedService, producer: Client
) -> None:
    uris = [traced.picture(f"three-{number}") for number in range(3)]

    with producer_spans() as exporter:
        job_id = producer.classify(uris, LABELS, tenant="shop", timeout_s=TIMEOUT_S).job_id
        (submit,) = exporter.get_finished_spans()

    attempt = finished_attempt(traced.collector, job_id)
    assert submit.context is not None
    assert submit.name == "labelyard.submit"
    assert attempt.trace_id == f"{submit.context.trace_id:032x}"
    assert attempt.parent_id == f"{submit.context.span_id:016x}"
    spans = traced.collector.of_trace(attempt.trace_id)
    assert names([span for span in spans if span.parent_id == attempt.parent_id]) == [
        "attempt",
        "queued",
    ]
    assert names(below(traced.collector, attempt)) == [
        *("finish", "image", "image", "image", "labels", "score"),
    ]
    images = traced.collector.named("labelyard.image", attempt.trace_id)
    for image in images:
        assert names(below(traced.collector, image)) == ["batch_wait", "decode", "fetch"]
    batches = [
        batch
        for batch in traced.collector.named("labelyard.batch")
        if set(batch.links) & {image.span_id for image in images}
    ]
    assert len(batches) >= 2
    assert {batch.trace_id for batch in batches}.isdisjoint({attempt.trace_id})
    assert [batch.parent_id for batch in batches] == [""] * len(batches)
    assert sum(batch.attributes["labelyard.batch.size"] for batch in batches) == 3
    for image in images:
        (batch_id,) = image.links
        (batch,) = [batch for batch in batches if batch.span_id == batch_id]
        assert image.span_id in batch.links
        (wait,) = [s for s in below(traced.collector, image) if s.name == "labelyard.batch_wait"]
        assert wait.ended_ns <= batch.started_ns + 1_000_000


def test_the_spans_say_which_job_where_and_with_what_but_no_label_and_no_address(
    traced: TracedService, producer: Client
) -> None:
    uri = traced.picture("attributes")

    result = producer.classify([uri], LABELS, tenant="shop", timeout_s=TIMEOUT_S)

    attempt = finished_attempt(traced.collector, result.job_id)
    assert attempt.kind == "consumer"
    assert attempt.service == "labelyard-worker"
    assert result.model is not None
    assert dict(attempt.attributes) | {"labelyard.queued_s": 0, "labelyard.worker": ""} == {
        "messaging.system": "redis",
        "messaging.operation.name": "process",
        "messaging.operation.type": "process",
        "messaging.destination.name": "interactive",
        "messaging.message.id": result.job_id,
        "labelyard.tenant": "shop",
        "labelyard.images": 1,
        "labelyard.attempt": 1,
        "labelyard.deaths": 0,
        "labelyard.worker": "",
        "labelyard.queued_s": 0,
        "labelyard.verdict": "finish",
        "labelyard.status": "succeeded",
        "labelyard.label_set": result.label_set,
        "labelyard.checkpoint": result.model.checkpoint,
    }
    told = str(traced.collector.spans)
    assert "secret dog" not in told
    assert "s3://" not in told


def test_a_retry_is_one_more_attempt_that_says_how_the_first_ended(
    traced: TracedService, producer: Client
) -> None:
    uri = traced.picture("retry")
    traced.order(orders.LEAVE_NO_MEMORY)

    handle = producer.submit([uri], LABELS, trace={"traceparent": PARENT})
    handle.result(timeout_s=TIMEOUT_S)

    first = finished_attempt(traced.collector, handle.id)
    second = finished_attempt(traced.collector, handle.id, number=2)
    assert first.trace_id == second.trace_id == PARENT[3:35]
    assert first.parent_id == second.parent_id == PARENT[36:52]
    assert (first.error, first.attributes["labelyard.verdict"]) == ("batcher_full", "retry")
    assert (second.error, second.attributes["labelyard.verdict"]) == (None, "finish")
    failed_passes = [batch for batch in traced.collector.named("labelyard.batch") if batch.error]
    assert len(failed_passes) == 1


def test_a_failed_image_has_a_span_with_its_code_and_its_neighbour_has_none(
    traced: TracedService, producer: Client
) -> None:
    uris = [traced.picture("neighbour"), "s3://pictures/there-is-none"]

    result = producer.classify(uris, LABELS, timeout_s=TIMEOUT_S)

    attempt = finished_attempt(traced.collector, result.job_id)
    images = traced.collector.named("labelyard.image", attempt.trace_id)
    errors = {image.attributes["labelyard.image.number"]: image.error for image in images}
    assert errors == {0: None, 1: "image_not_found"}
    (failed,) = [image for image in images if image.error]
    assert [(s.name, s.error) for s in below(traced.collector, failed)] == [
        ("labelyard.fetch", "image_not_found")
    ]
    assert (attempt.error, attempt.attributes["labelyard.status"]) == (None, "partial")


def test_an_unsampled_parent_gives_no_spans_and_travels_on(
    traced: TracedService, producer: Client
) -> None:
    with running_receiver() as receiver:
        ours = {"order": "17", "traceparent": UNSAMPLED}
        deliver = Deliver(webhook=receiver.url)
        with producer_spans() as exporter:
            unsampled = producer.submit([traced.picture("un")], LABELS, trace=ours, deliver=deliver)
            unsampled.result(timeout_s=TIMEOUT_S)
            assert exporter.get_finished_spans() == ()
        wait_until(lambda: receiver.hooks)
        finished_attempt(
            traced.collector,
            producer.classify([traced.picture("sampled")], LABELS, timeout_s=TIMEOUT_S).job_id,
        )

    assert traced.collector.of_trace(UNSAMPLED[3:35]) == []
    kept = producer.status(unsampled.id).job().trace
    assert kept["order"] == "17"
    assert kept["traceparent"][:36] == UNSAMPLED[:36]
    headers = {name.lower(): value for name, value in receiver.hooks[0].headers.items()}
    assert headers["traceparent"] == kept["traceparent"]
    assert headers["traceparent"].endswith("-00")


def test_a_webhook_carries_the_span_of_its_delivery(
    traced: TracedService, producer: Client
) -> None:
    with running_receiver() as receiver:
        receiver.statuses = [503]
        result = producer.classify(
            [traced.picture("hook")],
            LABELS,
            timeout_s=TIMEOUT_S,
            trace={"traceparent": PARENT.replace("4bf9", "6bf9")},
            deliver=Deliver(webhook=receiver.url),
        )
        wait_until(lambda: len(receiver.hooks) == 2, within_s=TIMEOUT_S)
        attempt = finished_attempt(traced.collector, result.job_id)
        wait_until(lambda: len(traced.collector.named("labelyard.deliver", attempt.trace_id)) == 2)

    failed, delivered = traced.collector.named("labelyard.deliver", attempt.trace_id)
    assert failed.parent_id == attempt.span_id
    assert (failed.kind, failed.error) == ("client", "status 503")
    assert delivered.parent_id in (attempt.span_id, attempt.parent_id)
    assert delivered.error is None
    for hook, span in zip(receiver.hooks, (failed, delivered), strict=True):
        headers = {name.lower(): value for name, value in hook.headers.items()}
        assert headers["traceparent"] == f"00-{attempt.trace_id}-{span.span_id}-01"
