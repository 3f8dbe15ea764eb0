"""Carries pictures from intake through the batcher, with a bound on what is held at once."""

import threading
import time
from collections import deque
from collections.abc import Sequence
from concurrent.futures import Future, InvalidStateError
from dataclasses import dataclass

from labelyard.errors import LabelyardError
from labelyard.messages import ImageRef
from labelyard_worker.intake.children import Intake, Unchanged
from labelyard_worker.intake.images import Pixels
from labelyard_worker.tokens import Token
from labelyard_worker.vision.batcher import Batcher
from labelyard_worker.vision.scoring import Floats
from labelyard_worker.vision.waiting import BatchAnswer, Priority

# A call to a child costs the parent's CPU; jobs of many images share it.
IMAGES_IN_A_CALL = 4


@dataclass(frozen=True, slots=True)
class Embedded:
    """A picture's embedding, and what is known of the picture.

    Attributes:
        image_embeds: Unit-length vector, shape (dim,).
        sha256: Digest of the bytes as read, lower-case hex.
        width: Pixels, after EXIF orientation.
        height: Pixels, after EXIF orientation.
        intake_s: From being asked for to being resized.
        wait_s: Waiting for its batch.
        model_s: The forward pass of its batch.
    """

    image_embeds: Floats
    etag: str | None
    sha256: str
    width: int
    height: int
    intake_s: float = 0.0
    wait_s: float = 0.0
    model_s: float = 0.0


class Room:
    """Places for pictures on their way: the bound on decoded pixels in memory.

    Interactive jobs go first: while one waits, bulk jobs get no place.
    """

    def __init__(self, places: int) -> None:
        self._changed = threading.Condition()
        self._free = self.places = max(1, places)
        self._interactive_waiting = 0

    def take(self, *, priority: Priority, timeout_s: float) -> bool:
        """Take one place, waiting up to *timeout_s* for it."""
        is_interactive = priority == "interactive"
        with self._changed:
            self._interactive_waiting += is_interactive
            try:
                is_free = self._changed.wait_for(
                    lambda: self._free > 0 and (is_interactive or not self._interactive_waiting),
                    timeout=timeout_s,
                )
                self._free -= is_free
            finally:
                self._interactive_waiting -= is_interactive
                if is_interactive:
                    self._changed.notify_all()
        return is_free

    def give_back(self) -> None:
        """Free one place."""
        with self._changed:
            self._free += 1
            self._changed.notify()

    @property
    def taken(self) -> int:
        """Pictures on their way."""
        return self.places - self._free


class Embedder:
    """Makes embeddings of pictures; every picture is answered exactly once."""

    def __init__(
        self,
        intake: Intake,
        batcher: Batcher[Pixels, Floats],
        *,
        room: Room,
    ) -> None:
        self._intake = intake
        self._batcher = batcher
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
        futures: list[Future[Embedded]] = []
        rest = deque(images)
        while rest:
            token.wait_until(lambda wait_s: self.room.take(priority=priority, timeout_s=wait_s))
            group = [rest.popleft()]
            while (
                rest
                and len(group) < IMAGES_IN_A_CALL
                and self.room.take(priority=priority, timeout_s=0)
            ):
                group.append(rest.popleft())
            futures += self._embed_group(group, priority=priority)
        return futures

    def _embed_group(
        self, images: Sequence[ImageRef], *, priority: Priority
    ) -> "list[Future[Embedded]]":
        journeys = [_Journey(self._batcher, priority=priority) for _ in images]
        for journey in journeys:
            journey.embedded.add_done_callback(lambda _: self.room.give_back())
        self._batcher.announce(len(images))
        try:
            futures = self._intake.submit(images)
        except BaseException as error:
            self._batcher.retract(len(images))
            for journey in journeys:
                journey.fail(error)
            raise
        for journey, future in zip(journeys, futures, strict=True):
            future.add_done_callback(journey.has_pixels)
        return [journey.embedded for journey in journeys]


class _Journey:
    """One picture's way: callbacks, run by whichever thread finished a stage."""

    def __init__(self, batcher: Batcher[Pixels, Floats], *, priority: Priority) -> None:
        self.embedded: Future[Embedded] = Future()
        self._batcher = batcher
        self._priority = priority
        self._asked_at = time.monotonic()
        self._pixels: Pixels | None = None
        self._intake_s = 0.0

    def has_pixels(self, future: "Future[Pixels | Unchanged]") -> None:
        try:
            pixels = future.result()
            assert isinstance(pixels, Pixels)  # noqa: S101 - no etags were given
        except BaseException as error:  # noqa: BLE001 - whatever it is, the job must hear it
            self._batcher.retract(1)
            self.fail(error)
            return
        self._pixels = pixels
        self._intake_s = time.monotonic() - self._asked_at
        try:
            answer = self._batcher.submit(pixels, priority=self._priority)
        except LabelyardError as error:
            self.fail(error)
            return
        answer.add_done_callback(self._has_embeds)

    def _has_embeds(self, future: "Future[BatchAnswer[Floats]]") -> None:
        try:
            answer = future.result()
            assert self._pixels is not None  # noqa: S101 - set before the batcher was asked
            embedded = Embedded(
                image_embeds=answer.result,
                etag=self._pixels.etag,
                sha256=self._pixels.sha256,
                width=self._pixels.source_width,
                height=self._pixels.source_height,
                intake_s=self._intake_s,
                wait_s=answer.wait_s,
                model_s=answer.model_s,
            )
        except BaseException as error:  # noqa: BLE001 - whatever it is, the job must hear it
            self.fail(error)
            return
        self._pixels = None
        if not self.embedded.done():
            self.embedded.set_result(embedded)

    def fail(self, error: BaseException) -> None:
        try:
            self.embedded.set_exception(error)
        except InvalidStateError:
            return
