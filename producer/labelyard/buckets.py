"""Names of S3 buckets: which ones may reach an S3 client."""

import re

# A client puts the name into a host name or a path, so that a name such as
# ``evil:8080?`` would send a signed request to another server.
# Source: "Bucket naming rules" of Amazon S3; other servers allow _ and short names besides.
_NAME = re.compile(r"(?=.{1,63}\Z)[a-z0-9](?:(?:[a-z0-9_-]|\.(?!\.))*[a-z0-9])?\Z")
_IP_ADDRESS = re.compile(r"\d+\.\d+\.\d+\.\d+\Z")

NAMING_RULE = (
    "a bucket's name is up to 63 lower-case letters, digits, hyphens, underscores and single dots, "
    "with a letter or digit at both ends, and is not an IP address"
)


def is_bucket_name(name: str) -> bool:
    """Return whether *name* follows the naming rules of S3."""
    return _NAME.match(name) is not None and _IP_ADDRESS.match(name) is None
