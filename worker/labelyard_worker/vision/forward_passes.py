"""Reports of forward passes, to metrics and traces."""

import logging
from dataclasses import dataclass

from labelyard.messages import ModelInfo
from labelyard_worker import spans
from labelyard_worker.observations import observe_batch
from labelyard_worker.spans import Span

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class PassItem:
    """One item of a forward pass.

    Attributes:
        span: Span of the image, if the job is traced.
        queued_at: Monotonic time at which it was queued for the model.
    """

    span: Span
    queued_at: float


@dataclass(frozen=True)
class ForwardPass:
    """One call of the model, after it ended.

    Attributes:
        items: Items of the batch, in their order.
        max_size: Items that a batch may hold.
        started_at: Monotonic time.
        ended_at: Monotonic time.
        error: Error that the model raised; the batch is tried again in halves.
    """

    items: tuple[PassItem, ...]
    max_size: int
    started_at: float
    ended_at: float
    error: Exception | None = None

    @property
    def size(self) -> int:
        """Number of items."""
        return len(self.items)

    @property
    def model_s(self) -> float:
        """Seconds of the call."""
        return self.ended_at - self.started_at

    @property
    def ends_waits(self) -> bool:
        """Whether its items wait no longer: it has results, or no half is left to try."""
        return self.error is None or self.size == 1


def report_text_pass(done: ForwardPass) -> None:
    """Report a forward pass over prompts; called from model threads."""
    if done.error is None:
        observe_batch("text", done.size, done.model_s, max_size=done.max_size)


def report_image_pass(done: ForwardPass, *, model: ModelInfo) -> None:
    """Report a forward pass of *model* and the waits that it ended; called from model threads."""
    if done.error is None:
        observe_batch("image", done.size, done.model_s, max_size=done.max_size)
    try:
        _trace_pass(done, model)
    except Exception:  # of OpenTelemetry, or of an application's exporter: the thread would die
        log.exception("pass_not_traced")


def _trace_pass(done: ForwardPass, model: ModelInfo) -> None:
    if done.ends_waits:
        for item in done.items:
            item.span.stage("batch_wait", started_at=item.queued_at, ended_at=done.started_at)
    spans.tracer().batch(
        [item.span for item in done.items],
        started_at=done.started_at,
        ended_at=done.ended_at,
        error=done.error,
        attributes={
            "labelyard.batch.size": done.size,
            "labelyard.batch.fill": round(done.size / done.max_size, 4),
            "labelyard.device": model.device,
            "labelyard.dtype": model.dtype,
            "labelyard.checkpoint": model.checkpoint,
        },
    )
