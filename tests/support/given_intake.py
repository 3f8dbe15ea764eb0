"""An intake whose answers a test gives."""

from concurrent.futures import Future
from typing import Any

from labelyard.messages import ImageRef
from labelyard_worker.intake.pixel_budget import PixelBudget
from labelyard_worker.pixels import Pixels


class GivenIntake:
    """An intake with given answers; a slot of the pixel budget is taken first, as in the pool."""

    def __init__(self) -> None:
        self.budget = PixelBudget(100)
        self.futures: list[Future[Any]] = []
        self.known: list[Any] = []
        self.refuses = False

    def submit(self, images: list[ImageRef], *, known: object, **_: object) -> list[Future[Any]]:
        self.known.append(known)
        if self.refuses:
            raise MemoryError("no thread")
        self.futures.append(Future())
        return self.futures[-1:]

    def answer(self, future: "Future[Any]", outcome: object) -> None:
        if isinstance(outcome, Pixels):
            self.budget.take(is_bulk=True)
        if not future.set_running_or_notify_cancel():
            if isinstance(outcome, Pixels):
                self.budget.give_back()
        elif isinstance(outcome, BaseException):
            future.set_exception(outcome)
        else:
            future.set_result(outcome)
