"""Results as consumers read them: scores or an error for each image of a job."""

from collections.abc import Iterable
from typing import Any, ClassVar, Literal, Self

from pydantic import ConfigDict, Field

from labelyard.errors import LabelyardError, all_errors
from labelyard.messages.explanation import LabelExplanation
from labelyard.messages.job import VERSION
from labelyard.messages.learned import FeatureSpace
from labelyard.messages.models import Report, is_none
from labelyard.messages.result_html import result_html
from labelyard.messages.result_rows import Row, image_row
from labelyard.messages.short_forms import Shown, cut, first_of

Status = Literal["succeeded", "partial", "failed"]
#: Why an image was given no label: its ``fit`` is below the set's limit; an *abstain* prompt fitted
#: better; no label reached its threshold.
AbstainedBecause = Literal["none_of_these", "abstain_prompt", "below_threshold"]


class Failure(Report):
    """The error of an image, or of a whole job, as consumers read it.

    Attributes:
        code: Stable name, listed in docs/errors.md.
        message: The same for a person.
        is_retryable: Whether the same request may succeed later (``retryable`` on
            the wire).
    """

    model_config: ClassVar[ConfigDict] = ConfigDict(populate_by_name=True, serialize_by_alias=True)

    code: str
    message: str
    is_retryable: bool = Field(alias="retryable")

    @classmethod
    def of(cls, error: LabelyardError) -> Self:
        """Describe *error* for the consumer."""
        return cls(code=error.code, message=str(error), is_retryable=error.is_retryable)

    def to_error(self) -> LabelyardError:
        """Return the error that was described, of the class with its code."""
        text = self.message.removeprefix(f"{self.code}: ")
        found = next((cls for cls in all_errors() if cls.code == self.code), LabelyardError)
        return found(text)


class ScoredLabel(Report):
    """A label and its score, 0 to 1; never NaN or infinite, which JSON cannot write."""

    name: str
    score: float = Field(allow_inf_nan=False)


class ScoredNode(Report):
    """A node of a label set's hierarchy and its score.

    Attributes:
        path: Names from the root down to the node; that of a label ends with the label.
        score: Under softmax the sum of the labels below, under sigmoid the largest of them.
    """

    path: tuple[str, ...]
    score: float = Field(allow_inf_nan=False)


class ImageVector(Report):
    """Vector of an image that examples are compared by.

    Attributes:
        features: Which vector of the checkpoint it is; see ``Examples``.
        float16: Its numbers, 16 bits each with the low byte first, in base64.
    """

    features: FeatureSpace
    float16: str


class TitleFinding(Report):
    """Comparison of an image with the text beside it.

    Attributes:
        label: The best label by the text alone.
        score: Its share by the text alone.
        agreement: Probability that image and text are of one label, if that was even before: 0.5
            says that one of them says nothing.
        agrees: ``False`` if they contradict each other: the agreement is below 0.05. A person
            should look.
    """

    label: str
    score: float = Field(allow_inf_nan=False)
    agreement: float = Field(allow_inf_nan=False)
    agrees: bool


class ImageResult(Report):
    """Result of one image.

    Attributes:
        etag: The object's ETag as read.
        sha256: Digest of the bytes as read, lower-case hex.
        width: Pixels, after EXIF orientation.
        height: Pixels, after EXIF orientation.
        labels: The best ``top_k`` labels, best first.
        matched: Names of the labels that reached their threshold, best first.
        abstained: Whether the set said "none of these": by an ``abstain`` prompt, or by its limit.
        error: Why there are no labels, or ``None``.
        title: Comparison with the text beside the image, if the label set reads titles and there is
            one. Left out otherwise.
        vector: Vector of the image, if the job wants vectors. Left out otherwise.
        explanations: Of the labels that the job wants explained, in its order. Left out otherwise.
        abstained_because: Why nothing is *matched*. Left out if a label is.
        fit: Cosine of the image to the text of the label that fits best; if every label has
            examples, the mean of that and the cosine to the nearest example. Left out by older
            workers.
        parents: The best ``top_k`` parents of labels, best first; all of them if ``top_k`` takes
            every label. Left out without a hierarchy, as is ``node``.
        node: The deepest node that passes its threshold, a parent or a label; none passes if it
            is left out.
    """

    id: str
    uri: str
    etag: str | None = None
    sha256: str | None = None
    width: int | None = None
    height: int | None = None
    labels: tuple[ScoredLabel, ...] = ()
    matched: tuple[str, ...] = ()
    abstained: bool = False
    error: Failure | None = None
    vector: ImageVector | None = Field(default=None, exclude_if=is_none)
    explanations: tuple[LabelExplanation, ...] = Field(
        default=(), exclude_if=lambda explanations: not explanations
    )
    abstained_because: AbstainedBecause | None = Field(default=None, exclude_if=is_none)
    fit: float | None = Field(default=None, allow_inf_nan=False, exclude_if=is_none)
    parents: tuple[ScoredNode, ...] = Field(default=(), exclude_if=lambda parents: not parents)
    node: ScoredNode | None = Field(default=None, exclude_if=is_none)
    title: TitleFinding | None = Field(default=None, exclude_if=is_none)

    def __repr_args__(self) -> Iterable[tuple[str | None, Any]]:
        """Yield the id, and the best label or the error, for ``repr`` and ``str``."""
        yield "id", cut(self.id)
        if self.error is not None:
            yield "error", self.error.code
        elif self.abstained:
            yield "abstained", True
        elif self.labels:
            yield "label", cut(self.labels[0].name)
            yield "score", round(self.labels[0].score, 3)


class ModelInfo(Report):
    """The model that scored, exactly enough to reproduce it."""

    checkpoint: str
    fingerprint: str
    dtype: str
    device: str


class Timing(Report):
    """Seconds that each stage of the job took.

    Attributes:
        queued_s: From submission to the start of the last attempt.
        intake_s: Slowest image: fetch, check, decode, resize.
        batch_wait_s: Slowest image: waiting for its batch.
        model_s: Slowest image: the forward pass of its batch.
    """

    queued_s: float = 0.0
    intake_s: float = 0.0
    batch_wait_s: float = 0.0
    model_s: float = 0.0


class Result(Report):
    """Result of a job. One image's error never fails its neighbours.

    Attributes:
        status: ``succeeded`` (every image has scores), ``partial`` or ``failed``.
        label_set: Digest of the label set that was used, ``None`` if none was reached.
        model: ``None`` when the job failed before a model saw it.
        error: Why the whole job failed, or ``None``.
        object_uri: Where the whole result is, if it was too large for the ledger: then
            ``labels``, ``matched`` and ``parents`` are only the first five of each image.
            Left out otherwise.
    """

    version: Literal[1] = VERSION
    job_id: str
    status: Status
    tenant: str
    model: ModelInfo | None = None
    label_set: str | None = None
    images: tuple[ImageResult, ...] = ()
    error: Failure | None = None
    timing: Timing = Timing()
    object_uri: str | None = Field(default=None, exclude_if=lambda uri: uri is None)

    def rows(self) -> list[Row]:
        """Return a flat dict for each image, as ``pandas.DataFrame(result.rows())`` takes them.

        Returns:
            In the order of the images: ``job_id``, ``id``, ``uri``, ``status``, the best
            ``label`` and its ``score``, ``matched`` (names with ``; `` between them),
            ``abstained``, ``error`` (a code), ``message``, ``abstained_because``, ``fit``, and of a
            hierarchy ``node`` with ``node_score`` and ``parents``; then ``label_2``, ``score_2``
            and so on for the other labels. What an image does not have is ``None``.
        """
        return [image_row(image, job_id=self.job_id) for image in self.images]

    def __repr_args__(self) -> Iterable[tuple[str | None, Any]]:
        """Yield a summary for ``repr`` and ``str``; :meth:`model_dump` has everything."""
        yield "job_id", self.job_id
        yield "status", self.status
        if self.error is not None:
            yield "error", self.error.code
        yield "images", first_of(map(_summary, self.images), total=len(self.images))

    def _repr_html_(self) -> str:
        """Return a table, which notebooks show."""
        return result_html(self)


def _summary(image: ImageResult) -> str:
    if image.error is not None:
        outcome = image.error.code
    elif image.abstained or not image.labels:
        outcome = "none of these"
    else:
        outcome = f"{cut(image.labels[0].name)} {image.labels[0].score:.3f}"
    return Shown(f"{cut(image.id)}: {outcome}")


def status_of(images: tuple[ImageResult, ...]) -> Status:
    """Derive a job's status from its images."""
    failed = sum(image.error is not None for image in images)
    if failed == 0:
        return "succeeded"
    return "failed" if failed == len(images) else "partial"
