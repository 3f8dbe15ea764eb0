"""Sample jobs and results, and rules that make results."""

import base64
import hashlib
import struct
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, TypeAlias

from labelyard.errors import ImageNotFoundError, LabelyardError
from labelyard.messages import (
    Failure,
    ImageRef,
    ImageResult,
    ImageVector,
    Job,
    LabelExplanation,
    LabelSet,
    ModelInfo,
    Result,
    ScoredLabel,
    Status,
    Window,
    status_of,
)
from labelyard.settings import ClientSettings
from labelyard.submission import make_job

SAMPLE_URIS: Final = ("s3://photos/cat.jpg", "s3://photos/gone.jpg")
SAMPLE_LABELS: Final = ("cat", "dog", "a bowl of soup")
SAMPLE_MODEL: Final = ModelInfo(
    checkpoint="fake", fingerprint=f"sha256:{'0' * 64}", dtype="float32", device="cpu"
)
#: A map of an explanation: a PNG picture of one red pixel.
SAMPLE_MAP: Final = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAIAAACQd1PeAAAADElEQVR42mP4z8AAAAMBAQD3A0FDAAAAAElFTkSuQmCC"
)
Answer: TypeAlias = Callable[[Job], Result]


def sample_job(**changes: Any) -> Job:
    """Make a valid job of two images; *changes* replace its fields."""
    job = make_job(ClientSettings(), SAMPLE_URIS, SAMPLE_LABELS)
    return job.model_copy(update=changes)


def sample_result(status: Status = "succeeded", *, job: Job | None = None) -> Result:
    """Make the result that *job* would have with this status.

    In a ``partial`` one the last image failed, so the job needs two images.

    Raises:
        ValueError: The job has too few images for the status.
    """
    job = job or sample_job()
    failed = {"succeeded": 0, "partial": 1, "failed": len(job.images)}[status]
    scored = len(job.images) - failed
    images = tuple(
        score_image(image, job) if place < scored else fail_image(image)
        for place, image in enumerate(job.images)
    )
    if status_of(images) != status:
        raise ValueError(f"a job of {len(job.images)} image cannot be {status}")
    return _result(job, images)


def score_image(
    image: ImageRef, job: Job, *, scores: Mapping[str, float] | None = None
) -> ImageResult:
    """Score an image: with *scores* by label, else the first label is the best one."""
    names = (
        [label.name for label in job.label_set.labels]
        if isinstance(job.label_set, LabelSet)
        else ["label"]
    )
    scores = scores or {name: 0.5 ** (place + 1) for place, name in enumerate(names)}
    ranked = sorted(scores.items(), key=lambda pair: -pair[1])
    labels = tuple(ScoredLabel(name=name, score=score) for name, score in ranked[: job.top_k])
    matched = match_labels(ranked, job)
    found = {"width": 640, "height": 480, **(vector_fields(image) if job.vectors else {})}
    if job.explain:
        found["explanations"] = explanations_of(image, job, ranked)
    return ImageResult(id=image.id, uri=image.uri, labels=labels, matched=matched, **found)


def vector_fields(image: ImageRef) -> dict[str, Any]:
    """Return the vector and the digest that an image has by its address: equal for equal ones."""
    digest = hashlib.sha256(image.uri.encode())
    numbers = struct.pack("<16e", *(byte / 255 - 0.5 for byte in digest.digest()[:16]))
    vector = ImageVector(features="joint", float16=base64.b64encode(numbers).decode())
    return {"vector": vector, "sha256": digest.hexdigest()}


def explanations_of(
    image: ImageRef, job: Job, ranked: Sequence[tuple[str, float]]
) -> tuple[LabelExplanation, ...]:
    """Return explanations by which every label was seen in the first window."""
    scores, grid = dict(ranked), job.explain_grid
    rows = tuple(tuple(float(row == column == 0) for column in range(grid)) for row in range(grid))
    number = job.images.index(image)
    found = []
    for place, label in enumerate(job.explain):
        rival = next((name for name, _ in ranked if name != label), None)
        found.append(
            LabelExplanation(
                label=label,
                score=scores.get(label, 0.0),
                drops=rows,
                window=Window(left=0.0, top=0.0, right=1 / grid, bottom=1 / grid),
                seen=Window(left=0.0, top=0.0, right=1.0, bottom=1.0),
                competitor=rival,
                competitor_score=None if rival is None else scores[rival],
                object_uri=f"s3://results/explanations/{job.job_id}/{number}-{place}.png",
            )
        )
    return tuple(found)


def match_labels(ranked: Sequence[tuple[str, float]], job: Job) -> tuple[str, ...]:
    """Return the matched labels: by their thresholds, else by the label set's scoring."""
    thresholds: dict[str, float | None] = {}
    is_sigmoid = False
    if isinstance(job.label_set, LabelSet):
        thresholds = {label.name: label.threshold for label in job.label_set.labels}
        is_sigmoid = job.label_set.scoring == "sigmoid"
    matched = []
    for place, (name, score) in enumerate(ranked):
        threshold = thresholds.get(name)
        if threshold is None and is_sigmoid:
            threshold = 0.5
        if score >= threshold if threshold is not None else place == 0:
            matched.append(name)
    return tuple(matched)


def fail_job(job: Job, error: LabelyardError) -> Result:
    """Fail a whole job."""
    return Result(job_id=job.job_id, status="failed", tenant=job.tenant, error=Failure.of(error))


def fail_image(image: ImageRef, error: LabelyardError | None = None) -> ImageResult:
    """Fail an image, with ``image_not_found`` if no other error is given."""
    failure = Failure.of(error or ImageNotFoundError(image.uri))
    return ImageResult(id=image.id, uri=image.uri, error=failure)


def _result(job: Job, images: tuple[ImageResult, ...]) -> Result:
    return Result(
        job_id=job.job_id,
        status=status_of(images),
        tenant=job.tenant,
        model=SAMPLE_MODEL,
        images=images,
    )


def answer_by_scores(scores: Mapping[str, Mapping[str, float] | LabelyardError]) -> Answer:
    """Make a rule that answers by address, and for other addresses as by default.

    Args:
        scores: For an address its score for each label, or the error it fails with.
    """

    def answer(job: Job) -> Result:
        images = []
        for image in job.images:
            known = scores.get(image.uri)
            if isinstance(known, LabelyardError):
                images.append(fail_image(image, known))
            else:
                images.append(score_image(image, job, scores=known))
        return _result(job, tuple(images))

    return answer
