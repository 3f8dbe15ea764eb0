"""The intake: child processes that fetch and decode, and one future for each image."""

import threading
from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from multiprocessing import Pipe
from typing import Final

from labelyard.messages import ImageRef
from labelyard_worker.intake.child import DECODER, ChildSettings
from labelyard_worker.intake.lane import Lane, abandon
from labelyard_worker.intake.spec import ImageLimits, Pixels, PixelSpec, Unchanged
from labelyard_worker.intake.storage import StorageSettings
from labelyard_worker.intake.waiting import Call, CallQueue
from labelyard_worker.machine import usable_cores

__all__ = ["Intake", "Unchanged", "default_children"]

NOTHING_KNOWN: Final[Mapping[str, str]] = {}
MOST_CHILDREN = 32
FAILED_STARTS_TO_NOTICE = 3


def default_children() -> int:
    """Decide how many children suit this machine: one a core, and never one alone.

    A second one goes on when an image keeps the first until its time is over.
    """
    return max(2, min(usable_cores(), MOST_CHILDREN))


class Intake:
    """Takes images in, outside the model's process.

    An image that crashes its decoder, hangs it or eats memory costs that image alone.

    Args:
        spec: What the checkpoint's image processor does.
        limits: What a picture may cost.
        storage: Where to fetch from, see ``resolve_storage``.
        children: How many processes; 0 decides from the cores.
        image_timeout_s: Seconds to fetch and decode one image.
        image_retries: Times that one image's transient error is retried.
        nice: Added to the children's niceness. Niced children starve behind a busy model.
        decoder: ``module:function`` in place of ``images.decode``, for tests.
    """

    def __init__(
        self,
        *,
        spec: PixelSpec,
        limits: ImageLimits,
        storage: StorageSettings,
        children: int = 0,
        image_timeout_s: float = 30.0,
        image_retries: int = 2,
        nice: int = 0,
        decoder: str = DECODER,
    ) -> None:
        settings = ChildSettings(
            spec=spec,
            limits=limits,
            storage=storage,
            image_timeout_s=image_timeout_s,
            nice=nice,
            decoder=decoder,
        )
        self._waiting = CallQueue()
        self._pending = 0
        self._answered = threading.Condition()
        self._stop_reader, self._stop_writer = Pipe(duplex=False)
        self._lanes = [
            Lane(
                self._waiting,
                settings=settings,
                retries=image_retries,
                stop=self._stop_reader,
                number=number,
            )
            for number in range(children or default_children())
        ]
        for lane in self._lanes:
            lane.start()

    def submit(
        self, images: Sequence[ImageRef], *, known_etags: Mapping[str, str] = NOTHING_KNOWN
    ) -> list[Future[Pixels | Unchanged]]:
        """Have *images* fetched and decoded.

        Args:
            known_etags: By URI, the ETag whose pixels are known already; if the object
                still has it, it is not fetched again.

        Returns:
            One future for each image, in their order. Each is answered once, with pixels,
            with ``Unchanged`` or with one of our errors; when the intake closes, with
            StorageUnavailableError. One that is cancelled before its turn is skipped.
            Callbacks run in the thread that feeds a child: keep them short.
        """
        calls = [Call(image, known_etags.get(image.uri), Future()) for image in images]
        with self._answered:
            self._pending += len(calls)
        for call in calls:
            call.answer.add_done_callback(self._count_answer)
        self._waiting.put(calls)
        if self._waiting.is_closed:
            abandon(self._waiting.close())
        return [call.answer for call in calls]

    @property
    def pending(self) -> int:
        """Images without an answer; the caller bounds it by what it submits."""
        return self._pending

    @property
    def pids(self) -> list[int]:
        """Process ids of the children that run right now."""
        return [pid for lane in self._lanes if (pid := lane.pid) is not None]

    def is_alive(self) -> bool:
        """Tell whether images are taken in: every lane runs, and its children start."""
        return not self._waiting.is_closed and all(
            lane.is_alive() and lane.failed_starts < FAILED_STARTS_TO_NOTICE for lane in self._lanes
        )

    def close(self, timeout_s: float = 0.0) -> None:
        """Give pending images *timeout_s* seconds, then answer the rest and end the children."""
        with self._answered:
            self._answered.wait_for(lambda: self._pending == 0, timeout_s)
        left = self._waiting.close()
        self._stop_writer.close()  # wakes every lane
        for lane in self._lanes:
            lane.join()
        abandon(left + self._waiting.close())
        self._stop_reader.close()

    def _count_answer(self, _answer: "Future[Pixels | Unchanged]") -> None:
        with self._answered:
            self._pending -= 1
            self._answered.notify_all()
