"""Span of a submit, whose context travels in the job; only if the application traces itself.

The producer sets no tracer provider. An application that has one has imported OpenTelemetry, so
without it nothing is imported here, and a submit costs one look-up.
"""

import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Final

from labelyard.errors import LabelyardError
from labelyard.fields import MAX_TRACE_ENTRIES
from labelyard.ledger import Opened
from labelyard.messages import Job
from labelyard.queues import messaging_system
from labelyard.settings import ConnectionSettings

TRACEPARENT: Final = "traceparent"
TRACESTATE: Final = "tracestate"
#: Of ``tracestate``, which may be dropped: W3C Trace Context, section 3.3.1.5.
MAX_TRACESTATE_CHARS: Final = 512


class SubmitSpans:
    """Spans of jobs that are submitted together; without a tracer there are none.

    Attributes:
        jobs: The jobs, each with the context of its span in ``trace``.
    """

    def __init__(self, jobs: Sequence[Job]) -> None:
        self.jobs: Sequence[Job] = jobs

    def note(self, answers: Sequence[Opened | LabelyardError]) -> None:
        """Note the ledger's answers: refused, or the job of an earlier submit."""

    def fail(self, error: BaseException) -> None:
        """Note that *error* ended the submit."""

    def end(self) -> None:
        """End the spans."""


@contextmanager
def submitting(
    jobs: Sequence[Job], *, queue: str, settings: ConnectionSettings
) -> Iterator[SubmitSpans]:
    """Make a span for each job in the block.

    The parent is the ``traceparent`` in a job's own ``trace``, else the current span. The other
    entries of ``trace`` are kept.

    Args:
        queue: Queue that the jobs are submitted to.
    """
    spans = _RecordedSpans(jobs, queue, settings) if is_traced() else SubmitSpans(jobs)
    try:
        yield spans
    except BaseException as error:
        spans.fail(error)
        raise
    finally:
        spans.end()


def is_traced() -> bool:
    """Return whether the application has a tracer provider, or works in a span.

    That redis-py imports OpenTelemetry, where it is installed, means neither.
    """
    trace = sys.modules.get("opentelemetry.trace")
    if trace is None:
        return False
    has_provider = not isinstance(trace.get_tracer_provider(), trace.ProxyTracerProvider)
    return has_provider or trace.get_current_span() is not trace.INVALID_SPAN


class _RecordedSpans(SubmitSpans):
    """Spans of the application's global tracer provider."""

    def __init__(self, jobs: Sequence[Job], queue: str, settings: ConnectionSettings) -> None:
        from opentelemetry import trace
        from opentelemetry.context import Context
        from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

        self._otel = trace
        self._no_context = Context()
        # Not the application's propagators, which may carry baggage: it could hold anything.
        self._w3c = TraceContextTextMapPropagator()
        self._tracer = trace.get_tracer("labelyard")
        self._of_all = {
            "messaging.system": messaging_system(settings.broker_url),
            "messaging.operation.name": "submit",
            "messaging.operation.type": "send",
            "messaging.destination.name": str(queue),
        }
        self._spans = [self._start(job) for job in jobs]
        super().__init__(list(map(self._with_context, jobs, self._spans)))

    def note(self, answers: Sequence[Opened | LabelyardError]) -> None:
        """Note the ledger's answers: refused, or the job of an earlier submit."""
        for span, answer in zip(self._spans, answers, strict=True):
            if isinstance(answer, LabelyardError):
                self._fail(span, answer)
            else:
                span.set_attribute("labelyard.is_new", answer.is_new)

    def fail(self, error: BaseException) -> None:
        """Note that *error* ended the submit."""
        for span in self._spans:
            self._fail(span, error)

    def end(self) -> None:
        """End the spans."""
        for span in self._spans:
            span.end()

    def _start(self, job: Job) -> Any:
        """Start the span of a job below the one that its ``trace`` names, else the current one."""
        named = self._w3c.extract(job.trace, self._no_context)
        is_named = self._otel.get_current_span(named).get_span_context().is_valid
        return self._tracer.start_span(
            "labelyard.submit",
            context=named if is_named else None,
            kind=self._otel.SpanKind.PRODUCER,
            attributes={
                **self._of_all,
                "messaging.message.id": job.job_id,
                "labelyard.tenant": job.tenant,
                "labelyard.images": job.count_images(),
            },
        )

    def _with_context(self, job: Job, span: Any) -> Job:
        """Return *job* with the span's context in its ``trace``, if there is room for it."""
        context: dict[str, str] = {}
        self._w3c.inject(context, self._otel.set_span_in_context(span, self._no_context))
        trace = with_context(job.trace, context)
        return job if trace is job.trace else job.model_copy(update={"trace": trace})

    def _fail(self, span: Any, error: BaseException) -> None:
        """Give a span the code of *error*; its text may quote the job."""
        code = error.code if isinstance(error, LabelyardError) else type(error).__name__
        span.set_attribute("error.type", code)
        span.set_status(self._otel.Status(self._otel.StatusCode.ERROR, code))


def with_context(trace: dict[str, str], context: Mapping[str, str]) -> dict[str, str]:
    """Return *trace* with the entries of a span's context; unchanged if it would be too large."""
    if TRACEPARENT not in context:
        return trace
    kept = {name: value for name, value in trace.items() if name != TRACESTATE}
    traced = {**kept, TRACEPARENT: context[TRACEPARENT]}
    if len(traced) > MAX_TRACE_ENTRIES:
        return trace
    state = context.get(TRACESTATE, "")
    if 0 < len(state) <= MAX_TRACESTATE_CHARS and len(traced) < MAX_TRACE_ENTRIES:
        traced[TRACESTATE] = state
    return traced
