"""Each image is answered, frees its slot, and is no longer expected by the batcher."""

import dataclasses
import threading
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from labelyard.errors import (
    ImageNotEmbeddedError,
    ImageNotFoundError,
    StorageUnavailableError,
)
from labelyard.messages import ImageRef, Job
from labelyard_worker.embedding import Embedder
from labelyard_worker.intake.storage_away import StorageAwayError
from labelyard_worker.pixels import ImageFacts, Pixels, Unchanged
from labelyard_worker.vision.batcher import Batcher
from labelyard_worker.vision.image_cache import KnownImage
from tests.support.given_intake import GivenIntake

PIXELS = Pixels(b"rgb", 1, 1, ImageFacts("0" * 64, width=1, height=1))
VECTOR = np.ones(4, dtype=np.float32)
MADE = np.zeros(4, dtype=np.float32)
KNOWN = KnownImage(VECTOR, ImageFacts("1" * 64, width=1, height=1, etag="e1"), "3 noon v1")


class Known:
    """An image cache with given entries; a broken one raises an unexpected exception."""

    def __init__(self, known: KnownImage | None, content: Callable[[], Any]) -> None:
        self._known = known
        self._content = content

    def look_up(self, images: list[ImageRef]) -> dict[Any, KnownImage]:
        from labelyard_worker.vision.image_cache import address_of

        return {address_of(image): self._known for image in images if self._known}

    def embeds_of(self, _: str) -> Any:
        return self._content()

    def keep_content(self, sha256: str, image_embeds: Any) -> None:
        """Forget it: the entries are given."""


JOB = Job(
    job_id="1", images=(ImageRef(id="1", uri="s3://a/b"),), label_set="pets@sha256:" + "0" * 64
)


def broken() -> Any:
    raise SystemExit("broken")


ANSWERS: list[object] = [
    PIXELS,
    Unchanged("e1"),
    ImageNotFoundError("s3://a/b"),
    StorageUnavailableError("s3://a/b"),
    StorageAwayError("s3://a/b"),
    MemoryError(),
    SystemExit(),
    RuntimeError("a bug"),
]
models = st.sampled_from(["well", "raises", "exits", "full", "closed"])
cancels = st.sampled_from(["never", "before", "while it waits for the model", "after"])


@given(
    answer=st.sampled_from(ANSWERS),
    known=st.sampled_from([None, KNOWN]),
    content=st.sampled_from([lambda: None, lambda: VECTOR, broken]),
    model=models,
    cancel=cancels,
)
def test_each_outcome_returns_all_it_held_and_answers_once(
    answer: object, known: KnownImage | None, content: Any, model: str, cancel: str
) -> None:
    may_run = threading.Event()

    def run(batch: Any) -> list[Any]:
        may_run.wait(10)
        if model == "raises":
            raise ValueError("a bug of the model")
        return [VECTOR for _ in batch]

    batcher: Batcher[Any, Any] = Batcher(
        run, max_batch_size=4, queue_capacity=0 if model == "full" else 10, streams=1
    )
    batcher.start()
    if model == "closed":
        batcher.close(timeout_s=5)
    intake = GivenIntake()
    embedder = Embedder(intake, batcher, known=Known(known, content))  # type: ignore[arg-type]
    answers: list[object] = []

    (embedded,) = embedder.embed(JOB, priority="bulk", is_wanted=lambda: None)
    embedded.add_done_callback(answers.append)
    if cancel == "before":
        embedded.cancel()
    intake.answer(intake.futures[0], answer)
    if cancel == "while it waits for the model":
        embedded.cancel()
    may_run.set()
    embedded.exception(10) if not embedded.cancelled() else None
    if cancel == "after":
        embedded.cancel()
    batcher.close(timeout_s=5)

    assert len(answers) == 1
    assert intake.budget.taken == 0
    assert not batcher.is_expecting


@pytest.mark.parametrize("always_fetches", [False, True])
@pytest.mark.parametrize("is_recall", [False, True])
@pytest.mark.parametrize(
    ("known", "pixels", "outcome"),
    [
        (KNOWN, PIXELS, "changed"),
        (KNOWN, dataclasses.replace(PIXELS, facts=KNOWN.facts), "same"),
        (None, PIXELS, "unknown"),
    ],
)
def test_only_the_content_itself_is_believed(
    known: KnownImage | None, pixels: Any, outcome: str, is_recall: bool, always_fetches: bool
) -> None:
    """A recalled image is never given to the model; with always_fetch no version is named."""
    batcher: Batcher[Any, Any] = Batcher(
        lambda batch: [MADE for _ in batch], max_batch_size=4, queue_capacity=10
    )
    batcher.start()
    intake = GivenIntake()
    embedder = Embedder(
        intake,  # type: ignore[arg-type]
        batcher,
        known=Known(known, lambda: None),  # type: ignore[arg-type]
        always_fetches=always_fetches,
    )
    find = embedder.recall if is_recall else embedder.embed

    (embedded,) = find(JOB, priority="bulk", is_wanted=lambda: None)
    if intake.futures:
        intake.answer(intake.futures[0], pixels)
    error = embedded.exception(10)
    batcher.close(timeout_s=5)

    if is_recall and outcome != "same":
        assert isinstance(error, ImageNotEmbeddedError)
    else:
        expected = VECTOR if outcome == "same" else MADE
        assert embedded.result().image.image_embeds is expected
    is_named = bool(intake.known and intake.known[0])
    assert is_named == (known is not None and not always_fetches)
    assert intake.budget.taken == 0


def test_an_intake_that_refuses_leaves_nothing_expected() -> None:
    batcher: Batcher[Any, Any] = Batcher(lambda batch: batch, max_batch_size=4, queue_capacity=4)
    intake = GivenIntake()
    intake.refuses = True
    embedder = Embedder(intake, batcher, known=Known(None, lambda: None))  # type: ignore[arg-type]

    with pytest.raises(MemoryError):
        embedder.embed(JOB, priority="bulk", is_wanted=lambda: None)

    assert not batcher.is_expecting
    assert intake.budget.taken == 0
