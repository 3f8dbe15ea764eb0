"""Equal content on its way at once is given to the model once, and no image is harmed by another."""

import hashlib
from collections import Counter
from concurrent.futures import Future
from itertools import count
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from labelyard.errors import ScoresNotFiniteError
from labelyard.messages import ImageRef
from labelyard.queues import Priority
from labelyard_worker.embedding import Embedded, Embedder
from labelyard_worker.image_outcomes import check_is_finite
from labelyard_worker.pixels import ImageFacts, Pixels
from labelyard_worker.vision.batcher import Batcher
from labelyard_worker.vision.image_cache import ImageCache
from tests.support.given_intake import GivenIntake

BULK, INTERACTIVE = Priority.BULK, Priority.INTERACTIVE
MIB = 1024 * 1024


class Yard:
    """An embedder whose model runs when the test says so, and notes the contents that it sees.

    Args:
        failures: What the model does in its first calls: raise, or give NaN.
        cache_bytes: Size of the image cache.
    """

    def __init__(
        self, *, failures: tuple[str, ...] = (), cache_bytes: int = MIB, queue_capacity: int = 1000
    ) -> None:
        self.seen: list[bytes] = []
        self.images: list[ImageRef] = []
        self._failures = list(failures)
        self._numbers = count()
        self.intake = GivenIntake()
        self.batcher: Batcher[Any, Any] = Batcher(
            self._run, max_batch_size=4, queue_capacity=queue_capacity
        )
        self.embedder = Embedder(
            self.intake,  # type: ignore[arg-type]
            self.batcher,
            known=ImageCache(capacity_bytes=cache_bytes, shared=None),
        )

    def _run(self, batch: list[Pixels]) -> Any:
        self.seen += [pixels.data for pixels in batch]
        failure = self._failures.pop(0) if self._failures else ""
        if failure == "raises":
            raise ValueError("a bug of the model")
        filler = np.nan if failure == "not finite" else 1.0
        return np.full((len(batch), 4), filler, dtype=np.float32)

    def send(
        self, content: str, *, priority: Priority = BULK, tenant: str = "one"
    ) -> "Future[Embedded]":
        """Send an image of an address of its own, and answer for the intake."""
        number = next(self._numbers)
        self.images.append(ImageRef(id="1", uri=f"s3://photos/{number}.jpg"))
        (future,) = self.embedder.embed_images(
            self.images[-1:], tenant=tenant, job_id="1", priority=priority, is_wanted=lambda: None
        )
        sha256 = hashlib.sha256(content.encode()).hexdigest()
        facts = ImageFacts(sha256, width=1, height=1, etag=f"e{number}")
        pixels = Pixels(content.encode(), 1, 1, facts, stamp=f"stamp {number}")
        self.intake.answer(self.intake.futures[-1], pixels)
        return future

    def close(self) -> None:
        """End the model's threads, and see that nothing is left over."""
        self.batcher.close(timeout_s=5)
        assert self.intake.budget.taken == 0
        assert not self.batcher.is_expecting
        assert len(self.embedder._flights) == 0


@pytest.mark.parametrize("cache_bytes", [0, MIB])
def test_equal_content_under_several_addresses_is_embedded_once(cache_bytes: int) -> None:
    yard = Yard(cache_bytes=cache_bytes)
    futures = [yard.send("cat") for _ in range(20)]
    is_expecting_more = any(yard.batcher._schedule._coming.values())
    yard.batcher.start()

    found = [future.result(10).image for future in futures]

    yard.close()
    assert yard.seen == [b"cat"]
    assert not is_expecting_more  # no batch waits for images that will not come
    assert [image.facts.etag for image in found] == [f"e{n}" for n in range(20)]
    assert [image.stamp for image in found] == [f"stamp {n}" for n in range(20)]
    assert all(image.image_embeds.tobytes() == found[0].image_embeds.tobytes() for image in found)


def test_an_equal_image_that_comes_before_the_first_is_kept_is_not_embedded() -> None:
    yard = Yard()
    yard.batcher.start()
    yard.send("cat").result(10)

    yard.send("cat").result(10)

    yard.close()
    assert yard.seen == [b"cat"]


@pytest.mark.parametrize("withdrawn", [[0], [1], [0, 1], [1, 0]])
def test_a_withdrawn_image_harms_no_equal_one(withdrawn: list[int]) -> None:
    yard = Yard()
    futures = [yard.send("cat") for _ in range(3)]
    for number in withdrawn:
        futures[number].cancel()
    yard.batcher.start()

    futures[2].result(10)

    yard.close()
    assert yard.seen == [b"cat"]


def test_content_that_nobody_wants_any_more_is_not_embedded() -> None:
    yard = Yard()
    futures = [yard.send("cat") for _ in range(3)]

    for future in futures:
        future.cancel()
    yard.batcher.start()

    yard.close()
    assert yard.seen == []


@pytest.mark.parametrize("failure", ["raises", "not finite"])
def test_a_failure_of_the_first_image_fails_no_equal_one(failure: str) -> None:
    yard = Yard(failures=(failure,))
    first, *others = [yard.send("cat") for _ in range(3)]
    yard.batcher.start()

    found = [future.result(10) for future in others]

    error = first.exception(10)
    yard.close()
    assert isinstance(error, ValueError) if failure == "raises" else error is None
    for one in found:
        check_is_finite(yard.images[1], one)
    if failure == "not finite":
        with pytest.raises(ScoresNotFiniteError):
            check_is_finite(yard.images[0], first.result())


def test_an_image_goes_on_after_the_failed_one_until_it_is_withdrawn() -> None:
    yard = Yard(failures=("raises",))
    first, second, third = [yard.send("cat") for _ in range(3)]
    first.add_done_callback(lambda _: second.cancel())
    yard.batcher.start()

    third.result(10)

    yard.close()
    assert second.cancelled()
    assert yard.seen == [b"cat", b"cat"]


@pytest.mark.parametrize(
    ("first", "second", "seen"),
    [
        ((BULK, "one"), (BULK, "one"), 1),
        ((INTERACTIVE, "one"), (INTERACTIVE, "one"), 1),
        ((INTERACTIVE, "one"), (BULK, "one"), 1),
        ((BULK, "one"), (INTERACTIVE, "one"), 2),
        ((BULK, "one"), (BULK, "two"), 2),
    ],
)
def test_an_image_waits_only_for_one_that_is_ahead_of_it_in_the_queue(
    first: tuple[Priority, str], second: tuple[Priority, str], seen: int
) -> None:
    yard = Yard()
    futures = [yard.send("cat", priority=one[0], tenant=one[1]) for one in (first, second)]
    third = yard.send("cat", priority=second[0], tenant=second[1])
    yard.batcher.start()

    for future in (*futures, third):
        future.result(10)

    yard.close()
    assert len(yard.seen) == seen


def test_images_that_wait_when_the_worker_stops_are_answered() -> None:
    yard = Yard()
    futures = [yard.send("cat") for _ in range(3)]

    yard.close()

    assert [type(future.exception(10)).__name__ for future in futures] == ["TransientError"] * 3


sends = st.tuples(
    st.just("send"),
    st.sampled_from(["cat", "dog", "owl"]),
    st.sampled_from(Priority),
    st.sampled_from(["one", "two"]),
)
steps = st.one_of(
    sends, sends, st.tuples(st.just("cancel"), st.integers(0, 30)), st.tuples(st.just("start"))
)


@given(
    st.lists(steps, max_size=30),
    st.lists(st.sampled_from(["raises", "not finite", ""]), max_size=6),
    st.sampled_from([0, MIB]),
    st.sampled_from([0, 2, 1000]),
)
def test_whatever_happens_each_image_is_answered_once_and_holds_nothing_afterwards(
    events: list[Any], failures: list[str], cache_bytes: int, queue_capacity: int
) -> None:
    yard = Yard(failures=tuple(failures), cache_bytes=cache_bytes, queue_capacity=queue_capacity)
    futures: list[Future[Embedded]] = []
    answers: Counter[int] = Counter()
    is_started = False
    for kind, *values in events:
        if kind == "send":
            content, priority, tenant = values
            futures.append(yard.send(content, priority=priority, tenant=tenant))
            number = len(futures)
            futures[-1].add_done_callback(lambda _, number=number: answers.update([number]))  # type: ignore[misc]
        elif kind == "cancel" and values[0] < len(futures):
            futures[values[0]].cancel()
        elif kind == "start" and not is_started:
            is_started = True
            yard.batcher.start()
    if not is_started:
        yard.batcher.start()
    for future in futures:
        if not future.cancelled():
            future.exception(10)

    yard.close()
    assert answers == Counter(range(1, len(futures) + 1))
