"""Spans of attempts, as the main path reports them; by itself this module records nothing.

``operations/tracing.py`` installs a tracer that exports spans, if the worker is configured to.
Without one a report costs a method call.
"""

import re
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Final, Literal

from labelyard.errors import LabelyardError

Stage = Literal[
    "labels",  # label set to matrix
    "fetch",  # bytes of one image
    "decode",  # one image to pixels
    "batch_wait",  # pixels to the start of a forward pass
    "score",  # embeddings to ranked labels
    "finish",  # the result's way into the ledger and its stream
]
Attributes = Mapping[str, str | int | float | bool]

NO_ATTRIBUTES: Final[Attributes] = {}


class Span:
    """Span that is not recorded; the tracer in ``operations/tracing.py`` makes those that are."""

    def child(self, name: str, attributes: Attributes = NO_ATTRIBUTES) -> "Span":  # noqa: ARG002
        """Start a span below this one; the caller ends it."""
        return self

    def stage(
        self,
        stage: Stage,
        *,
        started_at: float,
        ended_at: float,
        error: BaseException | None = None,
    ) -> None:
        """Report a stage that ended, as a span below this one; monotonic times."""

    def set(self, attributes: Attributes) -> None:
        """Add attributes."""

    def fail(self, code: str) -> None:
        """Mark the span as failed, with a stable code; a second call does nothing."""

    def end(self) -> None:
        """End the span; a second call does nothing."""

    def headers(self) -> dict[str, str]:
        """Return the headers that continue the trace elsewhere, after W3C Trace Context."""
        return {}


NO_SPAN: Final = Span()
# W3C Trace Context, sections 3.2 and 3.3. A line break would begin another header.
TRACE_HEADERS: Final = {
    "traceparent": re.compile(r"[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}"),
    "tracestate": re.compile(r"[\x20-\x7e]{1,512}"),
}
_current: ContextVar[Span] = ContextVar("labelyard_span", default=NO_SPAN)


class Tracer:
    """Tracer that records nothing."""

    def attempt(
        self,
        trace: Mapping[str, str],  # noqa: ARG002 - for a tracer that records
        *,
        queued_s: float | None,  # noqa: ARG002 - the same
        attributes: Attributes,  # noqa: ARG002 - the same
    ) -> Span:
        """Start the span of one attempt.

        Args:
            trace: The job's own ``trace``, which may name the span of its submit.
            queued_s: Seconds in the queue before a first attempt; ``None`` for a retry.
        """
        return NO_SPAN

    def delivery(
        self,
        trace: Mapping[str, str],  # noqa: ARG002 - as above
        *,
        attempt: Span,  # noqa: ARG002 - as above
        attributes: Attributes,  # noqa: ARG002 - as above
    ) -> Span:
        """Start the span of one try to deliver a result.

        Args:
            attempt: The attempt that made the result, if it was here; else the span of the
                submit in *trace* is the parent.
        """
        return NO_SPAN

    def batch(
        self,
        images: Sequence[Span],
        *,
        started_at: float,
        ended_at: float,
        error: BaseException | None,
        attributes: Attributes,
    ) -> None:
        """Report a forward pass, which ends a wait of each of its *images*; monotonic times.

        It is linked with its images, and below none of them: it belongs to many jobs.
        """


class _Installed:
    tracer: Tracer = Tracer()


def install(tracer: Tracer) -> None:
    """Make *tracer* record the spans of this process; ``Tracer()`` records none."""
    _Installed.tracer = tracer


def tracer() -> Tracer:
    """Return the tracer of this process."""
    return _Installed.tracer


def current() -> Span:
    """Return the span that this thread or asyncio task works in."""
    return _current.get()


@contextmanager
def working_in(span: Span) -> Iterator[Span]:
    """Make *span* the current one in the block, and end it."""
    token = _current.set(span)
    try:
        yield span
    finally:
        _current.reset(token)
        span.end()


@contextmanager
def stage(name: Stage) -> Iterator[None]:
    """Report the block as a stage of the current span."""
    started_at = time.monotonic()
    error: BaseException | None = None
    try:
        yield
    except BaseException as raised:
        error = raised
        raise
    finally:
        current().stage(name, started_at=started_at, ended_at=time.monotonic(), error=error)


def trace_headers(trace: Mapping[str, str]) -> dict[str, str]:
    """Return the headers that continue a trace: of the current span, else as they came in *trace*."""
    forwarded = {
        name: trace[name]
        for name, form in TRACE_HEADERS.items()
        if form.fullmatch(trace.get(name, ""))
    }
    return current().headers() or (forwarded if "traceparent" in forwarded else {})


def code_of(error: BaseException) -> str:
    """Return the code of an error of ours, else its class; texts may hold addresses."""
    return error.code if isinstance(error, LabelyardError) else type(error).__name__
