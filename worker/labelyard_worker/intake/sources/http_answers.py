"""Read versions from an HTTP answer's headers, and translate errors of its connection."""

import socket
import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from email.utils import parsedate_to_datetime

from labelyard.errors import ImageAccessDeniedError
from labelyard_worker.intake.sources.http_client import HttpAnswer
from labelyard_worker.intake.sources.source import SourceDownError
from labelyard_worker.pixels import stamp_of


def stamp_in(answer: HttpAnswer, *, size_bytes: int) -> str:
    """Write down the version that an answer's headers name; empty without a time."""
    version_id = answer.header("x-amz-version-id") or None
    return stamp_of(size_bytes=size_bytes, changed_at=changed_at(answer), version_id=version_id)


def changed_at(answer: HttpAnswer) -> str:
    """Read when the file was changed, in the form that obstore gives; empty if not named."""
    try:
        return parsedate_to_datetime(answer.header("last-modified")).isoformat()
    except (TypeError, ValueError):
        return ""


def is_same_time(answer: HttpAnswer, stamp: str) -> bool:
    """Return whether a 304 names the time of change that *stamp* holds."""
    at = changed_at(answer)
    return bool(at) and stamp.split(" ")[1:2] == [at]


@contextmanager
def errors_as_ours(uri: str) -> Iterator[None]:
    """Translate exceptions of asyncio and ssl raised inside the block into our errors."""
    try:
        yield
    except ssl.SSLCertVerificationError as error:
        raise ImageAccessDeniedError(uri, "the host's certificate is not trusted") from error
    except socket.gaierror as error:
        raise SourceDownError(uri, "the host's name does not resolve") from error
    except (OSError, UnicodeError) as error:
        reason = str(error) if type(error).__module__.startswith("labelyard") else ""
        raise SourceDownError(uri, reason or type(error).__name__) from error
