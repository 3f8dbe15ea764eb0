"""Results that are too large for the ledger: the whole goes to an object, before the job ends."""

import asyncio
import threading
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Final

from labelyard.errors import InvalidMessageError, StorageUnavailableError
from labelyard.messages import MAX_SCORED_LABELS, ImageResult, Job, Result
from labelyard_worker.jobs.cancellation import Token
from labelyard_worker.jobs.delivery.objects import ObjectSender
from labelyard_worker.jobs.delivery.permissions import NotPermittedError
from labelyard_worker.metrics import DELIVERIES

# Of a result in the ledger. 100,000 labels with names of 20 letters take 6 MB.
MAX_RESULT_BYTES: Final = 8 * 1024 * 1024
# A name takes at most 256 characters of 4 bytes each, so fewer names are never too many.
NAMES_THAT_ALWAYS_FIT: Final = 4_000
# Labels, and matched names, that the ledger keeps of each image of a larger result.
KEPT_LABELS: Final = 5


class LargeResults:
    """Writes large results to objects so that the rest fits into the ledger; thread-safe.

    Other results are delivered after the ledger has them. A large one is delivered before:
    the part that the ledger keeps would not be enough for a retry.
    """

    def __init__(self, sender: ObjectSender) -> None:
        self._sender = sender
        self._turn = threading.Lock()

    @contextmanager
    def turn(self, job: Job, *, labels: int, token: Token) -> Iterator[None]:
        """Make one large result at a time: 640,000 scored labels take 200 MB.

        Args:
            labels: Number of labels in the job's label set.

        Raises:
            LabelyardError: The token stopped the job while another large result was made.
        """
        if len(job.images) * min(job.top_k, labels) <= MAX_SCORED_LABELS:
            yield
            return
        token.wait_until(lambda wait_s: self._turn.acquire(timeout=wait_s))
        try:
            yield
        finally:
            self._turn.release()

    def fit(self, job: Job, result: Result) -> Result:
        """Return *result*, or write it to the job's object and return a shortened one.

        Raises:
            InvalidMessageError: It is too large, and the job names no object, or one that
                may not be written.
            StorageUnavailableError: The object was not written; try again.
        """
        names = sum(
            len(image.labels) + len(image.matched) + sum(len(node.path) for node in image.parents)
            for image in result.images
        )
        if names <= NAMES_THAT_ALWAYS_FIT:
            return result
        size_bytes = len(result.model_dump_json().encode())
        if size_bytes <= MAX_RESULT_BYTES:
            return result
        if job.deliver.object_uri is None:
            raise InvalidMessageError(
                f"the result takes {size_bytes} bytes (limit {MAX_RESULT_BYTES}): lower top_k, "
                "raise thresholds, send fewer images in a job, or set deliver.object_uri, which "
                "gets the whole result"
            )
        self._write(job, result)
        images = tuple(shorten(image) for image in result.images)
        return result.model_copy(update={"images": images, "object_uri": job.deliver.object_uri})

    def _write(self, job: Job, result: Result) -> None:
        try:
            # A client of its own: several threads may write at once.
            outcome = asyncio.run(replace(self._sender, _stores=OrderedDict()).send(job, result))
        except NotPermittedError as error:
            DELIVERIES.labels("object", "refused").inc()
            raise InvalidMessageError(
                f"the result is too large for the ledger, and its object is refused: {error}"
            ) from error
        DELIVERIES.labels("object", outcome.kind).inc()
        if outcome.kind != "delivered":
            raise StorageUnavailableError(job.deliver.object_uri or "", outcome.reason)


def shorten(image: ImageResult) -> ImageResult:
    """Return an image's result with its best labels and parents only."""
    return image.model_copy(
        update={
            "labels": image.labels[:KEPT_LABELS],
            "matched": image.matched[:KEPT_LABELS],
            "parents": image.parents[:KEPT_LABELS],
        }
    )
