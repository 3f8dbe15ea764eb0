"""Carries images from the intake through the batcher, each to exactly one answer."""

import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, InvalidStateError
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from labelyard.errors import ImageNotEmbeddedError, StorageUnavailableError
from labelyard.messages import ImageRef, Job
from labelyard.queues import Priority
from labelyard_worker import spans
from labelyard_worker.intake.image_uri import redact
from labelyard_worker.intake.pixel_budget import PixelBudget
from labelyard_worker.intake.pool import IntakePool
from labelyard_worker.observations import IMAGE_CACHE_RESULTS, observe_stage
from labelyard_worker.pixels import Pixels, Unchanged
from labelyard_worker.spans import NO_SPAN, Span
from labelyard_worker.vision.batch_queue import BatchAnswer
from labelyard_worker.vision.batcher import Batcher
from labelyard_worker.vision.image_cache import ImageCache, KnownImage, address_of
from labelyard_worker.vision.scoring import Floats


@dataclass(frozen=True, slots=True)
class Embedded:
    """Embedding of one image, with the seconds of each stage.

    Attributes:
        image: The embedding, and the facts of the image.
        intake_s: From being asked for to being resized.
        wait_s: Waiting for its batch.
        model_s: The forward pass of its batch.
        is_new: Whether the intake, or the model too, had to read the image.
    """

    image: KnownImage
    intake_s: float = 0.0
    wait_s: float = 0.0
    model_s: float = 0.0
    is_new: bool = True


class Embedder:
    """Makes embeddings of images; every image is answered exactly once.

    The intake bounds the decoded images in memory: with pixels comes a place of its
    ``budget``, which is given back once the model has answered.
    """

    def __init__(
        self,
        intake: IntakePool,
        batcher: Batcher[Pixels, Floats],
        *,
        known: ImageCache,
        always_fetches: bool = False,
    ) -> None:
        """Carry images from *intake* to *batcher*.

        Args:
            always_fetches: Whether even known images are fetched, so that only their
                content decides, and no word of the storage.
        """
        self._always_fetches = always_fetches
        self._intake = intake
        self._batcher = batcher
        self._known = known

    def embed(
        self, job: Job, *, priority: Priority, is_wanted: Callable[[], None]
    ) -> "list[Future[Embedded]]":
        """Send the images of *job* on their way.

        Args:
            is_wanted: Raises if nobody wants the job any more.

        Returns:
            One future for each image, in order. It fails with an ImageError or a
            TransientError of that image alone, or with a WorkerError. Cancelling one
            withdraws its image, wherever it is.
        """
        return self.embed_images(
            job.images,
            tenant=job.tenant,
            job_id=job.job_id,
            priority=priority,
            is_wanted=is_wanted,
        )

    def embed_images(
        self,
        images: Sequence[ImageRef],
        *,
        tenant: str,
        job_id: str,
        priority: Priority,
        is_wanted: Callable[[], None],
    ) -> "list[Future[Embedded]]":
        """Send images on their way; see :meth:`embed`."""
        known = self._known.look_up(images)
        is_wanted()
        sent: list[Future[Embedded]] = []
        try:
            for number, image in enumerate(images):
                one = known.get(address_of(image))
                sent.append(
                    self._embed(image, number, one, tenant=tenant, job_id=job_id, priority=priority)
                )
        except BaseException:
            for future in sent:
                future.cancel()
            raise
        return sent

    def recall(
        self, job: Job, *, priority: Priority, is_wanted: Callable[[], None]
    ) -> "list[Future[Embedded]]":
        """Find the embeddings of a job that scores known images again, without the model.

        The storage is asked whether each image is still there, unchanged, and may be read;
        an unchanged one is not downloaded.

        Args:
            is_wanted: Raises if nobody wants the job any more.

        Returns:
            As ``embed``; with ImageNotEmbeddedError for an image that is not known, or that
            is another one by now.
        """
        known = self._known.look_up(job.images)
        is_wanted()
        found: list[Future[Embedded]] = []
        try:
            for number, image in enumerate(job.images):
                one = known.get(address_of(image))
                found.append(
                    fail_as_unknown(image, start_image_span(number))
                    if one is None
                    else self._embed(
                        image,
                        number,
                        one,
                        tenant=job.tenant,
                        job_id=job.job_id,
                        priority=priority,
                        is_recall=True,
                    )
                )
        except BaseException:
            for future in found:
                future.cancel()
            raise
        return found

    def keep(self, images: Sequence[ImageRef], outcomes: Sequence[object]) -> None:
        """Keep the embeddings that were made, for when the images come again."""
        self._known.keep(
            (image, outcome.image)
            for image, outcome in zip(images, outcomes, strict=True)
            if isinstance(outcome, Embedded) and outcome.is_new
        )

    def _embed(
        self,
        image: ImageRef,
        number: int,
        known: KnownImage | None,
        *,
        tenant: str,
        job_id: str,
        priority: Priority,
        is_recall: bool = False,
    ) -> "Future[Embedded]":
        """Send one image of a job on its way."""
        span = start_image_span(number)
        pipeline = _ImagePipeline(
            self._batcher,
            self._known,
            known,
            priority=priority,
            tenant=tenant,
            budget=self._intake.budget,
            recalled=image if is_recall else None,
            span=span,
        )
        version = None if known is None or self._always_fetches else known.version
        versions = {} if version is None else {image.uri: version}
        self._batcher.announce(1)
        try:
            (future,) = self._intake.submit(
                [image],
                known=versions,
                priority=priority,
                tenant=tenant,
                job=job_id,
                span=span,
            )
        except BaseException as error:
            pipeline.fail(error)
            raise
        pipeline.wait_for_pixels(future)
        return pipeline.embedded


def start_image_span(number: int) -> Span:
    """Start the span of an image below the present attempt; images are counted from 0."""
    return spans.current().child("labelyard.image", {"labelyard.image.number": number})


def fail_as_unknown(image: ImageRef, span: Span) -> "Future[Embedded]":
    """Answer at once that *image* was never classified."""
    error = ImageNotEmbeddedError(redact(image.uri), "classify it first")
    span.fail(error.code)
    span.end()
    future: Future[Embedded] = Future()
    future.set_exception(error)
    return future


class _ImagePipeline:
    """One image's way: callbacks, run by whichever thread finished a stage.

    However a stage ends, the batcher stops expecting the image exactly once, its
    place is given back exactly once, and its future is answered.
    """

    def __init__(
        self,
        batcher: Batcher[Pixels, Floats],
        images: ImageCache,
        known: KnownImage | None,
        *,
        priority: Priority,
        tenant: str,
        budget: PixelBudget,
        recalled: ImageRef | None = None,
        span: Span = NO_SPAN,
    ) -> None:
        self._recalled = recalled
        self._span = span
        self.embedded: Future[Embedded] = Future()
        self.known = known
        self._batcher = batcher
        self._images = images
        self._priority = priority
        self._tenant = tenant
        self._budget = budget
        self._asked_at = time.monotonic()
        self._pixels: Pixels | None = None
        self._intake_s = 0.0
        self._is_expected = True
        self._has_place = False

    def wait_for_pixels(self, future: "Future[Pixels | Unchanged]") -> None:
        """Continue when the intake answers; cancel its request when the job gives up."""
        self.cancel_with_image(future)
        future.add_done_callback(self._on_pixels)

    def cancel_with_image(self, stage: "Future[Any]") -> None:
        """Cancel *stage* when the job gives up on the image."""
        self.embedded.add_done_callback(lambda embedded: embedded.cancelled() and stage.cancel())

    def _on_pixels(self, future: "Future[Pixels | Unchanged]") -> None:
        """Continue with the intake's answer."""
        try:
            answer = future.result()
            self._has_place = isinstance(answer, Pixels)
            self._intake_s = time.monotonic() - self._asked_at
            if isinstance(answer, Pixels):
                self._score(answer)
            elif self.known is not None:
                self._answer(Embedded(self.known, intake_s=self._intake_s, is_new=False))
            else:  # a source calls an image unchanged that no cache knows
                raise StorageUnavailableError("", "unchanged, but never seen before")
        except BaseException as error:  # noqa: BLE001 - any error must reach the job
            self.fail(error)

    def _score(self, pixels: Pixels) -> None:
        """Submit the pixels to the model, unless it has seen this content under another address."""
        self._pixels = pixels
        if self.known is not None and self.known.facts.sha256 == pixels.facts.sha256:
            embeds: Floats | None = self.known.image_embeds
        else:
            embeds = self._images.embeds_of(pixels.facts.sha256)
        if embeds is not None:
            if self.known is None:
                IMAGE_CACHE_RESULTS["content"].inc()
            self._answer(Embedded(to_known_image(pixels, embeds), intake_s=self._intake_s))
            return
        if self._recalled is not None:
            uri = redact(self._recalled.uri)
            raise ImageNotEmbeddedError(uri, "it is another picture by now: classify it first")
        IMAGE_CACHE_RESULTS["miss"].inc()
        self._is_expected = False  # the batcher takes it off, whether it accepts it or not
        answer = self._batcher.submit(
            pixels, priority=self._priority, span=self._span, tenant=self._tenant
        )
        self.cancel_with_image(answer)
        answer.add_done_callback(self._on_embeds)

    def _on_embeds(self, future: "Future[BatchAnswer[Floats]]") -> None:
        try:
            answer = future.result()
            assert self._pixels is not None  # noqa: S101 - set before the batcher was asked
            image = to_known_image(self._pixels, answer.result)
            observe_stage("batch_wait", answer.wait_s, self._priority)
            observe_stage("model", answer.model_s, self._priority)
        except BaseException as error:  # noqa: BLE001 - any error must reach the job
            self.fail(error)
            return
        self._answer(
            Embedded(image, intake_s=self._intake_s, wait_s=answer.wait_s, model_s=answer.model_s)
        )

    def _answer(self, embedded: Embedded) -> None:
        self._span.set({"labelyard.image.cached": embedded.model_s == 0.0})
        self._span.end()
        self._release()
        with suppress(InvalidStateError):  # the job gave up on it
            self.embedded.set_result(embedded)

    def fail(self, error: BaseException) -> None:
        """Answer with *error*."""
        self._span.fail(spans.code_of(error))
        self._span.end()
        self._release()
        with suppress(InvalidStateError):
            self.embedded.set_exception(error)

    def _release(self) -> None:
        """Release the image's pixels, place and announcement; a second call does nothing."""
        self._pixels = None
        if self._is_expected:
            self._is_expected = False
            self._batcher.retract(1)
        if self._has_place:
            self._has_place = False
            self._budget.give_back()


def to_known_image(pixels: Pixels, image_embeds: Floats) -> KnownImage:
    """Return a new embedding together with the facts of its image."""
    return KnownImage(image_embeds, pixels.facts, pixels.stamp)
