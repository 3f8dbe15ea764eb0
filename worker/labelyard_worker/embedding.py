"""Carries pictures from intake through the batcher, with a bound on what is held at once."""

import threading
import time
from collections.abc import Sequence
from concurrent.futures import Future, InvalidStateError
from contextlib import suppress
from dataclasses import dataclass

from labelyard.errors import ImageNotEmbeddedError, LabelyardError
from labelyard.messages import ImageRef
from labelyard_worker.intake.children import Intake, Unchanged
from labelyard_worker.intake.images import Pixels
from labelyard_worker.tokens import Token
from labelyard_worker.vision.batcher import Batcher
from labelyard_worker.vision.known_images import KnownImage, KnownImages, address_of
from labelyard_worker.vision.scoring import Floats
from labelyard_worker.vision.waiting import BatchAnswer, Priority


@dataclass(frozen=True, slots=True)
class Embedded:
    """A picture's embedding, and what it took.

    Attributes:
        image: The embedding, and what is known of the picture.
        intake_s: From being asked for to being resized.
        wait_s: Waiting for its batch.
        model_s: The forward pass of its batch.
        is_new: Whether the model, or the intake, had to see the picture.
    """

    image: KnownImage
    intake_s: float = 0.0
    wait_s: float = 0.0
    model_s: float = 0.0
    is_new: bool = True


class Room:
    """Places for pictures on their way: the bound on decoded pixels in memory.

    Interactive jobs go first: while one waits, bulk jobs get no place.
    """

    def __init__(self, places: int) -> None:
        lock = threading.Lock()
        self._called: dict[Priority, threading.Condition] = {
            "interactive": threading.Condition(lock),
            "bulk": threading.Condition(lock),
        }
        self._lock = lock
        self._free = self.places = max(1, places)
        self._interactive_waiting = 0

    def take(self, *, priority: Priority, timeout_s: float) -> bool:
        """Take one place, waiting up to *timeout_s* for it."""
        is_interactive = priority == "interactive"
        with self._lock:
            self._interactive_waiting += is_interactive
            try:
                is_free = self._called[priority].wait_for(
                    lambda: self._free > 0 and (is_interactive or not self._interactive_waiting),
                    timeout=timeout_s,
                )
                self._free -= is_free
            finally:
                self._interactive_waiting -= is_interactive
                self._call_next()
        return is_free

    def give_back(self) -> None:
        """Free one place."""
        with self._lock:
            self._free += 1
            self._call_next()

    def _call_next(self) -> None:
        """Wake one who may take a place, and nobody who may not: the call would be lost."""
        if self._free:
            self._called["interactive" if self._interactive_waiting else "bulk"].notify()

    @property
    def taken(self) -> int:
        """Pictures on their way."""
        return self.places - self._free


class Embedder:
    """Makes embeddings of pictures; every picture is answered exactly once."""

    def __init__(
        self, intake: Intake, batcher: Batcher[Pixels, Floats], *, room: Room, known: KnownImages
    ) -> None:
        self._intake = intake
        self._batcher = batcher
        self._known = known
        self.room = room

    def embed(
        self, images: Sequence[ImageRef], *, priority: Priority, token: Token
    ) -> "list[Future[Embedded]]":
        """Send *images* on their way, as there is room for them.

        Returns:
            One future for each image, in order. It fails with an ImageError or a
            TransientError of that image alone, or with a WorkerError.

        Raises:
            LabelyardError: What the token says, while there was no room.
        """
        known = self._known.look_up(images)
        futures = []
        for image in images:
            token.wait_until(lambda wait_s: self.room.take(priority=priority, timeout_s=wait_s))
            futures.append(self._embed(image, known.get(address_of(image)), priority=priority))
        return futures

    def recall(self, images: Sequence[ImageRef]) -> "list[Future[Embedded]]":
        """Find the embeddings of *images* without looking at the pictures.

        Returns:
            One future for each image, in order, answered: with ImageNotEmbeddedError
            where nothing is known.
        """
        known = self._known.look_up(images)
        return [recalled(image, known.get(address_of(image))) for image in images]

    def keep(self, images: Sequence[ImageRef], outcomes: Sequence[object]) -> None:
        """Keep the embeddings that were made, for when the pictures come again."""
        self._known.keep(
            (image, outcome.image)
            for image, outcome in zip(images, outcomes, strict=True)
            if isinstance(outcome, Embedded) and outcome.is_new
        )

    def _embed(
        self, image: ImageRef, known: KnownImage | None, *, priority: Priority
    ) -> "Future[Embedded]":
        """Send one image on its way; it has its place in the room until it is answered."""
        journey = _Journey(self._batcher, self._known, known, priority=priority)
        journey.embedded.add_done_callback(lambda _: self.room.give_back())
        etags = {image.uri: known.etag} if known is not None and known.etag else {}
        self._batcher.announce(1)
        try:
            (future,) = self._intake.submit([image], known_etags=etags)
        except BaseException as error:
            self._batcher.retract(1)
            journey.fail(error)
            raise
        future.add_done_callback(journey.has_pixels)
        return journey.embedded


def recalled(image: ImageRef, known: KnownImage | None) -> "Future[Embedded]":
    """Answer at once with what is known of *image*."""
    future: Future[Embedded] = Future()
    if known is None:
        future.set_exception(ImageNotEmbeddedError(image.uri, "classify it first"))
    else:
        future.set_result(Embedded(known, is_new=False))
    return future


class _Journey:
    """One picture's way: callbacks, run by whichever thread finished a stage."""

    def __init__(
        self,
        batcher: Batcher[Pixels, Floats],
        images: KnownImages,
        known: KnownImage | None,
        *,
        priority: Priority,
    ) -> None:
        self.embedded: Future[Embedded] = Future()
        self.known = known
        self._batcher = batcher
        self._images = images
        self._priority = priority
        self._asked_at = time.monotonic()
        self._pixels: Pixels | None = None
        self._intake_s = 0.0

    def has_pixels(self, future: "Future[Pixels | Unchanged]") -> None:
        try:
            answer = future.result()
        except BaseException as error:  # noqa: BLE001 - whatever it is, the job must hear it
            self._batcher.retract(1)
            self.fail(error)
            return
        self._intake_s = time.monotonic() - self._asked_at
        if isinstance(answer, Pixels):
            self._score(answer)
        elif self.known is not None:
            self._batcher.retract(1)
            self._answer(Embedded(self.known, intake_s=self._intake_s, is_new=False))

    def _score(self, pixels: Pixels) -> None:
        """Ask the model, unless it has seen this very content under another address."""
        self._pixels = pixels
        embeds = self._images.embeds_of(pixels.sha256)
        if embeds is not None:
            self._batcher.retract(1)
            self._answer(Embedded(seen(pixels, embeds), intake_s=self._intake_s))
            return
        try:
            answer = self._batcher.submit(pixels, priority=self._priority)
        except LabelyardError as error:
            self.fail(error)
            return
        answer.add_done_callback(self._has_embeds)

    def _has_embeds(self, future: "Future[BatchAnswer[Floats]]") -> None:
        try:
            answer = future.result()
        except BaseException as error:  # noqa: BLE001 - whatever it is, the job must hear it
            self.fail(error)
            return
        assert self._pixels is not None  # noqa: S101 - set before the batcher was asked
        image = seen(self._pixels, answer.result)
        self._pixels = None
        self._answer(
            Embedded(image, intake_s=self._intake_s, wait_s=answer.wait_s, model_s=answer.model_s)
        )

    def _answer(self, embedded: Embedded) -> None:
        with suppress(InvalidStateError):  # the job gave up on it
            self.embedded.set_result(embedded)

    def fail(self, error: BaseException) -> None:
        with suppress(InvalidStateError):
            self.embedded.set_exception(error)


def seen(pixels: Pixels, image_embeds: Floats) -> KnownImage:
    """Describe a picture whose embedding is now known."""
    return KnownImage(
        image_embeds=image_embeds,
        etag=pixels.etag,
        sha256=pixels.sha256,
        width=pixels.source_width,
        height=pixels.source_height,
    )
