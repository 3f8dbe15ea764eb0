"""Sends the images of jobs and runs on their way to an embedding, and finds known ones."""

from collections.abc import Callable, Sequence
from concurrent.futures import Future

from labelyard.errors import ImageNotEmbeddedError
from labelyard.messages import ImageRef, Job
from labelyard.queues import Priority
from labelyard_worker import spans
from labelyard_worker.image_pipeline import Embedded, ImagePipeline
from labelyard_worker.intake.image_uri import redact
from labelyard_worker.intake.pool import IntakePool
from labelyard_worker.pixels import Pixels
from labelyard_worker.spans import Span
from labelyard_worker.vision.batcher import Batcher
from labelyard_worker.vision.content_flights import ContentFlights
from labelyard_worker.vision.image_cache import ImageCache, KnownImage, address_of
from labelyard_worker.vision.scoring import Floats

__all__ = ["Embedded", "Embedder"]


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
        self._flights = ContentFlights(batcher, known)

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

    def embed_with_pixels(self, job: Job, number: int, *, priority: Priority) -> "Future[Embedded]":
        """Send one image on its way, known or not, and keep its pixels.

        Args:
            number: Its index in the job.

        Returns:
            As ``embed``; the result holds a place of the pixel budget until its ``held`` is
            released.
        """
        image = job.images[number]
        known = self._known.look_up([image]).get(address_of(image))
        return self._embed(
            image,
            number,
            known,
            tenant=job.tenant,
            job_id=job.job_id,
            priority=priority,
            keeps_pixels=True,
        )

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
        keeps_pixels: bool = False,
    ) -> "Future[Embedded]":
        """Send one image of a job on its way."""
        span = start_image_span(number)
        pipeline = ImagePipeline(
            self._flights,
            self._known,
            known,
            batcher=self._batcher,
            priority=priority,
            tenant=tenant,
            budget=self._intake.budget,
            recalled=image if is_recall else None,
            keeps_pixels=keeps_pixels,
            span=span,
        )
        is_fetched = self._always_fetches or keeps_pixels
        version = None if known is None or is_fetched else known.version
        versions = {} if version is None else {image.uri: version}
        self._batcher.announce(1, priority=priority)
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
