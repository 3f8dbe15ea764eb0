"""Parse image addresses, and redact their secrets."""

from dataclasses import dataclass
from typing import Self
from urllib.parse import urlsplit

from labelyard.buckets import NAMING_RULE, is_bucket_name
from labelyard.errors import ImageNotFoundError, UnsupportedUriError

S3 = "s3://"
HTTPS = "https://"


@dataclass(frozen=True, slots=True)
class S3Address:
    """A bucket and a key; the key is taken as it stands, nothing in it is decoded."""

    bucket: str
    key: str

    @classmethod
    def parse(cls, uri: str) -> Self:
        """Parse ``s3://bucket/key``.

        Raises:
            UnsupportedUriError: No bucket or no key in it, or a bucket's name that could lead
                a client to another server.
            ImageNotFoundError: It names a folder.
        """
        bucket, _, key = uri.removeprefix(S3).partition("/")
        if not bucket or not key:
            raise UnsupportedUriError(uri, "write s3://bucket/key")
        if not is_bucket_name(bucket):
            raise UnsupportedUriError(uri, NAMING_RULE)
        if key.endswith("/"):
            raise ImageNotFoundError(uri, "the key ends in /, so it names a folder, not a picture")
        return cls(bucket, key)

    @property
    def is_plain(self) -> bool:
        """Whether obstore can request the key; it refuses or rewrites some that S3 allows."""
        segments = self.key.split("/")
        return self.key.isprintable() and not {"", ".", ".."} & set(segments)


def redact(uri: str) -> str:
    """Return *uri* fit for errors and logs: without password and query.

    The query of a presigned address is a key to the object.
    """
    if uri.startswith(S3) or "://" not in uri:
        return uri
    try:
        parts = urlsplit(uri)
    except ValueError:
        return uri.partition("?")[0]
    host = parts.netloc.rpartition("@")[2]
    return f"{parts.scheme}://{host}{parts.path}{'?…' if parts.query else ''}"


def source_of(uri: str) -> str:
    """Name the bucket or host that *uri* is read from, for shares and for its health."""
    if uri.startswith(S3):
        return S3 + uri.removeprefix(S3).partition("/")[0]
    try:
        return f"{HTTPS}{urlsplit(uri).netloc.rpartition('@')[2].lower()}"
    except ValueError:
        return HTTPS
