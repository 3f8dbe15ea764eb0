"""Parse the addresses of the S3 source: a bucket and a key, and nothing else."""

from dataclasses import dataclass
from typing import Self

from labelyard.buckets import NAMING_RULE, is_bucket_name
from labelyard.errors import ImageNotFoundError, UnsupportedUriError
from labelyard_worker.intake.image_uri import S3


@dataclass(frozen=True, slots=True)
class S3Address:
    """A bucket and a key; the key is used as written, nothing in it is decoded."""

    bucket: str
    key: str

    @classmethod
    def parse(cls, uri: str) -> Self:
        """Parse ``s3://bucket/key``.

        Raises:
            UnsupportedUriError: The bucket or the key is missing, or the bucket's name could
                lead a client to another server.
            ImageNotFoundError: The key names a folder.
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
        """Return whether obstore can request the key; it refuses or rewrites some that S3 allows."""
        segments = self.key.split("/")
        return self.key.isprintable() and not {"", ".", ".."} & set(segments)
