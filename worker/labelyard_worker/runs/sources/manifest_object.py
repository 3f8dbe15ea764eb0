"""Read a manifest's object in pieces, by range, all of one version."""

import io
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final, Self

from labelyard_worker.runs.sources.plan_parts import RunSourceError
from labelyard_worker.runs.sources.storage_requests import CHANGED, request

RANGE_BYTES: Final = 8 * 1024 * 1024


@dataclass(frozen=True)
class ManifestObject:
    """One version of an object.

    Attributes:
        client: boto3 client; it reads keys that obstore refuses.
        bucket: Bucket of the object.
        key: Key of the object.
        size_bytes: Size of this version.
        etag: ETag of this version, with its quotes.
    """

    client: Any
    bucket: str
    key: str
    size_bytes: int
    etag: str

    @classmethod
    def open(cls, client: Any, *, bucket: str, key: str, etag: str | None = None) -> Self:
        """Find the object's version.

        Args:
            etag: ETag that the object must still have.

        Raises:
            RunSourceError: There is no such object, or another version, or it may not be read.
            StorageAwayError: Storage gave no usable answer.
        """
        uri = f"s3://{bucket}/{key}"
        answer = request(lambda: client.head_object(Bucket=bucket, Key=key), uri=uri)
        if etag is not None and answer["ETag"] != etag:
            raise RunSourceError(f"{uri}: {CHANGED}")
        return cls(client, bucket, key, answer["ContentLength"], answer["ETag"])

    @property
    def uri(self) -> str:
        """Address of the object."""
        return f"s3://{self.bucket}/{self.key}"

    def read(self, start: int, length: int) -> bytes:
        """Read bytes of this version; fewer at its end.

        Raises:
            RunSourceError: The object was changed or deleted meanwhile.
            StorageAwayError: Storage gave no usable answer.
        """
        end = min(start + length, self.size_bytes)
        if end <= start:
            return b""

        def get() -> bytes:
            answer = self.client.get_object(
                Bucket=self.bucket,
                Key=self.key,
                Range=f"bytes={start}-{end - 1}",
                IfMatch=self.etag,
            )
            with answer["Body"] as body:
                content: bytes = body.read()
            return content

        return request(get, uri=self.uri)

    def chunks(self) -> Iterator[bytes]:
        """Yield the object's bytes, some megabytes at a time."""
        for start in range(0, self.size_bytes, RANGE_BYTES):
            yield self.read(start, RANGE_BYTES)

    def seekable(self) -> "ObjectFile":
        """Return the object as a file."""
        return ObjectFile(self)


class ObjectFile(io.RawIOBase):
    """An object as a file that reads a range of it at each call."""

    def __init__(self, manifest: ManifestObject) -> None:
        """Start at the first byte."""
        super().__init__()
        self._manifest = manifest
        self._place = 0

    def readable(self) -> bool:
        """Return ``True``."""
        return True

    def seekable(self) -> bool:
        """Return ``True``."""
        return True

    def tell(self) -> int:
        """Return the number of the next byte."""
        return self._place

    def seek(self, offset: int, whence: int = io.SEEK_SET, /) -> int:
        """Move to another byte."""
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._place, io.SEEK_END: self._manifest.size_bytes}
        self._place = base[whence] + offset
        return self._place

    def readinto(self, buffer: Any, /) -> int:
        """Read bytes from the present place."""
        content = self._manifest.read(self._place, len(buffer))
        buffer[: len(content)] = content
        self._place += len(content)
        return len(content)
