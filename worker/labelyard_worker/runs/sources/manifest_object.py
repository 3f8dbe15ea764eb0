"""Read a manifest's object in pieces, by range, all of one version."""

import io
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Self

from labelyard_worker.intake.sources.s3_address import S3Address
from labelyard_worker.runs.sources.plan_parts import RunSourceError
from labelyard_worker.runs.sources.storage_requests import CHANGED, request

if TYPE_CHECKING:
    from obstore import GetOptions
    from obstore.store import S3Store

RANGE_BYTES: Final = 8 * 1024 * 1024


@dataclass(frozen=True)
class ObjectPlace:
    """A key of a bucket, and the clients that read it.

    obstore reads most keys, and opens at once. boto3 takes a fifth of a second to open: it reads
    the keys that obstore cannot ask for, and repeats what failed, to find the reason.

    Attributes:
        store: obstore's client of the bucket.
        open_client: Returns boto3's client.
        bucket: Bucket of the object.
        key: Key of the object.
    """

    store: "S3Store"
    open_client: Callable[[], Any]
    bucket: str
    key: str

    @property
    def uri(self) -> str:
        """Address of the object."""
        return f"s3://{self.bucket}/{self.key}"

    def head(self) -> tuple[int, str]:
        """Return size and ETag of the object's present version.

        Raises:
            RunSourceError: There is no such object, or it may not be read.
            StorageAwayError: Storage gave no usable answer.
        """
        if self._is_plain:
            try:
                meta = self.store.head(self.key)
            except Exception:  # noqa: BLE001 - boto3 repeats the request, and gives the reason
                meta = None
            if meta is not None and (etag := meta["e_tag"]):
                return meta["size"], etag
        client = self.open_client()
        answer = request(lambda: client.head_object(Bucket=self.bucket, Key=self.key), uri=self.uri)
        return answer["ContentLength"], answer["ETag"]

    def get(self, start: int, end: int, *, etag: str) -> bytes:
        """Read the bytes from *start* up to *end* of one version.

        Raises:
            RunSourceError: The object was changed or deleted meanwhile.
            StorageAwayError: Storage gave no usable answer.
        """
        if self._is_plain and etag.isascii() and etag.isprintable():
            options: GetOptions = {"range": (start, end), "if_match": etag}
            try:
                content = bytes(self.store.get(self.key, options=options).bytes())
            except Exception:  # noqa: BLE001 - boto3 repeats the request, and gives the reason
                content = b""
            if len(content) == end - start:
                return content
        return request(lambda: self._get(start, end, etag=etag), uri=self.uri)

    def _get(self, start: int, end: int, *, etag: str) -> bytes:
        answer = self.open_client().get_object(
            Bucket=self.bucket, Key=self.key, Range=f"bytes={start}-{end - 1}", IfMatch=etag
        )
        with answer["Body"] as body:
            content: bytes = body.read()
        return content

    @property
    def _is_plain(self) -> bool:
        return S3Address(self.bucket, self.key).is_plain


@dataclass(frozen=True)
class ManifestObject:
    """One version of an object.

    Attributes:
        place: Where it is.
        size_bytes: Size of this version.
        etag: ETag of this version, with its quotes.
    """

    place: ObjectPlace
    size_bytes: int
    etag: str

    @classmethod
    def open(cls, place: ObjectPlace, *, etag: str | None = None) -> Self:
        """Find the object's version.

        Args:
            etag: ETag that the object must still have.

        Raises:
            RunSourceError: There is no such object, or another version, or it may not be read.
            StorageAwayError: Storage gave no usable answer.
        """
        size_bytes, found = place.head()
        if etag is not None and found != etag:
            raise RunSourceError(f"{place.uri}: {CHANGED}")
        return cls(place, size_bytes, found)

    def read(self, start: int, length: int) -> bytes:
        """Read bytes of this version; fewer at its end.

        Raises:
            RunSourceError: The object was changed or deleted meanwhile.
            StorageAwayError: Storage gave no usable answer.
        """
        end = min(start + length, self.size_bytes)
        return self.place.get(start, end, etag=self.etag) if end > start else b""

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
