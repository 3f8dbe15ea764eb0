"""The call ``explain`` of both clients: where in a picture a label was seen."""

import asyncio
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Unpack

from labelyard.errors import (
    InvalidMessageError,
    ResultUnreadableError,
)
from labelyard.evaluation.object_calls import ObjectCalls
from labelyard.local_paths import is_file, printable
from labelyard.messages import ImageResult, LabelExplanation, Result
from labelyard.messages.explanation import DEFAULT_GRID
from labelyard.queues import Queue, SubmitQueue
from labelyard.submission import Image, JobOptions, Labels


@dataclass(frozen=True)
class ExplainedImage:
    """An explanation of one label of one picture.

    Attributes:
        explanation: Where the label was seen, and which label competed.
        image: The picture's scores.
        png: The map, laid over what the model sees.
    """

    explanation: LabelExplanation
    image: ImageResult
    png: bytes

    def write(self, path: str | Path) -> Path:
        """Write the map to a file, and return its path."""
        file = Path(path)
        file.write_bytes(self.png)
        return file


class ExplanationCalls(ObjectCalls):
    """Call of :class:`labelyard.Client` that explains a label."""

    if TYPE_CHECKING:

        def classify(
            self,
            images: Iterable[Image],
            labels: Labels,
            *,
            timeout_s: float = ...,
            queue: SubmitQueue = ...,
            **options: Unpack[JobOptions],
        ) -> Result: ...

    def explain(
        self,
        image: Image | Path,
        label: str,
        labels: Labels,
        *,
        grid: int = DEFAULT_GRID,
        timeout_s: float = 60.0,
        queue: SubmitQueue = Queue.INTERACTIVE,
    ) -> ExplainedImage:
        """Find where in a picture a label was seen: hide one window after the other.

        Args:
            image: An address, ``(id, address)``, an ``ImageRef``, or a local file, which is
                uploaded.
            label: The label to explain, one of *labels*.
            labels: Names, ``Label`` objects, a ``LabelSet``, or ``name@sha256:…``.
            grid: Windows along each side, 2 to 8; each window costs one extra image.
            timeout_s: Seconds to wait for the result.
            queue: As for ``submit``.

        Raises:
            InvalidMessageError: An argument is wrong, or the workers may write no maps.
            ImageError: The picture cannot be scored; the class says why.
            LabelyardError: As ``submit`` and ``result`` raise it, and the job's own error.
            ServiceConfigError: S3 refused the upload or the map, or boto3 is missing.
            StorageUnavailableError: S3 gave no usable answer.
        """
        image = image_of(image, self._upload)
        result = self.classify(
            [image], labels, timeout_s=timeout_s, queue=queue, explain=[label], explain_grid=grid
        )
        found = explained_image(result)
        (explanation,) = found.explanations
        return ExplainedImage(explanation, found, self._read_map(explanation.object_uri))


class AsyncExplanationCalls(ObjectCalls):
    """Call of :class:`labelyard.AsyncClient` that explains a label."""

    if TYPE_CHECKING:

        async def classify(
            self,
            images: Iterable[Image],
            labels: Labels,
            *,
            timeout_s: float = ...,
            queue: SubmitQueue = ...,
            **options: Unpack[JobOptions],
        ) -> Result: ...

    async def explain(
        self,
        image: Image | Path,
        label: str,
        labels: Labels,
        *,
        grid: int = DEFAULT_GRID,
        timeout_s: float = 60.0,
        queue: SubmitQueue = Queue.INTERACTIVE,
    ) -> ExplainedImage:
        """Find where in a picture a label was seen: hide one window after the other."""
        image = await asyncio.to_thread(image_of, image, self._upload)
        result = await self.classify(
            [image], labels, timeout_s=timeout_s, queue=queue, explain=[label], explain_grid=grid
        )
        found = explained_image(result)
        (explanation,) = found.explanations
        png = await asyncio.to_thread(self._read_map, explanation.object_uri)
        return ExplainedImage(explanation, found, png)


def image_of(image: Image | Path, upload: Any) -> Image:
    """Return an image for a job; a local file is uploaded.

    Raises:
        InvalidMessageError: There is no such file.
    """
    if isinstance(image, str) and "://" not in image:
        image = Path(image)
    if not isinstance(image, Path):
        return image
    if not is_file(image):
        raise InvalidMessageError(f"image: there is no file {printable(image)}")
    uri: str = upload([image])[image]
    return uri


def explained_image(result: Result) -> ImageResult:
    """Return the one image of a result.

    Raises:
        LabelyardError: The error of the job or of the image.
        ResultUnreadableError: The worker explained nothing.
    """
    image = result.images[0] if result.images else None
    failure = result.error or (image.error if image is not None else None)
    if failure is not None:
        raise failure.to_error()
    if image is None or len(image.explanations) != 1:
        raise ResultUnreadableError(f"{result.job_id}: the result has no explanation")
    return image
