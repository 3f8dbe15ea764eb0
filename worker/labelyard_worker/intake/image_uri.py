"""Read image addresses of any scheme: redact their secrets, name their bucket or host."""

from urllib.parse import urlsplit

S3 = "s3://"


def scheme_of(uri: str) -> str:
    """Return the part before ``://``; empty if there is none."""
    scheme, separator, _ = uri.partition("://")
    return scheme if separator else ""


def redact(uri: str) -> str:
    """Return *uri* fit for errors and logs: without password and query.

    The query of a presigned address is a key to the object. In an S3 key a question mark is
    a letter like any other.
    """
    if uri.startswith(S3) or "://" not in uri:
        return uri
    try:
        parts = urlsplit(uri)
    except ValueError:
        return uri.partition("?")[0]
    host = parts.netloc.rpartition("@")[2]
    return f"{parts.scheme}://{host}{parts.path}{'?…' if parts.query else ''}"


def bucket_or_host(uri: str) -> str:
    """Name the bucket or host that *uri* is read from, for shares and for its health."""
    if uri.startswith(S3):
        return S3 + uri.removeprefix(S3).partition("/")[0]
    scheme = scheme_of(uri)
    try:
        return f"{scheme}://{urlsplit(uri).netloc.rpartition('@')[2].lower()}"
    except ValueError:
        return f"{scheme}://"
