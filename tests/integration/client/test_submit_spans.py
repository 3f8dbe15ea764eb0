"""The span of a submit: its context travels in the job, and changes nothing else."""

import asyncio
from collections.abc import Callable, Iterator

import pytest
from opentelemetry import baggage, context, trace
from opentelemetry.sdk.trace import ReadableSpan

from labelyard import AsyncClient, Client
from labelyard.errors import QueueFullError
from labelyard.fields import MAX_TRACE_ENTRIES
from labelyard.settings import ClientSettings
from tests.support.producer_spans import producer_spans

IMAGES = ["s3://pictures/cat.jpg"]
LABELS = ["a cat", "a dog"]
PARENT = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"

pytestmark = pytest.mark.usefixtures("service_environment")


@pytest.fixture
def client() -> Iterator[Client]:
    with Client() as client:
        yield client


def submit_with_client(**options: object) -> dict[str, str]:
    with Client() as client:
        handle = client.submit(IMAGES, LABELS, **options)  # type: ignore[arg-type]
        return client.status(handle.id).job().trace


def submit_with_async_client(**options: object) -> dict[str, str]:
    async def submit() -> dict[str, str]:
        async with AsyncClient() as client:
            handle = await client.submit(IMAGES, LABELS, **options)  # type: ignore[arg-type]
            return (await client.status(handle.id)).job().trace

    return asyncio.run(submit())


def traceparent_of(span: ReadableSpan) -> str:
    made = span.get_span_context()
    assert made is not None
    return f"00-{made.trace_id:032x}-{made.span_id:016x}-{made.trace_flags:02x}"


both_clients = pytest.mark.parametrize("submit", [submit_with_client, submit_with_async_client])


@both_clients
def test_the_job_carries_the_context_of_its_submit_and_no_baggage(
    submit: Callable[..., dict[str, str]],
) -> None:
    with producer_spans() as exporter:
        token = context.attach(baggage.set_baggage("user", "someone@example.com"))
        with trace.get_tracer("app").start_as_current_span("request") as request:
            travelled = submit(trace={"order": "17"})
        context.detach(token)
        span = exporter.get_finished_spans()[0]

    assert span.parent == request.get_span_context()
    assert travelled == {"order": "17", "traceparent": traceparent_of(span)}


@both_clients
def test_a_traceparent_of_the_caller_is_the_parent_whatever_span_is_current(
    submit: Callable[..., dict[str, str]],
) -> None:
    with producer_spans() as exporter:
        with trace.get_tracer("app").start_as_current_span("request"):
            travelled = submit(trace={"traceparent": PARENT, "tracestate": "a=1"})
        span = exporter.get_finished_spans()[0]

    assert span.parent is not None
    assert f"{span.parent.span_id:016x}" == PARENT[36:52]
    assert travelled["traceparent"][:36] == PARENT[:36]
    assert travelled["tracestate"] == "a=1"


@both_clients
def test_without_a_tracer_the_trace_travels_as_it_was_given(
    submit: Callable[..., dict[str, str]],
) -> None:
    for given in ({}, {"order": "17"}, {"traceparent": PARENT, "x": "y"}, {"tracestate": "a=1"}):
        assert submit(trace=given) == given


def test_entries_of_the_caller_leave_no_room_for_ours(client: Client) -> None:
    full = {f"entry-{number}": "x" for number in range(MAX_TRACE_ENTRIES)}
    almost = dict(list(full.items())[:-1])

    with producer_spans():
        jobs = [client.prepare(IMAGES, LABELS, trace=each) for each in (full, almost)]
        handles = client.submit_many(jobs)

    kept, extended = (client.status(handle.id).job().trace for handle in handles)
    assert kept == full
    assert extended.keys() - almost.keys() == {"traceparent"}


def test_jobs_that_are_submitted_together_have_a_span_each(client: Client) -> None:
    with producer_spans() as exporter:
        jobs = [client.prepare(IMAGES, LABELS) for _ in range(3)]
        handles = client.submit_many(jobs)
        spans = exporter.get_finished_spans()

    made = {span.attributes["messaging.message.id"]: span for span in spans if span.attributes}
    assert made.keys() == {handle.id for handle in handles}
    for handle in handles:
        sent = client.status(handle.id).job().trace["traceparent"]
        assert sent == traceparent_of(made[handle.id])


def test_a_second_submit_under_another_span_is_the_same_job(client: Client) -> None:
    with producer_spans() as exporter:
        first, second = (
            client.submit(IMAGES, LABELS, idempotency_key="order-17") for _ in range(2)
        )
        told = [dict(span.attributes or {}) for span in exporter.get_finished_spans()]

    assert (first.id, second.is_new) == (second.id, False)
    assert [attributes["labelyard.is_new"] for attributes in told] == [True, False]


def test_a_refused_job_s_span_has_the_code_and_no_text() -> None:
    settings = ClientSettings(max_queued_images=1)
    with Client(settings) as client, producer_spans() as exporter:
        jobs = [client.prepare(IMAGES, LABELS) for _ in range(2)]
        with pytest.raises(QueueFullError):
            client.submit_many(jobs)
        accepted, refused = exporter.get_finished_spans()

    assert accepted.status.is_unset
    assert (refused.status.description, refused.attributes["error.type"]) == (  # type: ignore[index]
        "queue_full",
        "queue_full",
    )
