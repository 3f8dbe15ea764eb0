"""Export of spans to a collector or the console; needs the extra ``labelyard[otel]``.

A collector that is away, or that drips its answers, costs spans, and neither jobs nor memory: the
queue of spans is bounded (``OTEL_BSP_MAX_QUEUE_SIZE``), and one thread exports it.
"""

import logging
import os
from collections.abc import Sequence
from typing import Any, Final

from opentelemetry import trace as otel
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan, SpanLimits, TracerProvider
from opentelemetry.sdk.trace.export import (
    BatchSpanProcessor,
    ConsoleSpanExporter,
    SpanExporter,
    SpanExportResult,
)
from opentelemetry.sdk.trace.sampling import ALWAYS_ON

log = logging.getLogger(__name__)

SERVICE_NAME: Final = "labelyard-worker"
INSTRUMENTATION: Final = "labelyard"
# They log each failed export and each dropped span; ReportedExporter logs an outage once.
TALKATIVE_LOGGERS: Final = ("opentelemetry.exporter", "opentelemetry.sdk._shared_internal")


class ReportedExporter(SpanExporter):
    """Exporter that logs the beginning and the end of an outage, and nothing in between.

    Args:
        exporter: Exporter of OpenTelemetry.
    """

    def __init__(self, exporter: SpanExporter) -> None:
        self._exporter = exporter
        self._lost = 0

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        """Export spans; those that cannot be are lost."""
        result = self._exporter.export(spans)
        if result is SpanExportResult.SUCCESS:
            if self._lost:
                log.warning("traces_exported_again", extra={"fields": {"lost_spans": self._lost}})
            self._lost = 0
            return result
        if not self._lost:
            why = "the collector did not take them; is OTEL_EXPORTER_OTLP_ENDPOINT right?"
            log.warning("traces_not_exported", extra={"fields": {"why": why}})
        self._lost += len(spans)
        return result

    def shutdown(self) -> None:
        """Close the connection, and give up an export that would be retried."""
        self._exporter.shutdown()

    def force_flush(self, timeout_millis: int = 30_000) -> bool:
        """Return whether all spans are exported: none is held here."""
        return self._exporter.force_flush(timeout_millis)


class Export:
    """Tracers of a worker process, and the processors that export their spans.

    Attributes:
        tracer: Honours the sampling decision of a span's parent.
        batch_tracer: Samples every span: it is asked for one only if an image is sampled.
    """

    def __init__(self, names: Sequence[str]) -> None:
        """Start a thread for each exporter of *names*: ``otlp``, ``console``.

        Raises:
            ValueError: A variable of the exporter has a value that it refuses.
        """
        for name in TALKATIVE_LOGGERS:
            logging.getLogger(name).setLevel(logging.CRITICAL)
        options: dict[str, Any] = {"resource": describe_resource(), "shutdown_on_exit": False}
        jobs = TracerProvider(**options)
        batches = TracerProvider(**options, sampler=ALWAYS_ON, span_limits=batch_limits())
        self._processors = [
            BatchSpanProcessor(ReportedExporter(make_exporter(name))) for name in names
        ]
        for processor in self._processors:
            jobs.add_span_processor(processor)
            batches.add_span_processor(processor)
        self.tracer: otel.Tracer = jobs.get_tracer(INSTRUMENTATION)
        self.batch_tracer: otel.Tracer = batches.get_tracer(INSTRUMENTATION)

    def shutdown(self) -> None:
        """Export the last spans; it may take minutes if the collector drips."""
        for processor in self._processors:
            processor.shutdown()  # type: ignore[no-untyped-call]


def make_exporter(name: str) -> SpanExporter:
    """Make the exporter of that name, configured by the standard variables."""
    if name == "console":
        return ConsoleSpanExporter(formatter=lambda span: f"{span.to_json(indent=None)}\n")
    return OTLPSpanExporter()


def describe_resource() -> Resource:
    """Describe this process as the standard variables do, with a name of ours if they have none."""
    resource = Resource.create()
    name = str(resource.attributes.get("service.name", ""))
    if name.startswith("unknown_service"):
        return resource.merge(Resource({"service.name": SERVICE_NAME}))
    return resource


def batch_limits() -> SpanLimits:
    """Return limits that let a batch be linked with all its images, unless a variable has one."""
    is_set = "OTEL_SPAN_LINK_COUNT_LIMIT" in os.environ
    return SpanLimits() if is_set else SpanLimits(max_links=SpanLimits.UNSET)
