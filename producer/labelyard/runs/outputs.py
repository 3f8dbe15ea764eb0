"""Files that a run wrote, read from object storage by a client."""

import hashlib
from collections.abc import Iterator, Mapping
from contextlib import closing
from itertools import islice
from pathlib import Path
from typing import Any, Final

from labelyard.errors import InvalidMessageError
from labelyard.runs.lines import ErrorLine, ResultLine
from labelyard.settings import ClientSettings
from labelyard.uploads import open_client, storage_errors_as_ours

#: Folder of a run's output for what only its workers read.
PLAN_FOLDER: Final = "_plan/"
#: Bytes read at once of results: a line that scores thousands of labels has some hundred thousand.
RESULT_CHUNK_BYTES: Final = 256 * 1024


def read_errors(out: str, settings: ClientSettings) -> Iterator[ErrorLine]:
    """Yield the lines of the error files below *out*, in the order of their names.

    Raises:
        ServiceConfigError: S3 refused, or boto3 is missing; the text names the remedy.
        StorageUnavailableError: S3 gave no usable answer.
    """
    bucket, prefix = place_of(out)
    with storage_errors_as_ours(bucket), closing(open_client(settings)) as s3:
        for key in list_keys(s3, bucket, f"{prefix}errors-"):
            with closing(s3.get_object(Bucket=bucket, Key=key)["Body"]) as body:
                for line in body.iter_lines():
                    if line:
                        yield ErrorLine.model_validate_json(line)


def read_results(out: str, settings: ClientSettings) -> Iterator[ResultLine]:
    """Yield the lines of the result files below *out*, which are JSON lines.

    Raises:
        ServiceConfigError: S3 refused, or boto3 is missing; the text names the remedy.
        StorageUnavailableError: S3 gave no usable answer.
    """
    bucket, prefix = place_of(out)
    with storage_errors_as_ours(bucket), closing(open_client(settings)) as s3:
        for key in list_keys(s3, bucket, f"{prefix}results-"):
            with closing(s3.get_object(Bucket=bucket, Key=key)["Body"]) as body:
                for line in body.iter_lines(RESULT_CHUNK_BYTES):
                    if line:
                        yield ResultLine.model_validate_json(line)


def read_pictures(out: str, settings: ClientSettings, *, most: int) -> list[str]:
    """Return addresses of pictures that have results below *out*, a like number of each file.

    Args:
        most: No more than that many.

    Raises:
        InvalidMessageError: There are no results as JSON lines.
        ServiceConfigError: S3 refused, or boto3 is missing; the text names the remedy.
        StorageUnavailableError: S3 gave no usable answer.
    """
    bucket, prefix = place_of(out)
    found: list[str] = []
    with storage_errors_as_ours(bucket), closing(open_client(settings)) as s3:
        keys = [key for key in list_keys(s3, bucket, f"{prefix}results-") if key.endswith(".jsonl")]
        if not keys:
            raise InvalidMessageError(f"{out}: there are no results as JSON lines")
        keys = keys[:: -(-len(keys) // most)]
        for key in keys:
            with closing(s3.get_object(Bucket=bucket, Key=key)["Body"]) as body:
                lines = islice(filter(None, body.iter_lines()), -(-most // len(keys)))
                results = map(ResultLine.model_validate_json, lines)
                found += [line.uri for line in results if line.error is None]
    return found[:most]


def download_outputs(out: str, folder: Path, settings: ClientSettings) -> list[Path]:
    """Download the files below *out*, but for those that only workers read.

    A file that is there with the same content is kept.

    Raises:
        ServiceConfigError: S3 refused, or boto3 is missing; the text names the remedy.
        StorageUnavailableError: S3 gave no usable answer.
    """
    bucket, prefix = place_of(out)
    paths = []
    with storage_errors_as_ours(bucket), closing(open_client(settings)) as s3:
        for entry in list_entries(s3, bucket, prefix):
            name = entry["Key"].removeprefix(prefix)
            if name.startswith(PLAN_FOLDER) or f"/{PLAN_FOLDER}" in name:
                continue
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            if not is_same(path, entry):
                partial = path.with_name(f"{path.name}.part")
                s3.download_file(bucket, entry["Key"], str(partial))
                partial.replace(path)
            paths.append(path)
    return paths


def is_same(path: Path, entry: Mapping[str, Any]) -> bool:
    """Return whether a file has the content of an object; not if its ETag is not an MD5."""
    if not (path.is_file() and path.stat().st_size == entry["Size"]):
        return False
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False))
    etag: str = entry.get("ETag", "")
    return digest.hexdigest() == etag.strip('"')


def place_of(out: str) -> tuple[str, str]:
    """Return bucket and prefix of a run's output."""
    bucket, _, prefix = out.removeprefix("s3://").partition("/")
    return bucket, prefix


def list_entries(s3: Any, bucket: str, prefix: str) -> Iterator[dict[str, Any]]:
    """Yield the entries of a listing, a page at a time."""
    for page in s3.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix):
        yield from page.get("Contents", ())


def list_keys(s3: Any, bucket: str, prefix: str) -> Iterator[str]:
    """Yield the keys of a listing."""
    for entry in list_entries(s3, bucket, prefix):
        yield entry["Key"]
