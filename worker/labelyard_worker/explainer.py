"""Explains labels: embeds variants of a picture with one window hidden, and draws the losses."""

import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final, TypeAlias

import numpy as np

from labelyard.errors import InvalidMessageError, ScoresNotFiniteError
from labelyard.messages import Job, LabelExplanation
from labelyard.messages.explanation import MAX_GRID
from labelyard.messages.short_forms import cut
from labelyard.queues import Priority
from labelyard_worker.embedding import Embedder
from labelyard_worker.image_outcomes import ImageOutcome, raise_if_storage_is_away, wait_for_image
from labelyard_worker.image_pipeline import Embedded, HeldPixels
from labelyard_worker.intake.image_uri import redact
from labelyard_worker.jobs.cancellation import Token
from labelyard_worker.jobs.delivery.map_objects import MapObjects
from labelyard_worker.metrics import OCCLUDED_IMAGES
from labelyard_worker.pixels import Pixels, PixelSpec
from labelyard_worker.vision.batch_queue import BatchAnswer
from labelyard_worker.vision.batcher import Batcher
from labelyard_worker.vision.explanation import explain_label, is_low_score, seen_part
from labelyard_worker.vision.map_picture import draw_map
from labelyard_worker.vision.occlusion import Occlusion
from labelyard_worker.vision.scorer import Scorer
from labelyard_worker.vision.scoring import Floats, LabelMatrix

Explanations: TypeAlias = tuple[LabelExplanation, ...]

#: Part of the places for decoded images, and of the model's queue, that explanations of one
#: priority may take.
PART: Final = 8


class ExplanationSlots:
    """Limits on the pictures that are explained at once, one for each priority.

    Args:
        places: Places for decoded images.
        queue_capacity: Images that may wait for the model.
    """

    def __init__(self, *, places: int, queue_capacity: int) -> None:
        self.count = max(1, min(places // PART, queue_capacity // PART // MAX_GRID**2))
        self._slots = {priority: threading.Semaphore(self.count) for priority in Priority}

    @contextmanager
    def held(self, priority: Priority, token: Token) -> Iterator[None]:
        """Hold a slot while the block runs.

        Raises:
            LabelyardError: The token stopped the job before there was one.
        """
        slots = self._slots[priority]
        token.check()
        token.wait_until(lambda wait_s: slots.acquire(timeout=wait_s))
        try:
            yield
        finally:
            slots.release()


@dataclass(frozen=True)
class Explainer:
    """Explains the labels of a job's pictures; called from many threads.

    One picture of a job after the other: it is fetched, known or not, and keeps its place in the
    pixel budget until the model has answered all its variants. They pass the image cache and the
    single flight by: their content is not the picture's.
    """

    embedder: Embedder
    batcher: Batcher[Pixels, Floats]
    scorer: Scorer
    maps: MapObjects
    spec: PixelSpec
    slots: ExplanationSlots

    def explain(
        self, job: Job, labels: LabelMatrix, *, priority: Priority, token: Token
    ) -> tuple[list[ImageOutcome], list[Explanations]]:
        """Embed the pictures of *job*, and explain its labels for each.

        Returns:
            The outcome of each picture, and its explanations; none of a picture that failed.

        Raises:
            InvalidMessageError: The set has no such label, or maps cannot be written.
            StorageAwayError: A bucket or host fails as a whole.
            TransientError: A map could not be written, or the job's time is over; retry.
            WorkerError: The model or the device failed.
            LabelyardError: The job is cancelled, expired or handed back.
        """
        self.maps.check()
        places = places_of(job.explain, labels)
        outcomes: list[ImageOutcome] = []
        explanations: list[Explanations] = []
        for number in range(len(job.images)):
            with self.slots.held(priority, token):
                outcome, found = self._explain_image(
                    job, number, labels, places, priority=priority, token=token
                )
            raise_if_storage_is_away([outcome])
            outcomes.append(outcome)
            explanations.append(found)
        return outcomes, explanations

    def _explain_image(
        self,
        job: Job,
        number: int,
        labels: LabelMatrix,
        places: Sequence[int],
        *,
        priority: Priority,
        token: Token,
    ) -> tuple[ImageOutcome, Explanations]:
        """Explain one picture; its place in the pixel budget is given back in any case."""
        future = self.embedder.embed_with_pixels(job, number, priority=priority)
        try:
            outcome = wait_for_image(job.images[number], future, token)
            if not isinstance(outcome, Embedded) or outcome.held is None:
                return outcome, ()
            occlusion = Occlusion(outcome.held.pixels, grid=job.explain_grid)
            vectors = self._embed_variants(job, occlusion, priority=priority, token=token)
            if not np.isfinite(vectors).all():
                uri = redact(job.images[number].uri)
                return ScoresNotFiniteError(uri, "an embedding of it is not finite"), ()
            every = np.concatenate([outcome.image.image_embeds[None], vectors])
            found = self._explain_labels(job, number, every, labels, places, occlusion)
        finally:
            held = held_by(future)
            if held is not None:
                held.release()
        return without_pixels(outcome), found

    def _embed_variants(
        self, job: Job, occlusion: Occlusion, *, priority: Priority, token: Token
    ) -> Floats:
        """Embed the variants of one picture, shape (windows, length)."""
        futures: list[Future[BatchAnswer[Floats]]] = self.batcher.submit_all(
            occlusion.variants, priority=priority, tenant=job.tenant
        )
        try:
            vectors = [token.wait(future).result for future in futures]
        finally:
            for future in futures:
                future.cancel()
        OCCLUDED_IMAGES.inc(len(vectors))
        return np.stack(vectors)

    def _explain_labels(
        self,
        job: Job,
        number: int,
        vectors: Floats,
        labels: LabelMatrix,
        places: Sequence[int],
        occlusion: Occlusion,
    ) -> Explanations:
        """Compare the logits of the picture and its variants, and draw and write the maps."""
        logits, scores = self.scorer.logits_and_scores(vectors, labels)
        pixels = occlusion.pixels
        seen = seen_part(self.spec, height=pixels.facts.height, width=pixels.facts.width)
        maps: dict[str, bytes] = {}
        found = []
        for place, label in enumerate(places):
            one = explain_label(
                logits[:, : labels.n_labels],
                label,
                grid=job.explain_grid,
                is_low=is_low_score(labels, scores[0], label),
            )
            uri = self.maps.uri(job, image=number, label=place)
            maps[uri] = draw_map(occlusion, one)
            found.append(one.to_message(labels.names, scores[0], seen=seen, uri=uri))
        self.maps.write(maps)
        return tuple(found)


def places_of(explain: Sequence[str], labels: LabelMatrix) -> list[int]:
    """Return the indices of the labels that are to be explained.

    Raises:
        InvalidMessageError: The set has no such label.
    """
    by_name = {name: place for place, name in enumerate(labels.names)}
    if unknown := [name for name in explain if name not in by_name]:
        raise InvalidMessageError(f"explain names {cut(unknown[0])!r}, not a label of the set")
    return [by_name[name] for name in explain]


def held_by(future: "Future[Embedded]") -> HeldPixels | None:
    """Return the pixels that an answer holds; withdraw the image if there is no answer yet."""
    if future.cancel() or future.exception() is not None:
        return None
    return future.result().held


def without_pixels(outcome: Embedded) -> Embedded:
    """Return an embedding without pixels, whose place is given back."""
    return Embedded(
        outcome.image,
        intake_s=outcome.intake_s,
        wait_s=outcome.wait_s,
        model_s=outcome.model_s,
        is_new=outcome.is_new,
    )
