"""The main path of a job: its images are embedded, scored against its label set, and answered.

Celery is in ``tasks.py``; attempts, retries and the ledger are in ``jobs/``; the way from an
image's address to its embedding is in ``embedding.py``, ``intake/`` and ``vision/``.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial

from labelyard.label_sets import LabelSetRegistry
from labelyard.messages import (
    Failure,
    ImageRef,
    ImageResult,
    Job,
    LabelSet,
    ModelInfo,
    Result,
    Timing,
    status_of,
)
from labelyard.queues import Priority
from labelyard_worker import spans
from labelyard_worker.canary import ComparedResult, compare_with_canary
from labelyard_worker.embedding import Embedded, Embedder
from labelyard_worker.explainer import Explainer, Explanations
from labelyard_worker.image_outcomes import (
    ImageOutcome,
    raise_if_storage_is_away,
    wait_for_images,
)
from labelyard_worker.jobs.cancellation import Token
from labelyard_worker.jobs.delivery.large_results import LargeResults
from labelyard_worker.observations import timed
from labelyard_worker.vision.label_index import LabelIndex
from labelyard_worker.vision.ranking import ImageScores
from labelyard_worker.vision.scorer import Scorer
from labelyard_worker.vision.scoring import Floats, LabelMatrix


@dataclass(frozen=True)
class Classifier:
    """Classifies jobs with one model; one object for a worker process, called by many threads."""

    label_index: LabelIndex
    label_sets: LabelSetRegistry
    embedder: Embedder
    scorer: Scorer
    explainer: Explainer
    large_results: LargeResults
    model: ModelInfo

    def classify(self, job: Job, *, priority: Priority, token: Token) -> Result:
        """Score every image of *job* against the job's label set.

        Returns:
            A result with each image in the job's order. The entry of a failed image holds
            its error; its neighbours are not affected.

        Raises:
            RequestError: The label set is unknown, or the result is too large; do not retry.
            TransientError: The token's time is over, or a large result's object could not be
                written; retry.
            WorkerError: The model or the device failed; another worker must run the job.
            LabelyardError: The job is cancelled, expired or handed back.
        """
        with spans.stage("labels"):
            labels = self._label_matrix(job.label_set, priority=priority, token=token)
        explanations: Sequence[Explanations] = ()
        if job.explain:
            outcomes, explanations = self.explainer.explain(
                job, labels, priority=priority, token=token
            )
        else:
            embed = self.embedder.recall if job.rescore else self.embedder.embed
            futures = embed(job, priority=priority, is_wanted=token.check)
            outcomes = wait_for_images(job, futures, token)
        self.embedder.keep(job.images, outcomes)
        raise_if_storage_is_away(outcomes)
        texts = texts_of(job, outcomes)
        titles = self.label_index.title_vectors(texts, labels, token=token, priority=priority)
        with self.large_results.turn(job, labels=labels.n_labels, token=token):
            with spans.stage("score"), timed("score", priority):
                images = self._score_images(job, outcomes, labels, titles)
                images = with_explanations(images, explanations)
            result = Result(
                job_id=job.job_id,
                status=status_of(images),
                tenant=job.tenant,
                model=self.model,
                label_set=labels.digest,
                images=images,
                timing=slowest_timing(outcomes),
            )
            result = self.large_results.fit(job, result)
        if job.canary is None:
            return result
        comparison = self._compare(job, images, outcomes, priority=priority, token=token)
        return ComparedResult.of(result, comparison)

    def _compare(
        self,
        job: Job,
        images: tuple[ImageResult, ...],
        outcomes: list[ImageOutcome],
        *,
        priority: Priority,
        token: Token,
    ) -> dict[str, int]:
        """Score the embeddings with the job's canary, too, and count how its answers differ."""

        def score() -> list[ImageScores]:
            labels = self._label_matrix(job.canary or "", priority=priority, token=token)
            texts = texts_of(job, outcomes)
            titles = self.label_index.title_vectors(texts, labels, token=token, priority=priority)
            embeds = [each.image.image_embeds for each in outcomes if isinstance(each, Embedded)]
            return self.scorer.score(embeds, labels, top_k=1, titles=titles)

        return compare_with_canary(job, images, score)

    def _label_matrix(
        self, labels: LabelSet | str, *, priority: Priority, token: Token
    ) -> LabelMatrix:
        """Return the matrix of a label set; a registered set is known by its digest."""
        if isinstance(labels, LabelSet):
            return self.label_index.matrix(labels, token=token, priority=priority)
        digest = labels.rpartition("@")[2]
        load = partial(self.label_sets.get, labels)
        return self.label_index.registered(digest, load, token=token, priority=priority)

    def _score_images(
        self,
        job: Job,
        outcomes: list[ImageOutcome],
        labels: LabelMatrix,
        titles: "list[Floats | None]",
    ) -> tuple[ImageResult, ...]:
        """Score all embedded images in one matrix product; the others are answered by errors."""
        embeds = [each.image.image_embeds for each in outcomes if isinstance(each, Embedded)]
        scores = iter(self.scorer.score(embeds, labels, top_k=job.top_k, titles=titles))
        images = tuple(
            to_image_result(image, outcome, scores)
            for image, outcome in zip(job.images, outcomes, strict=True)
        )
        return images if not job.vectors else self._with_vectors(images, outcomes)

    def _with_vectors(
        self, images: tuple[ImageResult, ...], outcomes: list[ImageOutcome]
    ) -> tuple[ImageResult, ...]:
        return tuple(
            image.model_copy(update={"vector": self.scorer.vector_of(outcome.image.image_embeds)})
            if isinstance(outcome, Embedded)
            else image
            for image, outcome in zip(images, outcomes, strict=True)
        )


def texts_of(job: Job, outcomes: list[ImageOutcome]) -> list[str | None]:
    """Return the text beside each embedded image."""
    return [
        image.text
        for image, outcome in zip(job.images, outcomes, strict=True)
        if isinstance(outcome, Embedded)
    ]


def with_explanations(
    images: tuple[ImageResult, ...], explanations: Sequence[Explanations]
) -> tuple[ImageResult, ...]:
    """Return the results of images with their explanations, if the job wants some."""
    if not explanations:
        return images
    return tuple(
        image.model_copy(update={"explanations": found}) if image.error is None else image
        for image, found in zip(images, explanations, strict=True)
    )


def to_image_result(
    image: ImageRef, outcome: ImageOutcome, scores: Iterator[ImageScores]
) -> ImageResult:
    """Return the result of one image; take the next scores if the image has an embedding."""
    if not isinstance(outcome, Embedded):
        return ImageResult(id=image.id, uri=image.uri, error=Failure.of(outcome))
    known, found = outcome.image, next(scores)
    return ImageResult(
        id=image.id,
        uri=image.uri,
        **known.facts.to_fields(),
        labels=found.labels,
        matched=found.matched,
        abstained=found.abstained,
        abstained_because=found.because,
        fit=found.fit,
        parents=found.parents,
        node=found.node,
        title=found.title,
    )


def slowest_timing(outcomes: list[ImageOutcome]) -> Timing:
    """Return the seconds of the slowest image in each stage."""
    embedded = [outcome for outcome in outcomes if isinstance(outcome, Embedded)]
    return Timing(
        intake_s=max((image.intake_s for image in embedded), default=0.0),
        batch_wait_s=max((image.wait_s for image in embedded), default=0.0),
        model_s=max((image.model_s for image in embedded), default=0.0),
    )
