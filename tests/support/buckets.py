"""A bucket of its own for each test, on the session's SeaweedFS."""

import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Bucket:
    """A bucket, and the client to reach it.

    Attributes:
        name: Name of the bucket, unique.
        s3: boto3 client with the right to everything.
    """

    name: str
    s3: Any

    def put(self, key: str, body: bytes, **options: Any) -> str:
        """Store an object and return its ``s3://`` address."""
        self.s3.put_object(Bucket=self.name, Key=key, Body=body, **options)
        return self.uri(key)

    def get(self, key: str) -> bytes:
        """Return an object's bytes."""
        with self.s3.get_object(Bucket=self.name, Key=key)["Body"] as body:
            content: bytes = body.read()
        return content

    def keys(self, prefix: str = "") -> list[str]:
        """Return the first 1000 keys, sorted."""
        listing = self.s3.list_objects_v2(Bucket=self.name, Prefix=prefix)
        return sorted(entry["Key"] for entry in listing.get("Contents", []))

    def uri(self, key: str) -> str:
        """Return the ``s3://`` address of *key*."""
        return f"s3://{self.name}/{key}"


@contextmanager
def fresh_bucket(s3: Any) -> Iterator[Bucket]:
    """Make an empty bucket, and remove it with all that is in it."""
    name = f"test-{uuid.uuid4().hex[:20]}"
    s3.create_bucket(Bucket=name)
    yield Bucket(name, s3)
    s3.delete_bucket(Bucket=name)  # SeaweedFS removes what is inside too
