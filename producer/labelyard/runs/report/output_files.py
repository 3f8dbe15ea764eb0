"""Files that a run wrote, in a folder or under an S3 prefix, read one after the other."""

import io
import re
import shutil
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Final, Protocol

from labelyard.errors import InvalidMessageError
from labelyard.uploads import storage_errors_as_ours

RESULTS: Final = re.compile(r"results-[\d.]+\.(?:jsonl|parquet)")
ERRORS: Final = re.compile(r"errors-[\d.]+\.jsonl")
MAX_DOCUMENT_BYTES: Final = 64 * 2**20
_IN_MEMORY_BYTES: Final = 8 * 2**20


@dataclass(frozen=True, slots=True)
class WrittenFile:
    """One file of a run's output.

    Attributes:
        name: Name without folder or prefix.
        written_at: Seconds since the epoch at which the file was written.
    """

    name: str
    size_bytes: int
    written_at: float


class RunOutput(Protocol):
    """Place that holds the files of one run."""

    @property
    def address(self) -> str:
        """Folder or ``s3://`` prefix, for people."""

    @property
    def has_own_times(self) -> bool:
        """Whether the files' times are surely those at which the run wrote them."""

    def files(self) -> list[WrittenFile]:
        """List the files, sorted by name."""

    def retries(self) -> list[str]:
        """List the folders of runs over this run's failed lines, sorted by name."""

    def open(self, name: str) -> Any:
        """Open a file as a context manager of a binary stream that can seek."""


@dataclass(frozen=True, slots=True)
class FolderOutput:
    """Output of a run in a local folder."""

    folder: Path

    @property
    def address(self) -> str:
        """Folder, for people."""
        return str(self.folder)

    @property
    def has_own_times(self) -> bool:
        """Return ``False``: the folder may be a copy."""
        return False

    def retries(self) -> list[str]:
        """List the folders of runs over this run's failed lines, sorted by name."""
        return sorted(path.name for path in self.folder.glob("retry-*") if path.is_dir())

    def files(self) -> list[WrittenFile]:
        """List the files, sorted by name.

        Raises:
            InvalidMessageError: The folder cannot be read.
        """
        try:
            found = [(path, path.stat()) for path in self.folder.iterdir() if path.is_file()]
        except OSError as error:
            raise InvalidMessageError(f"{self.folder}: {error.strerror}") from error
        return sorted(
            (WrittenFile(path.name, stat.st_size, stat.st_mtime) for path, stat in found),
            key=lambda file: file.name,
        )

    @contextmanager
    def open(self, name: str) -> Iterator[IO[bytes]]:
        """Open a file.

        Raises:
            InvalidMessageError: The file cannot be read.
        """
        try:
            with (self.folder / name).open("rb") as stream:
                yield stream
        except OSError as error:
            raise InvalidMessageError(f"{self.folder / name}: {error.strerror}") from error


@dataclass(frozen=True, slots=True)
class BucketOutput:
    """Output of a run under an S3 prefix.

    Attributes:
        s3: boto3 client, which the caller closes.
        prefix: Empty, or with a slash at its end.
    """

    s3: Any
    bucket: str
    prefix: str

    @property
    def address(self) -> str:
        """Prefix as an ``s3://`` address."""
        return f"s3://{self.bucket}/{self.prefix}"

    @property
    def has_own_times(self) -> bool:
        """Return ``True``: an object has the time at which it was written."""
        return True

    def retries(self) -> list[str]:
        """List the prefixes of runs over this run's failed lines, sorted by name.

        Raises:
            ServiceConfigError: S3 refused the credentials.
            StorageUnavailableError: S3 gave no usable answer.
        """
        start = f"{self.prefix}retry-"
        found = [
            entry["Prefix"].removeprefix(self.prefix).rstrip("/")
            for page in self._pages(start)
            for entry in page.get("CommonPrefixes", ())
        ]
        return sorted(found)

    def _pages(self, start: str) -> list[Any]:
        with storage_errors_as_ours(self.bucket):
            paginator = self.s3.get_paginator("list_objects_v2")
            return list(paginator.paginate(Bucket=self.bucket, Prefix=start, Delimiter="/"))

    def files(self) -> list[WrittenFile]:
        """List the files directly under the prefix, sorted by name.

        Raises:
            ServiceConfigError: S3 refused the credentials.
            StorageUnavailableError: S3 gave no usable answer.
        """
        found = [
            WrittenFile(
                entry["Key"].removeprefix(self.prefix),
                entry["Size"],
                entry["LastModified"].timestamp(),
            )
            for page in self._pages(self.prefix)
            for entry in page.get("Contents", ())
        ]
        return sorted(found, key=lambda file: file.name)

    @contextmanager
    def open(self, name: str) -> Iterator[IO[bytes]]:
        """Copy an object into memory, or into a temporary file if it is large, and open the copy.

        Raises:
            ServiceConfigError: S3 refused the credentials.
            StorageUnavailableError: S3 gave no usable answer.
        """
        with tempfile.SpooledTemporaryFile(max_size=_IN_MEMORY_BYTES) as copy:
            with (
                storage_errors_as_ours(self.bucket),
                self.s3.get_object(Bucket=self.bucket, Key=self.prefix + name)["Body"] as body,
            ):
                shutil.copyfileobj(body, copy, 2**20)
            copy.seek(0)
            yield copy


def read_document(output: RunOutput, name: str, files: Iterable[WrittenFile]) -> dict[str, Any]:
    """Read a JSON object such as ``summary.json``; empty if there is none, or none that is valid.

    A file above 64 MiB counts as not valid.
    """
    from pydantic_core import from_json

    found = next((file for file in files if file.name == name), None)
    if found is None or found.size_bytes > MAX_DOCUMENT_BYTES:
        return {}
    with output.open(name) as stream:
        text = stream.read()
    try:
        fields = from_json(text, allow_inf_nan=False)
    except ValueError:
        return {}
    return fields if isinstance(fields, dict) else {}


def lines_of(stream: IO[bytes], *, max_bytes: int = 16 * 2**20) -> Iterator[bytes | None]:
    """Read the lines of a stream in bounded memory; ``None`` stands for one that is too long."""
    reader = io.BufferedReader(stream, 2**18) if isinstance(stream, io.RawIOBase) else stream
    while line := reader.readline(max_bytes):
        if len(line) < max_bytes or line.endswith(b"\n"):
            if not line.isspace():
                yield line
            continue
        while (rest := reader.readline(max_bytes)) and not rest.endswith(b"\n"):
            pass
        yield None
