"""Jobs as producers submit them: images, a label set, and where the result goes."""

import uuid
from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Annotated, Any, Final, Literal, Self

from pydantic import AfterValidator, Field, ValidationError, field_validator, model_validator

from labelyard.fields import (
    MAX_INLINE_LABELS,
    MAX_TRACE_ENTRIES,
    AliasName,
    ETag,
    ImageUri,
    Instant,
    JobId,
    LabelSetRef,
    Name,
    ObjectUri,
    StreamName,
    Switch,
    Tag,
    Tenant,
    Title,
    TopK,
    TraceKey,
    TraceValue,
    VersionId,
)
from labelyard.messages.explanation import (
    DEFAULT_GRID,
    MAX_EXPLAINED_LABELS,
    MAX_OCCLUDED_IMAGES,
    Grid,
    count_occluded,
)
from labelyard.messages.labels import LabelSet
from labelyard.messages.models import Message, refusal_of
from labelyard.messages.short_forms import cut, first_of
from labelyard.webhook_address import WebhookAddress

VERSION: Final = 1
MAX_IMAGES: Final = 64
# Prompts are labels times templates: each costs milliseconds of the text tower, once.
MAX_INLINE_PROMPTS: Final = 10_000
MAX_REGISTERED_PROMPTS: Final = 100_000
# Scored labels in one result, about 5 MB of JSON; a larger one goes to an object.
MAX_SCORED_LABELS: Final = 100_000


def _checked_webhook(webhook: str) -> str:
    """Return the address of a receiver that can be called.

    Raises:
        ValueError: It is malformed; the text says how.
    """
    WebhookAddress.parse(webhook)
    return webhook


WebhookUrl = Annotated[
    str, Field(pattern=r"^https?://", max_length=2048), AfterValidator(_checked_webhook)
]


class ImageRef(Message):
    """One picture of a job.

    Attributes:
        id: The producer's own name for the picture, unique in the job.
        uri: Where the worker reads it: ``s3://bucket/key``, or ``https://…`` where
            the operator allows it. A bad one fails this image alone.
        version_id: Version of the object, in a bucket that keeps versions.
        etag: The object must still have this ETag, else ``image_not_found``.
        text: Title, caption or text that was read from the picture. Sets that learned to read
            titles score it together with the picture; others ignore it. Left out if there is none.
    """

    id: Name
    uri: ImageUri
    version_id: VersionId | None = None
    etag: ETag | None = None
    text: Title | None = Field(default=None, exclude_if=lambda text: text is None)


class Deliver(Message):
    """Destinations of the result besides the ledger.

    Attributes:
        object_uri: ``s3://bucket/key`` that the result is written to as JSON.
        webhook: Address that gets the result by POST, signed after the Standard
            Webhooks specification; ASCII, without user and password.
        stream: Redis stream, beside the ledger, that gets an entry for the result.
    """

    object_uri: ObjectUri | None = None
    webhook: WebhookUrl | None = None
    stream: StreamName | None = None


class Job(Message):
    """Job of a producer, one message: 1 to 64 images, one label set.

    Attributes:
        job_id: Unique; the result's key. A time-ordered UUID when the client makes it.
        tenant: On whose behalf, for fairness and for metrics.
        tag: Name by which consumers of events choose jobs, for example a campaign. Left out of the
            message if there is none.
        images: 1 to 64 pictures with distinct ids.
        label_set: Inline (up to 1,000 labels), or ``name@sha256:…`` of a registered one.
        alias: Alias of a registered label set that the reference was read from; the reference
            alone decides which labels are scored. Left out of the message if there is none.
        canary: Reference of a version that the images are scored with, too, through the same
            embeddings: how it differs is counted under the alias, and the result does not change.
            Left out of the message if there is none.
        top_k: How many labels, best first, the result names for each image.
        rescore: Score from embeddings that are known, without the model. The storage is
            asked whether each picture is still there, unchanged, and may be read; one that
            was never classified, or is another by now, gets ``image_not_embedded``.
        vectors: Name in the result the vector of each picture that examples are compared by: the
            examples of a label set are made of these. Left out of the message if false.
        explain: Labels of the set to explain for each picture: where it was seen, and which label
            competed. Up to 8. Each picture costs as many extra images as it has windows, whatever
            the number of labels, and at most 256 a job. Left out of the message if empty.
        explain_grid: Windows along each side of a picture, 2 to 8. Left out if it is 4.
        expires_at: After this instant nobody wants the result any more.
        deliver: Where the result goes besides the ledger.
        trace: Carried into logs as it is, for example a W3C ``traceparent``: up to 20
            entries, keys up to 128 and values up to 2,048 characters.
    """

    version: Literal[1] = VERSION
    job_id: JobId
    tenant: Tenant = "default"
    # Right behind the tenant: scripts/open.lua reads it there.
    tag: Tag | None = Field(default=None, exclude_if=lambda tag: tag is None)
    images: tuple[ImageRef, ...] = Field(min_length=1, max_length=MAX_IMAGES)
    label_set: LabelSet | LabelSetRef
    alias: AliasName | None = Field(default=None, exclude_if=lambda alias: alias is None)
    canary: LabelSetRef | None = Field(default=None, exclude_if=lambda canary: canary is None)
    top_k: TopK = 5
    rescore: Switch = False
    vectors: Switch = Field(default=False, exclude_if=lambda vectors: not vectors)
    explain: tuple[Name, ...] = Field(
        default=(), max_length=MAX_EXPLAINED_LABELS, exclude_if=lambda names: not names
    )
    explain_grid: Grid = Field(default=DEFAULT_GRID, exclude_if=lambda grid: grid == DEFAULT_GRID)
    expires_at: Instant | None = None
    deliver: Deliver = Deliver()
    trace: dict[TraceKey, TraceValue] = Field(default_factory=dict, max_length=MAX_TRACE_ENTRIES)

    def count_titles(self) -> int:
        """Count the distinct texts beside pictures, which the text tower encodes."""
        return len({image.text for image in self.images if image.text is not None})

    def __repr_args__(self) -> Iterable[tuple[str | None, Any]]:
        """Yield a summary for ``repr`` and ``str``; :meth:`model_dump` has everything."""
        yield "job_id", self.job_id
        yield "tenant", self.tenant
        names = (repr(cut(image.id)) for image in self.images)
        yield "images", first_of(names, total=len(self.images))
        yield "label_set", self.label_set

    def count_images(self) -> int:
        """Count the images that the job costs: its pictures, and the occluded ones that explain them."""
        per_picture = 1 + (count_occluded(self.explain_grid) if self.explain else 0)
        return len(self.images) * per_picture

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
    def _has_registered_labels_if_it_has_an_alias(self) -> Self:
        if self.alias is not None and isinstance(self.label_set, LabelSet):
            raise ValueError("alias: goes with the reference of a registered label set")
        if self.canary is not None and self.alias is None:
            raise ValueError("canary: goes with an alias, under which it is counted")
        return self

    @model_validator(mode="after")
    def _can_be_explained(self) -> Self:
        if not self.explain:
            if self.explain_grid != DEFAULT_GRID:
                raise ValueError("explain_grid goes with explain: name the labels to explain")
            return self
        if len(set(self.explain)) < len(self.explain):
            raise ValueError("explain names a label twice: name each label once")
        if self.rescore:
            raise ValueError("rescore scores without the model, which explain needs: send one")
        if isinstance(self.label_set, LabelSet):
            known = {label.name for label in self.label_set.labels}
            if unknown := [name for name in self.explain if name not in known]:
                raise ValueError(f"explain names {cut(unknown[0])!r}, not a label of the set")
        extra = len(self.images) * count_occluded(self.explain_grid)
        if extra > MAX_OCCLUDED_IMAGES:
            raise ValueError(
                f"explaining {len(self.images)} pictures takes {extra} extra images "
                f"(limit {MAX_OCCLUDED_IMAGES}): send fewer pictures in a job, or a smaller "
                "explain_grid"
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
