"""Runs as producers start them: a source of pictures, a label set, and where the results go."""

import hashlib
import re
from typing import Annotated, Final, Literal, Self

from pydantic import Field, model_validator

from labelyard.fields import (
    AS_NUMBER,
    Instant,
    JobId,
    LabelSetRef,
    ObjectUri,
    Switch,
    Tag,
    Tenant,
    TopK,
)
from labelyard.messages import LabelSet
from labelyard.messages.job import WebhookUrl
from labelyard.messages.models import Message

VERSION: Final = 1
SourceFormat = Literal["jsonl", "csv", "parquet", "prefix", "errors", "embeddings"]
OutputFormat = Literal["jsonl", "parquet"]
#: Endings of manifests, by their format; each may be followed by one of a compression.
ENDINGS: Final[dict[str, SourceFormat]] = {
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".csv": "csv",
    ".parquet": "parquet",
}
_COMPRESSION: Final = re.compile(r"\.(?:gz|gzip|zst|zstd)$")
MAX_COLUMNS: Final = 100
Rate = Annotated[float, Field(gt=0, le=1e9, allow_inf_nan=False), AS_NUMBER]
ErrorCode = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]{0,63}$")]
Column = Annotated[str, Field(min_length=1, max_length=256)]


class RunRequest(Message):
    """Run of a producer.

    Attributes:
        run_id: Unique. A time-ordered UUID when the client makes it.
        tenant: On whose behalf, for fairness and for metrics.
        source: Manifest or prefix, ``s3://bucket/key`` or ``s3://bucket/prefix/``. A prefix may
            hold a pattern: ``s3://bucket/photos/**/*.jpg``.
        source_format: Kind of source; ``errors`` are the failed lines of another run, and
            ``embeddings`` its vectors: both are named by the prefix of its files.
        label_set: Inline (up to 1,000 labels), or ``name@sha256:…`` of a registered one; for
            lines that name none.
        out: Prefix that results are written below, ``s3://bucket/prefix/``.
        output_format: Format of the results.
        embeddings: Whether embeddings are written as well.
        columns: Further columns of the manifest that are carried to the results; ``*`` means all.
        top_k: How many labels, best first, each result names.
        images_per_s: Limit on the images that are begun a second, over all workers.
        expires_at: After this instant the run ends as it is.
        webhook: Address that gets the end of the run by POST, signed after the Standard Webhooks
            specification. Left out of the message if there is none.
        tag: ``evaluation`` for the run of an evaluation, whose answers do not count for drift.
            Left out of the message if there is none.
        retry_of: Run whose failed lines are done again.
        retry_codes: Codes of the errors whose lines are done again; empty means all that may
            succeed later.
    """

    version: Literal[1] = VERSION
    run_id: JobId
    tenant: Tenant = "default"
    source: ObjectUri
    source_format: SourceFormat
    label_set: LabelSet | LabelSetRef
    out: ObjectUri
    output_format: OutputFormat = "jsonl"
    embeddings: Switch = False
    columns: tuple[Column, ...] = Field(default=(), max_length=MAX_COLUMNS)
    top_k: TopK = 5
    images_per_s: Rate | None = None
    expires_at: Instant | None = None
    webhook: WebhookUrl | None = Field(
        default=None, repr=False, exclude_if=lambda webhook: webhook is None
    )
    tag: Tag | None = Field(default=None, exclude_if=lambda tag: tag is None)
    retry_of: JobId | None = None
    retry_codes: tuple[ErrorCode, ...] = Field(default=(), max_length=100)

    @model_validator(mode="after")
    def _is_consistent(self) -> Self:
        if not self.out.endswith("/"):
            raise ValueError("out: write a prefix that ends in /, such as s3://bucket/run-1/")
        if isinstance(self.label_set, LabelSet) and len(self.label_set.labels) > 1_000:
            raise ValueError("label_set: register a set of more than 1,000 labels, and refer to it")
        if self.source_format == "embeddings" and (self.embeddings or self.columns):
            raise ValueError(
                "source_format: old embeddings have their columns, and stay as they are"
            )
        return self

    def digest(self) -> str:
        """Compute the digest of the work, equal for an equal request under any id."""
        content = self.model_dump_json(exclude={"run_id", "expires_at"}, exclude_defaults=True)
        return hashlib.sha256(content.encode()).hexdigest()


def format_of(source: str) -> SourceFormat:
    """Return the kind of a source by its ending; a pattern, or another ending, is a prefix."""
    if any(sign in source for sign in "*?[") or source.endswith("/"):
        return "prefix"
    plain = _COMPRESSION.sub("", source.lower())
    ends = (kind for ending, kind in ENDINGS.items() if plain.endswith(ending))
    return next(ends, "prefix")
