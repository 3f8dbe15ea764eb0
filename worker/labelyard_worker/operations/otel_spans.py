"""Spans of OpenTelemetry behind the main path's reports; needs the extra ``labelyard[otel]``."""

import time
from collections.abc import Mapping, Sequence
from typing import Final

from opentelemetry import trace as otel
from opentelemetry.context import Context
from opentelemetry.trace import Link, SpanKind, Status, StatusCode
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from labelyard_worker import spans
from labelyard_worker.spans import NO_ATTRIBUTES, NO_SPAN, Attributes, Span, Stage, Tracer

# Not the application's propagators, which may carry baggage: it could hold anything.
W3C: Final = TraceContextTextMapPropagator()


class RecordedSpan(Span):
    """Span of OpenTelemetry; its times are monotonic ones, moved to the wall clock.

    Args:
        tracer: Starts the spans below it.
        offset_ns: Wall clock less monotonic clock as the attempt began, so that the spans of an
            attempt fit one another, whatever is done to the wall clock meanwhile.
    """

    def __init__(self, span: otel.Span, *, tracer: otel.Tracer, offset_ns: int) -> None:
        self.span = span
        self.context = otel.set_span_in_context(span, Context())
        self._tracer = tracer
        self._offset_ns = offset_ns
        self._has_failed = False
        self._has_ended = False

    def child(self, name: str, attributes: Attributes = NO_ATTRIBUTES) -> Span:
        """Start a span below this one; the caller ends it."""
        span = self._start(name, attributes, started_at=time.monotonic())
        return RecordedSpan(span, tracer=self._tracer, offset_ns=self._offset_ns)

    def stage(
        self,
        stage: Stage,
        *,
        started_at: float,
        ended_at: float,
        error: BaseException | None = None,
    ) -> None:
        """Record a stage that ended as a span below this one."""
        span = self._start(f"labelyard.{stage}", NO_ATTRIBUTES, started_at=started_at)
        if error is not None:
            set_failed(span, spans.code_of(error))
        span.end(self._wall_ns(ended_at))

    def set(self, attributes: Attributes) -> None:
        """Add attributes."""
        self.span.set_attributes(attributes)

    def fail(self, code: str) -> None:
        """Mark the span as failed, with a stable code."""
        if not self._has_failed:
            self._has_failed = True
            set_failed(self.span, code)

    def end(self) -> None:
        """End the span."""
        if not self._has_ended:
            self._has_ended = True
            self.span.end(self._wall_ns(time.monotonic()))

    def headers(self) -> dict[str, str]:
        """Return ``traceparent``, and ``tracestate`` if there is one."""
        headers: dict[str, str] = {}
        W3C.inject(headers, self.context)
        return headers

    def _start(self, name: str, attributes: Attributes, *, started_at: float) -> otel.Span:
        return self._tracer.start_span(
            name,
            context=self.context,
            attributes=attributes,
            start_time=self._wall_ns(started_at),
        )

    def _wall_ns(self, monotonic_s: float) -> int:
        return int(monotonic_s * 1e9) + self._offset_ns


class OtelTracer(Tracer):
    """Tracer that records attempts, deliveries and forward passes.

    Args:
        tracer: Starts all spans but those of forward passes; its sampler honours the decision
            of a job's producer.
        batch_tracer: Starts the spans of forward passes, which are asked for only if an image
            of the batch is sampled: it should sample all.
        messaging_system: ``redis`` or ``rabbitmq``.
    """

    def __init__(
        self, tracer: otel.Tracer, *, batch_tracer: otel.Tracer, messaging_system: str
    ) -> None:
        self._tracer = tracer
        self._batch_tracer = batch_tracer
        self._of_process: Attributes = {
            "messaging.system": messaging_system,
            "messaging.operation.name": "process",
            "messaging.operation.type": "process",
        }

    def attempt(
        self, trace: Mapping[str, str], *, queued_s: float | None, attributes: Attributes
    ) -> Span:
        """Start the span of one attempt, below the submit's; before a first one, its queue time."""
        parent, offset_ns, now_ns = W3C.extract(trace, Context()), wall_offset_ns(), time.time_ns()
        is_known = otel.get_current_span(parent).get_span_context().is_valid
        if queued_s is not None and is_known:
            queued = self._tracer.start_span(
                "labelyard.queued", context=parent, start_time=now_ns - int(queued_s * 1e9)
            )
            queued.end(now_ns)
        span = self._tracer.start_span(
            "labelyard.attempt",
            context=parent,
            kind=SpanKind.CONSUMER,
            attributes={**self._of_process, **attributes},
            start_time=now_ns,
        )
        return self._recorded(span, offset_ns)

    def delivery(self, trace: Mapping[str, str], *, attempt: Span, attributes: Attributes) -> Span:
        """Start the span of one try to deliver a result, below its attempt or the submit."""
        parent = (
            attempt.context if isinstance(attempt, RecordedSpan) else W3C.extract(trace, Context())
        )
        offset_ns = wall_offset_ns()
        span = self._tracer.start_span(
            "labelyard.deliver", context=parent, kind=SpanKind.CLIENT, attributes=attributes
        )
        return self._recorded(span, offset_ns)

    def batch(
        self,
        images: Sequence[Span],
        *,
        started_at: float,
        ended_at: float,
        error: BaseException | None,
        attributes: Attributes,
    ) -> None:
        """Record a forward pass in a trace of its own, linked with its images and they with it."""
        sampled = [image.span for image in images if isinstance(image, RecordedSpan)]
        if not sampled:
            return
        offset_ns = wall_offset_ns()
        batch = self._batch_tracer.start_span(
            "labelyard.batch",
            context=Context(),
            attributes=attributes,
            links=[Link(image.get_span_context()) for image in sampled],
            start_time=int(started_at * 1e9) + offset_ns,
        )
        for image in sampled:
            image.add_link(batch.get_span_context())
        if error is not None:
            set_failed(batch, spans.code_of(error))
        batch.end(int(ended_at * 1e9) + offset_ns)

    def _recorded(self, span: otel.Span, offset_ns: int) -> Span:
        """Return a span to report below, which costs nothing if this one is not sampled."""
        if not span.is_recording():
            return NO_SPAN
        return RecordedSpan(span, tracer=self._tracer, offset_ns=offset_ns)


def wall_offset_ns() -> int:
    """Return the wall clock less the monotonic clock, in nanoseconds."""
    return time.time_ns() - time.monotonic_ns()


def set_failed(span: otel.Span, code: str) -> None:
    """Give a span the status of an error; never an error's text, which may hold an address."""
    span.set_attribute("error.type", code)
    span.set_status(Status(StatusCode.ERROR, code))
