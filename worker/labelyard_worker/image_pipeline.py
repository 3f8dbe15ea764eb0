"""Carries one image from the intake through the batcher to exactly one answer."""

import dataclasses
import time
from concurrent.futures import Future, InvalidStateError
from contextlib import suppress
from dataclasses import dataclass
from typing import Protocol

from labelyard.errors import ImageNotEmbeddedError, StorageUnavailableError
from labelyard.messages import ImageRef
from labelyard.queues import Priority
from labelyard_worker import spans
from labelyard_worker.intake.image_uri import redact
from labelyard_worker.intake.pixel_budget import PixelBudget
from labelyard_worker.observations import IMAGE_CACHE_RESULTS, observe_stage
from labelyard_worker.pixels import Pixels, Unchanged
from labelyard_worker.spans import NO_SPAN, Span
from labelyard_worker.vision.batcher import Batcher
from labelyard_worker.vision.content_flights import (
    ContentFlights,
    EmbedsAnswer,
    Flight,
    Waiter,
)
from labelyard_worker.vision.image_cache import ImageCache, KnownImage
from labelyard_worker.vision.scoring import Floats


class HeldPixels:
    """Pixels of an embedded image, with their place in the budget, until they are released."""

    def __init__(self, pixels: Pixels, budget: PixelBudget) -> None:
        self.pixels = pixels
        self._budget: PixelBudget | None = budget

    def release(self) -> None:
        """Give the place back; a second call does nothing."""
        budget, self._budget = self._budget, None
        if budget is not None:
            budget.give_back()


@dataclass(frozen=True, slots=True)
class Embedded:
    """Embedding of one image, with the seconds of each stage.

    Attributes:
        image: The embedding, and the facts of the image.
        intake_s: From being asked for to being resized.
        wait_s: Waiting for its batch, or for the embedding of an equal image.
        model_s: The forward pass of its batch.
        is_new: Whether the intake, or the model too, had to read the image.
        held: Pixels for whoever asked to keep them, and who must release them.
    """

    image: KnownImage
    intake_s: float = 0.0
    wait_s: float = 0.0
    model_s: float = 0.0
    is_new: bool = True
    held: HeldPixels | None = None


class Withdrawable(Protocol):
    """A stage that an image can be withdrawn from."""

    def cancel(self) -> object:
        """Withdraw the image."""


class ImagePipeline:
    """One image's way: callbacks, run by whichever thread finished a stage.

    However a stage ends, the batcher stops expecting the image exactly once, its
    place is given back exactly once, and its future is answered.
    """

    def __init__(
        self,
        flights: ContentFlights,
        images: ImageCache,
        known: KnownImage | None,
        *,
        batcher: Batcher[Pixels, Floats],
        priority: Priority,
        tenant: str,
        budget: PixelBudget,
        recalled: ImageRef | None = None,
        keeps_pixels: bool = False,
        span: Span = NO_SPAN,
    ) -> None:
        self._recalled = recalled
        self._keeps_pixels = keeps_pixels
        self._kept: Pixels | None = None
        self._span = span
        self.embedded: Future[Embedded] = Future()
        self.known = known
        self._flights = flights
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

    def cancel_with_image(self, stage: "Withdrawable") -> None:
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
        """Find the embedding of the pixels' content, or wait for the model's.

        Raises:
            ImageNotEmbeddedError: The image may be recalled only, and its content is not known.
            LabelyardError: The batcher refuses it.
        """
        self._pixels = pixels
        self._kept = pixels if self._keeps_pixels else None
        if self.known is not None and self.known.facts.sha256 == pixels.facts.sha256:
            self._answer_known(pixels, self.known.image_embeds)
        elif self._recalled is None:
            self._embed(pixels)
        elif (embeds := self._images.embeds_of(pixels.facts.sha256)) is not None:
            self._answer_known(pixels, embeds)
        else:
            uri = redact(self._recalled.uri)
            raise ImageNotEmbeddedError(uri, "it is another picture by now: classify it first")

    def _embed(self, pixels: Pixels) -> None:
        """Submit the pixels to the model, unless their content is known or on its way to it."""
        self._is_expected = False  # the flights take it off, whatever comes of it
        found = self._flights.submit(
            pixels, priority=self._priority, tenant=self._tenant, span=self._span
        )
        if isinstance(found, Flight):
            IMAGE_CACHE_RESULTS["miss"].inc()
        elif isinstance(found, Waiter):
            self._pixels = dataclasses.replace(pixels, data=b"")  # the flight has the same bytes
        else:
            self._answer_known(pixels, found)
            return
        self.cancel_with_image(found)
        found.answer.add_done_callback(self._on_embeds)

    def _answer_known(self, pixels: Pixels, embeds: Floats) -> None:
        """Answer with an embedding that was made under this or another address."""
        if self.known is None:
            IMAGE_CACHE_RESULTS["content"].inc()
        self._answer(Embedded(to_known_image(pixels, embeds), intake_s=self._intake_s))

    def _on_embeds(self, future: "Future[EmbedsAnswer]") -> None:
        try:
            answer = future.result()
            assert self._pixels is not None  # noqa: S101 - set before the batcher was asked
            image = to_known_image(self._pixels, answer.result)
            if answer.batch_size == 0:  # an equal image was in the batch
                IMAGE_CACHE_RESULTS["content"].inc()
            else:
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
        if self._kept is not None and self._has_place:  # the place passes to the job
            embedded = dataclasses.replace(embedded, held=HeldPixels(self._kept, self._budget))
            self._has_place = False
        self._release()
        try:
            self.embedded.set_result(embedded)
        except InvalidStateError:  # the job gave up on it
            if embedded.held is not None:
                embedded.held.release()

    def fail(self, error: BaseException) -> None:
        """Answer with *error*."""
        self._span.fail(spans.code_of(error))
        self._span.end()
        self._release()
        with suppress(InvalidStateError):
            self.embedded.set_exception(error)

    def _release(self) -> None:
        """Release the image's pixels, place and announcement; a second call does nothing."""
        self._pixels = self._kept = None
        if self._is_expected:
            self._is_expected = False
            self._batcher.retract(1, priority=self._priority)
        if self._has_place:
            self._has_place = False
            self._budget.give_back()


def to_known_image(pixels: Pixels, image_embeds: Floats) -> KnownImage:
    """Return a new embedding together with the facts of its image."""
    return KnownImage(image_embeds, pixels.facts, pixels.stamp)
