"""The explainer gives back all that it holds, however a job ends, and lets others go first."""

import hashlib
import threading
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest

from labelyard import ClientSettings
from labelyard.errors import InvalidMessageError, JobCancelledError, ScoresNotFiniteError
from labelyard.messages import Job
from labelyard.queues import Priority
from labelyard.submission import make_job
from labelyard_worker.embedding import Embedded, Embedder
from labelyard_worker.explainer import Explainer, ExplanationSlots
from labelyard_worker.jobs.cancellation import Token, cancelled
from labelyard_worker.jobs.delivery.map_objects import MapObjects
from labelyard_worker.jobs.delivery.objects import ObjectSender
from labelyard_worker.jobs.delivery.permissions import ResultPlace, ResultPlaces
from labelyard_worker.pixels import ImageFacts, Pixels, PixelSpec
from labelyard_worker.vision.batcher import Batcher
from labelyard_worker.vision.image_cache import ImageCache
from labelyard_worker.vision.occlusion import OccludedPixels
from labelyard_worker.vision.scorer import Scorer
from labelyard_worker.vision.scoring import LabelMatrix, Scaling
from tests.support.given_intake import GivenIntake
from tests.support.waiting import wait_until

LABELS = ("a cat", "a dog")
MATRIX = LabelMatrix(
    "digest", LABELS, np.full(2, np.nan), np.eye(2, 4, dtype=np.float32), "softmax", 1.0
)
INTERACTIVE, BULK = Priority.INTERACTIVE, Priority.BULK


def no_store(bucket: str) -> Any:
    raise AssertionError(f"{bucket} is written to")


class Yard:
    """An explainer whose model may run when the test says so."""

    def __init__(self, *, places: tuple[ResultPlace, ...] = (ResultPlace("results", ""),)) -> None:
        self.seen: list[Pixels] = []
        self.may_run, self.runs = threading.Event(), threading.Event()
        self.blocks_pictures = False
        self.may_run.set()
        self.vector = np.ones(4, dtype=np.float32)
        self.intake = GivenIntake()
        self.cache = ImageCache(capacity_bytes=1 << 20, shared=None)
        self.batcher: Batcher[Any, Any] = Batcher(self._run, max_batch_size=1, queue_capacity=100)
        self.explainer = Explainer(
            Embedder(self.intake, self.batcher, known=self.cache),  # type: ignore[arg-type]
            self.batcher,
            Scorer(Scaling(1.0)),
            MapObjects(ObjectSender(ResultPlaces(places), no_store, timeout_s=1.0)),
            PixelSpec("exact", height=8, width=8),
            ExplanationSlots(places=8, queue_capacity=512),
        )
        self.threads = ThreadPoolExecutor(4)

    def _run(self, batch: list[Pixels]) -> Any:
        self.runs.set()
        if self.blocks_pictures or any(isinstance(pixels, OccludedPixels) for pixels in batch):
            self.may_run.wait(10)
        self.seen += batch
        return [
            self.vector if isinstance(pixels, OccludedPixels) else np.ones(4, dtype=np.float32)
            for pixels in batch
        ]

    def start(self, job: Job, priority: Priority = INTERACTIVE) -> tuple[Token, "Future[Any]"]:
        """Explain a job in a thread of its own, and answer for the intake."""
        token = Token(job.job_id, timeout_s=10.0, expires_in_s=None)
        count = len(self.intake.futures)
        future = self.threads.submit(
            self.explainer.explain, job, MATRIX, priority=priority, token=token
        )
        wait_until(lambda: len(self.intake.futures) > count or future.done(), within_s=10)
        return token, future

    def answer(self) -> None:
        """Answer the last request for a picture."""
        raw = bytes(range(192))
        facts = ImageFacts(hashlib.sha256(raw).hexdigest(), width=8, height=8, etag="e")
        self.intake.answer(self.intake.futures[-1], Pixels(raw, 8, 8, facts, stamp="noon"))

    def close(self) -> None:
        """End all threads, and see that nothing is left over."""
        self.may_run.set()
        self.threads.shutdown()
        self.batcher.close(timeout_s=5)
        assert self.intake.budget.taken == 0
        assert not self.batcher.is_expecting
        for priority in Priority:  # every slot is free
            slots = self.explainer.slots
            assert slots._slots[priority]._value == slots.count


@pytest.fixture
def yard() -> Iterator[Yard]:
    made = Yard()
    made.batcher.start()
    yield made
    made.close()


def job(**options: Any) -> Job:
    return make_job(ClientSettings(), ["s3://photos/1.png"], LABELS, explain=["a cat"], **options)


def test_a_cancelled_job_withdraws_its_variants_and_its_place(yard: Yard) -> None:
    yard.may_run.clear()
    token, future = yard.start(job())
    yard.answer()
    wait_until(lambda: yard.batcher.waiting == 15, within_s=10)
    held = yard.intake.budget.taken

    token.stop(cancelled("1"))

    with pytest.raises(JobCancelledError):
        future.result(10)
    assert held == 1
    assert yard.intake.budget.taken == 0
    yard.may_run.set()
    wait_until(lambda: yard.batcher.waiting == 0, within_s=10)
    assert sum(isinstance(one, OccludedPixels) for one in yard.seen) <= 1


def test_a_job_that_is_cancelled_before_its_picture_comes_withdraws_it(yard: Yard) -> None:
    token, future = yard.start(job())

    token.stop(cancelled("1"))

    with pytest.raises(JobCancelledError):
        future.result(10)
    assert yard.intake.futures[-1].cancelled()


def test_a_bulk_job_in_work_leaves_an_interactive_one_its_slot(yard: Yard) -> None:
    yard.may_run.clear()
    first, second = yard.start(job(), BULK), None
    waiting = yard.threads.submit(
        yard.explainer.explain,
        job(),
        MATRIX,
        priority=BULK,
        token=Token("2", timeout_s=0.3, expires_in_s=None),
    )

    second = yard.start(job(), INTERACTIVE)

    assert yard.explainer.slots.count == 1
    assert len(yard.intake.futures) == 2  # of the first bulk job, and of the interactive one
    assert waiting.exception(10) is not None
    for token, future in (first, second):
        token.stop(cancelled("1"))
        assert isinstance(future.exception(10), JobCancelledError)


def test_vectors_of_variants_that_are_not_finite_fail_the_picture_alone(yard: Yard) -> None:
    yard.vector = np.full(4, np.nan, dtype=np.float32)
    _, future = yard.start(job())
    yard.answer()

    (outcome,), (found,) = future.result(10)

    assert isinstance(outcome, ScoresNotFiniteError)
    assert found == ()


def test_variants_are_not_cached_as_the_picture(yard: Yard) -> None:
    yard.vector = np.full(4, np.nan, dtype=np.float32)
    _, future = yard.start(job())
    yard.answer()
    future.result(10)

    known = yard.cache.embeds_of(hashlib.sha256(bytes(range(192))).hexdigest())

    assert known is not None
    assert np.isfinite(known).all()


def test_a_worker_that_may_write_nowhere_refuses_before_it_reads_a_picture() -> None:
    yard = Yard(places=())
    yard.batcher.start()

    _, future = yard.start(job())

    with pytest.raises(InvalidMessageError, match="LABELYARD_RESULT_BUCKETS"):
        future.result(10)
    assert yard.intake.futures == []
    yard.close()


def test_an_embedding_that_nobody_waits_for_any_more_gives_its_place_back(yard: Yard) -> None:
    yard.blocks_pictures = True
    yard.may_run.clear()
    future: Future[Embedded] = yard.explainer.embedder.embed_with_pixels(
        job(), 0, priority=INTERACTIVE
    )
    yard.answer()
    assert yard.runs.wait(10)

    assert future.cancel()
    yard.may_run.set()

    wait_until(lambda: yard.intake.budget.taken == 0, within_s=10)


def test_slots_are_bounded_by_places_and_by_the_queue_of_the_model() -> None:
    counts = [
        ExplanationSlots(places=places, queue_capacity=queue).count
        for places, queue in ((128, 4096), (16, 4096), (1, 4096), (128, 64))
    ]

    assert counts == [8, 2, 1, 1]


def test_a_slot_is_not_waited_for_by_a_job_that_is_cancelled() -> None:
    slots = ExplanationSlots(places=1, queue_capacity=1)
    token = Token("1", timeout_s=60.0, expires_in_s=None)

    with slots.held(BULK, Token("0", timeout_s=60.0, expires_in_s=None)):
        token.stop(cancelled("1"))
        with pytest.raises(JobCancelledError), slots.held(BULK, token):
            raise AssertionError
