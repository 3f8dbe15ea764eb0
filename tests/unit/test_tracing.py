"""Traces of a worker: what switches them on, and what a fault of theirs costs."""

import logging
import subprocess
import sys
import threading
import time
from collections.abc import Iterator

import pytest

from labelyard_worker import spans
from labelyard_worker.operations.tracing import Tracing, TracingRefusedError, choose_exporters
from labelyard_worker.settings import WorkerSettings
from tests.support.collector import running_collector
from tests.support.receiver import running_receiver, running_slow_receiver
from tests.support.waiting import wait_until
from tests.unit.test_light_install import run_without

ENDPOINT = "OTEL_EXPORTER_OTLP_ENDPOINT"
PARENT = {"traceparent": "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"}


@pytest.mark.parametrize(
    ("variables", "exporters"),
    [
        ({}, ()),
        ({"OTEL_SERVICE_NAME": "labels"}, ()),
        ({ENDPOINT: "http://127.0.0.1:4318"}, ("otlp",)),
        ({"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://127.0.0.1:4318/v1/traces"}, ("otlp",)),
        ({"OTEL_TRACES_EXPORTER": "otlp"}, ("otlp",)),
        ({"OTEL_TRACES_EXPORTER": "console"}, ("console",)),
        ({"OTEL_TRACES_EXPORTER": " otlp, Console,otlp"}, ("otlp", "console")),
        ({"OTEL_TRACES_EXPORTER": "none", ENDPOINT: "http://127.0.0.1:4318"}, ()),
        ({"OTEL_SDK_DISABLED": "True", ENDPOINT: "http://127.0.0.1:4318"}, ()),
        ({"OTEL_TRACES_EXPORTER": "console", "OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"}, ("console",)),
    ],
)
def test_the_standard_variables_switch_traces_on_and_off(
    variables: dict[str, str], exporters: tuple[str, ...]
) -> None:
    assert choose_exporters(variables) == exporters


@pytest.mark.parametrize(
    ("variables", "advice"),
    [
        ({"OTEL_TRACES_EXPORTER": "zipkin"}, "zipkin is not supported: set otlp, console or none"),
        (
            {"OTEL_TRACES_EXPORTER": "otlp", "OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"},
            "set OTEL_EXPORTER_OTLP_TRACES_PROTOCOL=http/protobuf",
        ),
    ],
)
def test_a_variable_that_is_not_supported_is_refused_with_what_to_set(
    variables: dict[str, str], advice: str
) -> None:
    with pytest.raises(TracingRefusedError, match=advice):
        choose_exporters(variables)


def test_such_a_variable_leaves_traces_off_and_the_worker_on(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("OTEL_TRACES_EXPORTER", "zipkin")
    tracing = Tracing()

    tracing.start(WorkerSettings())
    tracing.close()

    assert [record.message for record in caplog.records] == ["tracing_off"]
    assert attempt() is spans.NO_SPAN


def test_without_the_extra_a_worker_says_what_to_install_and_goes_on() -> None:
    program = f"""
import logging, os
logging.basicConfig(format="%(message)s %(fields)s")
os.environ["{ENDPOINT}"] = "http://127.0.0.1:9"
from labelyard_worker import spans
from labelyard_worker.operations.tracing import Tracing
from labelyard_worker.settings import WorkerSettings
tracing = Tracing()
tracing.start(WorkerSettings())
assert spans.tracer().attempt({{}}, queued_s=0.0, attributes={{}}) is spans.NO_SPAN
tracing.close()
"""
    ended = run_without({"opentelemetry"}, program)

    assert ended.returncode == 0, ended.stderr
    assert "tracing_off" in ended.stderr
    assert "pip install 'labelyard[otel]'" in ended.stderr


def test_switched_off_nothing_is_loaded_that_makes_or_exports_spans() -> None:
    """redis-py imports a part of OpenTelemetry where it is installed; we import none."""
    program = """
import sys
from labelyard import Client
from labelyard_worker.operations.tracing import Tracing
from labelyard_worker.settings import WorkerSettings
Client().prepare(["s3://a/b"], ["a", "b"])
Tracing().start(WorkerSettings())
print([name for name in sys.modules if "operations.otel" in name or "opentelemetry.exporter" in name])
"""
    ended = subprocess.run(
        [sys.executable, "-c", program], check=True, timeout=60, capture_output=True, text=True
    )
    assert ended.stdout == "[]\n"


@pytest.fixture
def tracing() -> Iterator[Tracing]:
    """Make the traces of a worker; a test starts them, once its variables are set."""
    tracing = Tracing()
    yield tracing
    tracing.close()
    # A close that did not wait leaves its last exports to a thread.
    for thread in threading.enumerate():
        if thread.name == "labelyard-tracing-end":
            thread.join(30)


def attempt(trace: dict[str, str] = PARENT) -> spans.Span:
    """Start an attempt's span."""
    return spans.tracer().attempt(trace, queued_s=None, attributes={})


def test_the_end_of_a_worker_sends_its_last_spans(
    tracing: Tracing, monkeypatch: pytest.MonkeyPatch
) -> None:
    with running_collector() as collector:
        monkeypatch.setenv(ENDPOINT, collector.url)
        tracing.start(WorkerSettings())
        for _ in range(3):
            attempt().end()

        tracing.close(within_s=10)

        assert len(collector.named("labelyard.attempt")) == 3


def test_a_service_has_the_name_and_the_attributes_of_the_variables(
    tracing: Tracing, monkeypatch: pytest.MonkeyPatch
) -> None:
    with running_collector() as collector:
        monkeypatch.setenv(ENDPOINT, collector.url)
        monkeypatch.setenv("OTEL_SERVICE_NAME", "labels-of-the-shop")
        tracing.start(WorkerSettings())
        attempt().end()
        tracing.close(within_s=10)

        assert {span.service for span in collector.spans} == {"labels-of-the-shop"}


@pytest.mark.parametrize("ratio", ["0", "1"])
def test_the_decision_of_the_parent_counts_and_else_the_sampler(
    tracing: Tracing, monkeypatch: pytest.MonkeyPatch, ratio: str
) -> None:
    with running_collector() as collector:
        monkeypatch.setenv(ENDPOINT, collector.url)
        monkeypatch.setenv("OTEL_TRACES_SAMPLER", "parentbased_traceidratio")
        monkeypatch.setenv("OTEL_TRACES_SAMPLER_ARG", ratio)
        tracing.start(WorkerSettings())
        images = [attempt(trace).child("labelyard.image") for trace in (PARENT, {})]
        spans.tracer().batch(images, started_at=1.0, ended_at=2.0, error=None, attributes={})
        for image in images:
            image.end()
        tracing.close(within_s=10)

        (batch,) = collector.named("labelyard.batch")  # sampled, whatever the ratio: an image is
        sampled = collector.named("labelyard.image")
        assert set(batch.links) == {image.span_id for image in sampled}
        assert len(sampled) == 1 + int(ratio)


def test_a_batch_is_linked_with_more_images_than_a_span_has_links_by_default(
    tracing: Tracing, monkeypatch: pytest.MonkeyPatch
) -> None:
    with running_collector() as collector:
        monkeypatch.setenv(ENDPOINT, collector.url)
        tracing.start(WorkerSettings())
        images = [attempt().child("labelyard.image") for _ in range(200)]
        spans.tracer().batch(images, started_at=1.0, ended_at=2.0, error=None, attributes={})
        tracing.close(within_s=10)

        (batch,) = collector.named("labelyard.batch")
        assert len(batch.links) == 200


def test_a_collector_that_drips_delays_the_end_of_a_worker_by_no_more_than_the_limit(
    tracing: Tracing, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    with running_slow_receiver(b"HTTP/1.1 200 OK\r\nx: ", drip=b"x") as slow:
        monkeypatch.setenv(ENDPOINT, slow.url)
        monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "1")
        tracing.start(WorkerSettings())
        attempt().end()
        wait_until(lambda: slow.calls)
        began_at = time.monotonic()

        tracing.close(within_s=0.2)

        assert time.monotonic() - began_at < 5
    assert [record.message for record in caplog.records] == ["traces_not_flushed"]


def test_an_outage_of_the_collector_is_logged_once_and_so_is_its_end(
    tracing: Tracing, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    with running_receiver() as receiver:
        receiver.statuses = [400] * 3
        monkeypatch.setenv(ENDPOINT, receiver.url)
        monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "1")
        tracing.start(WorkerSettings())
        for requests in range(1, 5):
            attempt().end()
            wait_until(lambda requests=requests: len(receiver.hooks) == requests)
        tracing.close(within_s=10)

    events = [record.message for record in caplog.records if record.levelno >= logging.WARNING]
    assert events == ["traces_not_exported", "traces_exported_again"]


def test_spans_that_no_collector_takes_are_dropped_and_not_kept(
    tracing: Tracing, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The queue holds as many as its variable says; the threads that report do not wait."""
    with running_slow_receiver() as silent:
        monkeypatch.setenv(ENDPOINT, silent.url)
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_TIMEOUT", "1")
        monkeypatch.setenv("OTEL_BSP_MAX_QUEUE_SIZE", "8")
        monkeypatch.setenv("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", "4")
        tracing.start(WorkerSettings())
        for _ in range(100):
            attempt().end()

        assert tracing._export is not None
        (processor,) = tracing._export._processors
        assert len(processor._batch_processor._queue) <= 8
        tracing.close(within_s=0.1)


def test_a_line_break_in_a_job_s_trace_is_no_further_header() -> None:
    good = PARENT["traceparent"]

    assert spans.trace_headers({"traceparent": good, "tracestate": "a=1"}) == {
        "traceparent": good,
        "tracestate": "a=1",
    }
    assert spans.trace_headers({"traceparent": f"{good}\r\nx: y"}) == {}
    assert spans.trace_headers({"traceparent": good, "tracestate": "a=1\r\nx: y"}) == PARENT
    assert spans.trace_headers({"tracestate": "a=1"}) == {}
