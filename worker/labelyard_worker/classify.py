"""The main path: one job's pictures, scored against its labels.

Celery is in ``tasks.py``; what guards an attempt is in ``durability/``; how a picture
becomes an embedding is in ``embedding.py``, ``intake/`` and ``vision/``.
"""

from concurrent.futures import Future
from functools import partial

import numpy as np

from labelyard.errors import ImageError, ScoresNotFiniteError, TransientError
from labelyard.messages import (
    Failure,
    ImageRef,
    ImageResult,
    Job,
    LabelSet,
    Result,
    Timing,
    status_of,
)
from labelyard_worker.embedding import Embedded
from labelyard_worker.intake.image_uri import redact
from labelyard_worker.intake.source_health import StorageAwayError
from labelyard_worker.jobs.cancellation import Token
from labelyard_worker.services import Services
from labelyard_worker.vision.batch_queue import Priority
from labelyard_worker.vision.image_cache import KnownImage
from labelyard_worker.vision.scoring import ImageScores, LabelMatrix

ImageOutcome = Embedded | ImageError | TransientError


def classify(job: Job, services: Services, *, priority: Priority, token: Token) -> Result:
    """Score every image of *job* against its labels.

    Returns:
        A result with each image in the job's order. An image that has no scores says
        why; its neighbours are not touched by it.

    Raises:
        RequestError: The label set is unknown, or the result is too large; do not retry.
        TransientError: The token's time is over, or a large result's object could not be
            written; retry.
        WorkerError: The model or the device failed; another worker must do it.
        LabelyardError: The job is cancelled, expired or handed back.
    """
    labels = labels_of(job, services, priority=priority, token=token)
    find = services.embedder.recall if job.rescore else services.embedder.embed
    on_their_way = find(job, priority=priority, is_wanted=token.check)
    outcomes = outcomes_of(job, on_their_way, token)
    services.embedder.keep(job.images, outcomes)
    wait_if_storage_is_away(outcomes)
    with services.large_results.turn(job, labels=labels.n_labels, token=token):
        images = describe_all(job, outcomes, labels, services)
        result = Result(
            job_id=job.job_id,
            status=status_of(images),
            tenant=job.tenant,
            model=services.checkpoint.info,
            label_set=labels.digest,
            images=images,
            timing=timing_of(outcomes),
        )
        return services.large_results.fit(job, result)


def labels_of(job: Job, services: Services, *, priority: Priority, token: Token) -> LabelMatrix:
    """Get the matrix of the job's label set; a reference names it without hashing the set."""
    labels, index = job.label_set, services.label_index
    if isinstance(labels, LabelSet):
        return index.matrix(labels, token=token, priority=priority)
    digest = labels.rpartition("@")[2]
    load = partial(services.label_sets.get, labels)
    return index.registered(digest, load, token=token, priority=priority)


def outcomes_of(
    job: Job, on_their_way: "list[Future[Embedded]]", token: Token
) -> list[ImageOutcome]:
    """Wait for all images; if the job ends before, withdraw those that are not there yet."""
    try:
        return [
            outcome_of(image, future, token)
            for image, future in zip(job.images, on_their_way, strict=True)
        ]
    finally:
        for future in on_their_way:
            future.cancel()


def wait_if_storage_is_away(outcomes: list[ImageOutcome]) -> None:
    """Have the job sent again later if a bucket or host fails as a whole.

    Raises:
        StorageAwayError: One does; the embeddings that were made are kept meanwhile.
    """
    for outcome in outcomes:
        if isinstance(outcome, StorageAwayError):
            raise outcome


def outcome_of(image: ImageRef, future: "Future[Embedded]", token: Token) -> ImageOutcome:
    """Wait for one image; its own errors are its outcome, all others are the job's."""
    try:
        embedded = token.wait(future)
        check_is_finite(image, embedded)
    except ImageError as error:
        return error
    except TransientError as error:
        token.check()  # the job's own time is over: that is not an outcome of the image
        return error
    return embedded


def check_is_finite(image: ImageRef, embedded: Embedded) -> None:
    """Refuse an embedding of which no score can be made, before it is cached or scored.

    Raises:
        ScoresNotFiniteError: It holds NaN or infinity, which JSON cannot write.
    """
    if not np.isfinite(embedded.image.image_embeds).all():
        raise ScoresNotFiniteError(redact(image.uri), "the model's embedding is not finite")


def describe_all(
    job: Job, outcomes: list[ImageOutcome], labels: LabelMatrix, services: Services
) -> tuple[ImageResult, ...]:
    """Score all images that have an embedding; the others say why they have none."""
    embeds = [each.image.image_embeds for each in outcomes if isinstance(each, Embedded)]
    scores = iter(services.score(embeds, labels, top_k=job.top_k))
    return tuple(
        scored(image, outcome.image, next(scores))
        if isinstance(outcome, Embedded)
        else ImageResult(id=image.id, uri=image.uri, error=Failure.of(outcome))
        for image, outcome in zip(job.images, outcomes, strict=True)
    )


def scored(image: ImageRef, known: KnownImage, scores: ImageScores) -> ImageResult:
    """Return the result of one image."""
    return ImageResult(
        id=image.id,
        uri=image.uri,
        etag=known.etag,
        sha256=known.sha256,
        width=known.width,
        height=known.height,
        labels=scores.labels,
        matched=scores.matched,
        abstained=scores.abstained,
    )


def timing_of(outcomes: list[ImageOutcome]) -> Timing:
    """Take the slowest image of each stage."""
    done = [outcome for outcome in outcomes if isinstance(outcome, Embedded)]
    return Timing(
        intake_s=max((image.intake_s for image in done), default=0.0),
        batch_wait_s=max((image.wait_s for image in done), default=0.0),
        model_s=max((image.model_s for image in done), default=0.0),
    )
