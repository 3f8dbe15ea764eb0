"""Public interface of the intake: images in, one future for each."""

import threading
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from functools import partial
from typing import Final

from labelyard.messages import ImageRef
from labelyard.queues import Priority
from labelyard_worker.cpu_budget import usable_cores
from labelyard_worker.intake.decoder_child import DECODER, DecoderSettings
from labelyard_worker.intake.loop import IntakeLoop
from labelyard_worker.intake.options import UNLIMITED, IntakeOptions
from labelyard_worker.intake.pipeline import IntakePipeline
from labelyard_worker.intake.pixel_budget import PixelBudget
from labelyard_worker.intake.queue import IntakeRequest
from labelyard_worker.intake.sources.fetcher_settings import FetcherSettings
from labelyard_worker.pixels import (
    FileVersion,
    ImageLimits,
    Pixels,
    PixelSpec,
    Unchanged,
)
from labelyard_worker.spans import NO_SPAN, Span

__all__ = ["IntakeOptions", "IntakePool", "Unchanged", "default_children"]

NOTHING_KNOWN: Final[Mapping[str, FileVersion]] = {}
DEFAULT_OPTIONS: Final = IntakeOptions()
MOST_CHILDREN = 32
FAILED_STARTS_TO_NOTICE = 3


def default_children() -> int:
    """Return the number of decoders that suits this machine: one a core, at least two.

    A second decoder goes on when an image keeps the first until its time is over.
    """
    return max(2, min(usable_cores(), MOST_CHILDREN))


class IntakePool:
    """Fetches and decodes images, outside the model's process.

    One thread owns all state; the others put requests into its inbox. An image that
    crashes its decoder, hangs it or eats memory costs that image alone; a source that is
    slow costs its own share of the fetches.

    Args:
        spec: Size and form of the pixels that the checkpoint expects.
        limits: Limits on the cost of a picture.
        fetchers: Sources to fetch from, and limits; see ``resolve_fetcher``.
        options: Sizes and limits.
        budget: Limit on decoded images. With pixels, a place passes to the caller, who
            gives it back; without a budget there is no limit.
        decoder: ``module:function`` in place of ``decode.decode``, for tests.
    """

    def __init__(
        self,
        *,
        spec: PixelSpec,
        limits: ImageLimits,
        fetchers: FetcherSettings,
        options: IntakeOptions = DEFAULT_OPTIONS,
        budget: PixelBudget | None = None,
        decoder: str = DECODER,
    ) -> None:
        self.budget = budget if budget is not None else PixelBudget(UNLIMITED)
        self._pending = 0
        self._answered = threading.Condition()
        self._pipeline = IntakePipeline(
            fetchers,
            decoders=DecoderSettings(
                spec=spec,
                limits=limits,
                image_timeout_s=options.image_timeout_s,
                nice=options.nice,
                decoder=decoder,
            ),
            decoder_count=options.children or default_children(),
            options=options,
            budget=self.budget,
        )
        self._loop = IntakeLoop(self._pipeline)
        self.budget.on_freed = partial(self._loop.post, None)
        self._loop.start()

    def submit(
        self,
        images: Sequence[ImageRef],
        *,
        known: Mapping[str, FileVersion] = NOTHING_KNOWN,
        priority: Priority = Priority.BULK,
        tenant: str = "",
        job: str = "",
        span: Span = NO_SPAN,
    ) -> list[Future[Pixels | Unchanged]]:
        """Queue *images* for fetching and decoding.

        Args:
            known: By URI, the version whose pixels are known already; an object that still has
                this version is not fetched again.
            priority: Interactive images go first.
            tenant: Tenant whose share the images count against.
            job: Job that they belong to.
            span: Span below which fetches and decodings are reported.

        Returns:
            One future for each image, in their order. Each is answered once, with pixels,
            with ``Unchanged`` or with one of our errors; when the intake closes, with
            StorageUnavailableError. Cancelling one withdraws its image, also while it is
            fetched. Callbacks run in the intake's thread: keep them short.
        """
        now = time.monotonic()
        requests = [
            IntakeRequest(image, None, priority, tenant, job, asked_at=now, span=span)
            for image in images
        ]
        for request in requests:
            if (version := known.get(request.image.uri)) is not None:
                request.known_etag, request.known_stamp = version.etag, version.stamp
        with self._answered:
            self._pending += len(requests)
        for request in requests:
            request.answer.add_done_callback(partial(self._count_answer, request))
        self._loop.post(*requests)
        if self._loop.is_stopped:
            self._loop.reject_inbox()
        return [request.answer for request in requests]

    @property
    def pending(self) -> int:
        """Number of images without an answer; it grows with each submission."""
        return self._pending

    @property
    def decoder_pids(self) -> list[int]:
        """Process ids of the decoders that run right now."""
        handles = self._pipeline.decoding.handles
        return [one.pid for one in handles if one is not None and one.is_ready]

    @property
    def fetcher_pids(self) -> list[int]:
        """Process ids of the fetchers that run right now."""
        handles = self._pipeline.fetching.handles
        return [one.pid for one in handles if one is not None and one.is_ready]

    @property
    def is_decoding(self) -> bool:
        """Return whether a decoder is at work."""
        return any(one is not None and one.sent for one in self._pipeline.decoding.handles)

    @property
    def sources_away(self) -> list[str]:
        """Buckets and hosts that fail as a whole."""
        return self._pipeline.fetching.health.away

    def count_circuits(self) -> Counter[str]:
        """Count the buckets and hosts that fail as a whole, by the state of their circuit."""
        return self._pipeline.fetching.health.count_circuits()

    def is_alive(self) -> bool:
        """Return whether images are processed: the loop runs, and its children start."""
        stages = (self._pipeline.fetching, self._pipeline.decoding)
        return self._loop.is_alive() and all(
            stage.failed_starts < FAILED_STARTS_TO_NOTICE for stage in stages
        )

    def close(self, timeout_s: float = 0.0) -> None:
        """Wait *timeout_s* s for pending images, then answer the rest and end the children."""
        with self._answered:
            self._answered.wait_for(lambda: self._pending == 0, timeout_s)
        self._loop.stop()

    def _count_answer(self, request: IntakeRequest, _: "Future[Pixels | Unchanged]") -> None:
        """Count an image as answered; a cancelled one is withdrawn, from any thread."""
        with self._answered:
            self._pending -= 1
            self._answered.notify_all()
        if request.answer.cancelled():
            self._loop.post(request)
