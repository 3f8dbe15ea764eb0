"""Places from which a report reads pictures: a bucket, or a folder with copies of them."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, Final, Protocol

MAX_PICTURE_BYTES: Final = 32 * 2**20


class PictureUnreadableError(Exception):
    """A picture cannot be shown; the text is a short reason, the same for pictures of a kind."""


class PictureSource(Protocol):
    """Place that pictures are read from."""

    def read(self, uri: str) -> bytes:
        """Read a picture's file.

        Raises:
            PictureUnreadableError: It cannot be read from here.
        """


@dataclass(frozen=True, slots=True)
class FolderPictures:
    """Copies of the pictures in a local folder.

    ``s3://bucket/a/b.jpg`` is looked up as ``bucket/a/b.jpg``, ``a/b.jpg`` and ``b.jpg``.
    """

    folder: Path

    def read(self, uri: str) -> bytes:
        """Read the first file of that name which lies within the folder."""
        root = self.folder.resolve()
        for name in _names(uri):
            path = (root / name).resolve()
            if path.is_relative_to(root) and path.is_file():
                return self._content(path)
        raise PictureUnreadableError("not in the folder")

    def _content(self, path: Path) -> bytes:
        try:
            if path.stat().st_size > MAX_PICTURE_BYTES:
                raise PictureUnreadableError("file above 32 MiB")
            return path.read_bytes()
        except OSError as error:
            raise PictureUnreadableError(f"not readable: {error.strerror}") from error


def _names(uri: str) -> Iterator[PurePosixPath]:
    parts = [part for part in uri.partition("://")[2].split("?")[0].split("/") if part]
    for start in sorted({0, 1, len(parts) - 1}):
        if 0 <= start < len(parts) and ".." not in parts:
            yield PurePosixPath(*parts[start:])


@dataclass(frozen=True, slots=True)
class BucketPictures:
    """Pictures in S3, read with the client's own rights.

    Pictures at https addresses are not fetched: a manifest could name any server that this
    machine can reach, and a report has no list of those that are allowed.
    """

    s3: Any

    def read(self, uri: str) -> bytes:
        """Read an object."""
        from botocore.exceptions import BotoCoreError, ClientError

        bucket, _, key = uri.removeprefix("s3://").partition("/")
        if not uri.startswith("s3://") or not key:
            raise PictureUnreadableError("not in S3")
        try:
            answer = self.s3.get_object(Bucket=bucket, Key=key)
            with answer["Body"] as body:
                if answer["ContentLength"] > MAX_PICTURE_BYTES:
                    raise PictureUnreadableError("file above 32 MiB")
                content: bytes = body.read(MAX_PICTURE_BYTES)
        except ClientError as error:
            raise PictureUnreadableError(f"S3: {error.response['Error']['Code']}") from error
        except (BotoCoreError, ValueError) as error:
            raise PictureUnreadableError(f"S3: {type(error).__name__}") from error
        return content


@dataclass(frozen=True, slots=True)
class NoPictures:
    """Place without pictures, for a reason that the report names."""

    reason: str

    def read(self, uri: str) -> bytes:
        """Raise the reason."""
        _ = uri
        raise PictureUnreadableError(self.reason)


@dataclass(frozen=True, slots=True)
class FirstOf:
    """Several sources, of which the first that has a picture is used."""

    sources: Sequence[PictureSource]

    def read(self, uri: str) -> bytes:
        """Read a picture from the first source that has it."""
        failure = PictureUnreadableError("no source")
        for source in self.sources:
            try:
                return source.read(uri)
            except PictureUnreadableError as error:
                failure = error
        raise failure
