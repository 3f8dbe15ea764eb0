"""Outcomes of images: each is an embedding or an error; an error of the whole job is raised."""

from concurrent.futures import Future

import numpy as np

from labelyard.errors import ImageError, ScoresNotFiniteError, TransientError
from labelyard.messages import ImageRef, Job
from labelyard_worker.image_pipeline import Embedded
from labelyard_worker.intake.image_uri import redact
from labelyard_worker.intake.storage_away import StorageAwayError
from labelyard_worker.jobs.cancellation import Token

ImageOutcome = Embedded | ImageError | TransientError


def wait_for_images(
    job: Job, futures: "list[Future[Embedded]]", token: Token
) -> list[ImageOutcome]:
    """Wait for the embeddings of all images; if the job ends first, withdraw the rest."""
    try:
        return [
            wait_for_image(image, future, token)
            for image, future in zip(job.images, futures, strict=True)
        ]
    finally:
        for future in futures:
            future.cancel()


def wait_for_image(image: ImageRef, future: "Future[Embedded]", token: Token) -> ImageOutcome:
    """Wait for one image's embedding or error; errors that are not the image's are raised."""
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
    """Refuse an embedding from which no score can be computed, before it is cached or scored.

    Raises:
        ScoresNotFiniteError: It holds NaN or infinity, which JSON cannot write.
    """
    if not np.isfinite(embedded.image.image_embeds).all():
        raise ScoresNotFiniteError(redact(image.uri), "the model's embedding is not finite")


def raise_if_storage_is_away(outcomes: list[ImageOutcome]) -> None:
    """Postpone the job if a bucket or host fails as a whole; its embeddings stay cached.

    Raises:
        StorageAwayError: A bucket or host fails as a whole.
    """
    for outcome in outcomes:
        if isinstance(outcome, StorageAwayError):
            raise outcome
