"""Sample jobs and results, and rules that make results."""

import base64
import hashlib
import struct
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, Literal, TypeAlias

from labelyard.errors import ImageNotFoundError, LabelyardError
from labelyard.hierarchy import Hierarchy
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
    image: ImageRef,
    job: Job,
    *,
    scores: Mapping[str, float] | None = None,
    fit: float | None = None,
) -> ImageResult:
    """Score an image: with *scores* by label, else the first label is the best one.

    Args:
        fit: The best score if it is not given.
    """
    names = (
        [label.name for label in job.label_set.labels]
        if isinstance(job.label_set, LabelSet)
        else ["label"]
    )
    scores = scores or {name: 0.5 ** (place + 1) for place, name in enumerate(names)}
    ranked = sorted(scores.items(), key=lambda pair: -pair[1])
    labels = tuple(ScoredLabel(name=name, score=score) for name, score in ranked[: job.top_k])
    found: dict[str, Any] = {"width": 640, "height": 480}
    found["fit"] = max(scores.values(), default=0.0) if fit is None else fit
    found["matched"] = match_labels(ranked, job)
    found |= vector_fields(image) if job.vectors else {}
    if job.explain:
        found["explanations"] = explanations_of(image, job, ranked)
    if isinstance(job.label_set, LabelSet):
        found |= limit_fields(job.label_set, found["fit"]) | node_fields(job, scores)
    if found.get("abstained"):
        found |= {"matched": (), "node": None}
    elif not found["matched"]:
        found["abstained_because"] = "below_threshold"
    return ImageResult(id=image.id, uri=image.uri, labels=labels, **found)


def limit_fields(label_set: LabelSet, fit: float) -> dict[str, Any]:
    """Return that an image is abstained, if its fit is below the limit of the set."""
    limit = None if label_set.learned is None else label_set.learned.none_of_these
    if limit is None or fit >= limit.limit:
        return {}
    return {"abstained": True, "abstained_because": "none_of_these"}


def node_fields(job: Job, scores: Mapping[str, float]) -> dict[str, Any]:
    """Return the parents and the node of an image, if the set has a hierarchy."""
    label_set = job.label_set
    tree = Hierarchy.of(label_set) if isinstance(label_set, LabelSet) else None
    if tree is None or not isinstance(label_set, LabelSet):
        return {}
    of_labels = [scores.get(label.name, 0.0) for label in label_set.labels]
    scoring: Literal["softmax", "sigmoid"]
    scoring = "sigmoid" if label_set.scoring == "sigmoid" else "softmax"
    above = tree.parent_scores(of_labels, scoring)
    ranked = sorted(range(len(above)), key=lambda place: -above[place])
    named = len(ranked) if job.top_k >= len(of_labels) else job.top_k
    every = [*of_labels, *above]
    node = tree.deepest(every)
    return {
        "parents": [
            {"path": tree.parents[place], "score": above[place]} for place in ranked[:named]
        ],
        "node": None if node is None else {"path": tree.nodes[node], "score": every[node]},
    }


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


def answer_by_scores(
    scores: Mapping[str, Mapping[str, float] | LabelyardError],
    *,
    fits: Mapping[str, float] | None = None,
) -> Answer:
    """Make a rule that answers by address, and for other addresses as by default.

    Args:
        scores: For an address its score for each label, or the error it fails with.
        fits: For an address its fit; the best score for others.
    """
    fits = fits or {}

    def answer(job: Job) -> Result:
        images = []
        for image in job.images:
            known = scores.get(image.uri)
            if isinstance(known, LabelyardError):
                images.append(fail_image(image, known))
            else:
                fit = fits.get(image.uri)
                images.append(score_image(image, job, scores=known, fit=fit))
        return _result(job, tuple(images))

    return answer
