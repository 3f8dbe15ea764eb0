"""Open the source of a run: a manifest or a listing in S3, at its beginning or at a checkpoint."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache, partial
from io import BufferedReader
from typing import Any, Final, Literal, TypeAlias, cast

from labelyard.buckets import NAMING_RULE, is_bucket_name
from labelyard_worker.intake.sources.s3_clients import open_signer, open_store
from labelyard_worker.intake.sources.s3_settings import S3Settings
from labelyard_worker.runs.sources.compression import decompress
from labelyard_worker.runs.sources.csv_manifest import read_csv
from labelyard_worker.runs.sources.jsonl_manifest import read_jsonl
from labelyard_worker.runs.sources.key_pattern import KeyPattern
from labelyard_worker.runs.sources.line_checks import S3, CarriedColumns
from labelyard_worker.runs.sources.listing import KeyListing, ListedLines
from labelyard_worker.runs.sources.manifest_object import ManifestObject, ObjectPlace
from labelyard_worker.runs.sources.parquet_manifest import read_parquet
from labelyard_worker.runs.sources.physical_lines import split_lines
from labelyard_worker.runs.sources.plan_parts import (
    Checkpoint,
    PlanPart,
    RunSourceError,
)
from labelyard_worker.runs.sources.planned_lines import PlannedLines

SourceForm: TypeAlias = Literal["jsonl", "csv", "parquet", "prefix"]
ETAG: Final = "etag"
ALL_COLUMNS: Final = "*"
# Bytes that a Parquet file is read by where pyarrow reads less.
READ_AHEAD_BYTES: Final = 256 * 1024


@dataclass(frozen=True)
class SourceOpener:
    """Opens sources in the buckets that the operator allows.

    Attributes:
        settings: The S3 server, and its buckets that may be read.
    """

    settings: S3Settings

    def open(
        self,
        uri: str,
        *,
        form: SourceForm,
        columns: Sequence[str] = (),
        checkpoint: Checkpoint | None = None,
    ) -> "OpenedSource":
        """Open a source.

        Args:
            uri: ``s3://bucket/key`` of a manifest, or ``s3://bucket/pattern`` of a listing.
            form: Form of the manifest, or ``prefix`` for a listing.
            columns: Names of the columns that results carry; ``*`` means all.
            checkpoint: Place behind which to go on.

        Raises:
            RunSourceError: The source cannot be read.
            StorageAwayError: Storage gave no usable answer.
        """
        bucket, _, key = uri.removeprefix(S3).partition("/")
        if not uri.startswith(S3) or not is_bucket_name(bucket):
            raise RunSourceError(f"{uri}: write s3://bucket/key; {NAMING_RULE}")
        allowed = self.settings.allowed_buckets
        if allowed and bucket not in allowed:
            raise RunSourceError(f"{uri}: the bucket is not in LABELYARD_ALLOWED_BUCKETS")
        store = open_store(self.settings, bucket)
        open_client = cache(partial(open_signer, self.settings))
        if form == "prefix":
            listing = KeyListing(store, open_client, bucket, KeyPattern.parse(key))
            return ListedLines(listing, checkpoint=checkpoint)
        etag = checkpoint[ETAG] if checkpoint else None
        place = ObjectPlace(store, open_client, bucket, key)
        manifest = ManifestObject.open(place, etag=etag)
        return ManifestLines(manifest, form, columns=carried(columns), checkpoint=checkpoint)


class ManifestLines:
    """The lines of one version of a manifest in S3; see ``LineSource``."""

    def __init__(
        self,
        manifest: ManifestObject,
        form: SourceForm,
        *,
        columns: CarriedColumns,
        checkpoint: Checkpoint | None = None,
    ) -> None:
        """Read the manifest in its *form*, behind *checkpoint*."""
        self._etag = manifest.etag
        if form == "parquet":
            file = BufferedReader(manifest.seekable(), READ_AHEAD_BYTES)
            blocks = read_parquet(cast("Any", file), columns=columns)
        else:
            lines = split_lines(decompress(manifest.chunks()))
            blocks = read_csv(lines) if form == "csv" else read_jsonl(lines)
        self._lines = PlannedLines(blocks, columns=columns, checkpoint=checkpoint)

    def take(self, max_lines: int) -> PlanPart | None:
        """Return the next lines; see ``LineSource.take``."""
        part = self._lines.take(max_lines)
        if part is None:
            return None
        return replace(part, checkpoint={**part.checkpoint, ETAG: self._etag})

    def read_ahead(self, max_lines: int) -> None:
        """Read so many lines that the next part can be taken without a wait."""
        self._lines.read_ahead(max_lines)


OpenedSource: TypeAlias = ManifestLines | ListedLines


def carried(columns: Sequence[str]) -> CarriedColumns:
    """Return the columns to carry; ``*`` among them means all."""
    if not columns:
        return "none"
    return "all" if ALL_COLUMNS in columns else frozenset(columns)
