"""Messages that cross the broker, and nothing else.

A field is never renamed and never changes its meaning. A new field is optional,
and workers are upgraded before the producers that send it, because a worker
refuses a field that it does not know: a misspelt one must not pass in silence.
A change that an older worker would misread gets a new ``version``; workers read
the last two. Readers of results ignore fields that they do not know.
"""

import uuid
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, ClassVar, Final, Literal, Self

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    field_validator,
    model_validator,
)
from pydantic._internal._model_construction import ModelMetaclass

from labelyard.errors import InvalidMessageError, LabelyardError
from labelyard.fields import (
    MAX_LABELS,
    MAX_TRACE_ENTRIES,
    ETag,
    ImageUri,
    Instant,
    JobId,
    LabelSetRef,
    Name,
    ObjectUri,
    Prompt,
    StreamName,
    Switch,
    Temperature,
    Template,
    Tenant,
    Threshold,
    TopK,
    TraceKey,
    TraceValue,
    VersionId,
)
from labelyard.refusals import sentences_of
from labelyard.webhooks import WebhookAddress

VERSION: Final = 1
MAX_IMAGES = 64
MAX_INLINE_LABELS = 1_000
# Prompts are labels times templates: each costs milliseconds of the text tower, once.
MAX_INLINE_PROMPTS = 10_000
MAX_REGISTERED_PROMPTS = 100_000
# Scored labels in one result, about 5 MB of JSON; a larger one goes to an object.
MAX_SCORED_LABELS = 100_000
DEFAULT_TEMPLATE = "This is a photo of {}."

Scoring = Literal["auto", "softmax", "sigmoid"]
Status = Literal["succeeded", "partial", "failed"]


class _Refusing(ModelMetaclass):
    """Metaclass of models that raise InvalidMessageError in place of pydantic's ValidationError."""

    if not TYPE_CHECKING:  # checkers read the signature of the model's own __init__

        def __call__(self, *args: Any, **fields: Any) -> Any:
            """Make a model.

            Raises:
                InvalidMessageError: A field is refused; the text names it.
            """
            try:
                return super().__call__(*args, **fields)
            except ValidationError as error:
                raise refusal_of(error) from error


class Message(BaseModel, metaclass=_Refusing):
    """Base of the models that producers write: frozen, and strict about unknown fields."""

    model_config: ClassVar[ConfigDict] = ConfigDict(frozen=True, extra="forbid")


class Report(BaseModel):
    """Base of the models that workers write: frozen, and open to fields of newer versions."""

    model_config: ClassVar[ConfigDict] = ConfigDict(frozen=True, extra="ignore")


class ImageRef(Message):
    """One picture of a job.

    Attributes:
        id: The producer's own name for the picture, unique in the job.
        uri: Where the worker reads it: ``s3://bucket/key``, or ``https://…`` where
            the operator allows it. A bad one fails this image alone.
        version_id: Version of the object, in a bucket that keeps versions.
        etag: The object must still have this ETag, else ``image_not_found``.
    """

    id: Name
    uri: ImageUri
    version_id: VersionId | None = None
    etag: ETag | None = None


class Label(Message):
    """One thing that a picture may show.

    Attributes:
        name: What results call it; also what a template's ``{}`` becomes.
        prompts: Whole sentences to use in place of the templates.
        threshold: Score from which the label is *matched*. Without one a label is
            matched when it is the best (softmax) or scores 0.5 or more (sigmoid).
    """

    name: Name
    prompts: tuple[Prompt, ...] = Field(default=(), max_length=100)
    threshold: Threshold | None = None


class LabelSet(Message):
    """Labels, their prompts, and how scores are made of them.

    Attributes:
        labels: 1 to 10,000 labels with distinct names; more than 1,000 must be
            registered and referred to, not sent inline.
        templates: Sentences with one ``{}`` each for the label's name. Several are
            averaged (Radford et al. 2021, section 3.1.4).
        scoring: ``softmax`` (one label fits), ``sigmoid`` (each by itself), ``auto``
            (what the checkpoint was trained for).
        temperature: Divides the logits, 0.000001 to 1000; above 1 the scores are less sure.
        abstain: Whole sentences that mean "none of these". When one of them fits
            best, the image is *abstained* and nothing is matched.
    """

    labels: tuple[Label, ...] = Field(min_length=1, max_length=MAX_LABELS)
    templates: tuple[Template, ...] = Field(
        default=(DEFAULT_TEMPLATE,), min_length=1, max_length=100
    )
    scoring: Scoring = "auto"
    temperature: Temperature = 1.0
    abstain: tuple[Prompt, ...] = Field(default=(), max_length=100)

    @field_validator("labels")
    @classmethod
    def _names_are_distinct(cls, labels: tuple[Label, ...]) -> tuple[Label, ...]:
        if len({label.name for label in labels}) < len(labels):
            raise ValueError("two labels have the same name: name each label once")
        return labels

    def count_prompts(self) -> int:
        """Count the sentences that the text tower encodes, after templates."""
        per_label = (len(label.prompts) or len(self.templates) for label in self.labels)
        return sum(per_label) + len(self.abstain)


class Deliver(Message):
    """Destinations of the result besides the ledger.

    Attributes:
        object_uri: ``s3://bucket/key`` that the result is written to as JSON.
        webhook: Address that gets the result by POST, signed after the Standard
            Webhooks specification; ASCII, without user and password.
        stream: Redis stream, beside the ledger, that gets an entry for the result.
    """

    object_uri: ObjectUri | None = None
    webhook: str | None = Field(default=None, pattern=r"^https?://", max_length=2048)
    stream: StreamName | None = None

    @field_validator("webhook")
    @classmethod
    def _webhook_can_be_called(cls, webhook: str | None) -> str | None:
        if webhook is not None:
            WebhookAddress.parse(webhook)
        return webhook


class Job(Message):
    """Job of a producer, one message: 1 to 64 images, one label set.

    Attributes:
        job_id: Unique; the result's key. A time-ordered UUID when the client makes it.
        tenant: On whose behalf, for fairness and for metrics.
        images: 1 to 64 pictures with distinct ids.
        label_set: Inline (up to 1,000 labels), or ``name@sha256:…`` of a registered one.
        top_k: How many labels, best first, the result names for each image.
        rescore: Score from embeddings that are known, without the model. The storage is
            asked whether each picture is still there, unchanged, and may be read; one that
            was never classified, or is another by now, gets ``image_not_embedded``.
        expires_at: After this instant nobody wants the result any more.
        deliver: Where the result goes besides the ledger.
        trace: Carried into logs as it is, for example a W3C ``traceparent``: up to 20
            entries, keys up to 128 and values up to 2,048 characters.
    """

    version: Literal[1] = VERSION
    job_id: JobId
    tenant: Tenant = "default"
    images: tuple[ImageRef, ...] = Field(min_length=1, max_length=MAX_IMAGES)
    label_set: LabelSet | LabelSetRef
    top_k: TopK = 5
    rescore: Switch = False
    expires_at: Instant | None = None
    deliver: Deliver = Deliver()
    trace: dict[TraceKey, TraceValue] = Field(default_factory=dict, max_length=MAX_TRACE_ENTRIES)

    @field_validator("images")
    @classmethod
    def _ids_are_distinct(cls, images: tuple[ImageRef, ...]) -> tuple[ImageRef, ...]:
        if len({image.id for image in images}) < len(images):
            raise ValueError("two images have the same id: give each image its own")
        return images

    @model_validator(mode="after")
    def _is_consistent(self) -> Self:
        if isinstance(self.label_set, LabelSet) and len(self.label_set.labels) > MAX_INLINE_LABELS:
            raise ValueError(
                f"{len(self.label_set.labels)} labels are too many for a message "
                f"(limit {MAX_INLINE_LABELS}): register the set and refer to it"
            )
        return self

    @model_validator(mode="after")
    def _is_bounded(self) -> Self:
        inline = self.label_set if isinstance(self.label_set, LabelSet) else None
        if inline and (prompts := inline.count_prompts()) > MAX_INLINE_PROMPTS:
            raise ValueError(
                f"labels and templates make {prompts} prompts, too many for a message "
                f"(limit {MAX_INLINE_PROMPTS}): use fewer templates, or register the set and "
                "refer to it"
            )
        labels = min(self.top_k, len(inline.labels)) if inline else self.top_k
        scored = len(self.images) * labels
        if scored > MAX_SCORED_LABELS and self.deliver.object_uri is None:
            raise ValueError(
                f"{len(self.images)} images with {labels} labels each make a result of {scored} "
                f"scored labels (limit {MAX_SCORED_LABELS}): lower top_k, send fewer images in a "
                "job, or set deliver.object_uri, which gets the whole result"
            )
        return self


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


class ScoredLabel(Report):
    """A label and its score, 0 to 1; never NaN or infinite, which JSON cannot write."""

    name: str
    score: float = Field(allow_inf_nan=False)


class ImageResult(Report):
    """Result of one image.

    Attributes:
        etag: The object's ETag as read.
        sha256: Digest of the bytes as read, lower-case hex.
        width: Pixels, after EXIF orientation.
        height: Pixels, after EXIF orientation.
        labels: The best ``top_k`` labels, best first.
        matched: Names of the labels that reached their threshold, best first.
        abstained: Whether an ``abstain`` prompt fitted better than every label.
        error: Why there are no labels, or ``None``.
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
            ``labels`` and ``matched`` are only the first five of each image. Left out
            otherwise.
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


def status_of(images: tuple[ImageResult, ...]) -> Status:
    """Derive a job's status from its images."""
    failed = sum(image.error is not None for image in images)
    if failed == 0:
        return "succeeded"
    return "failed" if failed == len(images) else "partial"


def parse_job(message: Any) -> Job:
    """Read a job off the wire.

    Args:
        message: JSON text, as workers get it, or an object that was parsed from JSON.

    Raises:
        InvalidMessageError: *message* is not a job of a version that is read here; the
            text names each field at fault.
    """
    try:
        if isinstance(message, str):
            return Job.model_validate_json(message)
        return Job.model_validate(message)
    except ValidationError as error:
        raise refusal_of(error) from error


def refusal_of(error: ValidationError) -> InvalidMessageError:
    """Make the error that names each field at fault, and no field's value."""
    return InvalidMessageError(sentences_of(error))


def new_job_id() -> str:
    """Make a time-ordered id (UUID version 7, RFC 9562 section 5.7)."""
    unix_ms = int(datetime.now(UTC).timestamp() * 1000)
    random_bits = uuid.uuid4().int & ((1 << 74) - 1)
    value = (unix_ms & ((1 << 48) - 1)) << 80 | 0x7 << 76
    value |= (random_bits >> 62) << 64 | 0b10 << 62 | random_bits & ((1 << 62) - 1)
    return str(uuid.UUID(int=value))


def job_id_for(tenant: str, idempotency_key: str) -> str:
    """Derive the id that this tenant's *idempotency_key* always gets (UUIDv5)."""
    space = uuid.uuid5(uuid.NAMESPACE_URL, f"https://labelyard.dev/tenant/{tenant}")
    return str(uuid.uuid5(space, idempotency_key))
