"""Classify an S3 server's answers: by code, else by status.

Codes are those of the Amazon S3 API reference ("Error responses", 2025), and those that
botocore's retry rules count as throttling (``botocore/data/_retry.json``).
"""

import re
from typing import NamedTuple

from labelyard.errors import (
    ImageAccessDeniedError,
    ImageError,
    ImageNotFoundError,
    LabelyardError,
    StorageUnavailableError,
)
from labelyard_worker.intake.sources.source import SourceDownError

CHANGED = "the object changed: its ETag is not the one in the message"
_NO_KEY = (ImageNotFoundError, "no object has this key")
_NO_VERSION = (ImageNotFoundError, "the object has no such version")
_DELETED = (ImageNotFoundError, "this version marks a deletion")
_NO_BUCKET = (ImageNotFoundError, "there is no such bucket")
_CHANGED = (ImageNotFoundError, CHANGED)
# Without s3:ListBucket S3 hides a missing key behind AccessDenied.
_DENIED = (ImageAccessDeniedError, "storage refuses, or hides a missing key")
_DISABLED = (ImageAccessDeniedError, "the account or the bucket is disabled")
_REFUSED = (ImageAccessDeniedError, "storage refuses the worker's credentials")
_ELSEWHERE = (
    ImageAccessDeniedError,
    "the bucket is in another region: set LABELYARD_S3_REGION",
)
_ARCHIVED = (ImageAccessDeniedError, "the object is archived: restore it first")
_ENCRYPTED = (ImageAccessDeniedError, "the object's encryption key is not usable by the worker")

FINAL: dict[str, tuple[type[ImageError], str]] = {
    "NoSuchKey": _NO_KEY,
    "NoSuchVersion": _NO_VERSION,
    "InvalidArgument": _NO_VERSION,
    "MethodNotAllowed": _DELETED,
    "KeyTooLongError": (ImageNotFoundError, "the key is longer than S3 allows"),
    "InvalidURI": (ImageNotFoundError, "the key is not one that S3 allows"),
    "NoSuchBucket": _NO_BUCKET,
    "InvalidBucketName": _NO_BUCKET,
    "PreconditionFailed": _CHANGED,
    "AccessDenied": _DENIED,
    "AllAccessDisabled": _DISABLED,
    "AccountProblem": _DISABLED,
    "NotSignedUp": _DISABLED,
    "InvalidPayer": _DISABLED,
    "InvalidSecurity": _REFUSED,
    "InvalidToken": _REFUSED,
    "InvalidAccessKeyId": _REFUSED,
    "SignatureDoesNotMatch": _REFUSED,
    "MissingSecurityHeader": _REFUSED,
    "InvalidObjectState": _ARCHIVED,
    "PermanentRedirect": _ELSEWHERE,
    "TemporaryRedirect": _ELSEWHERE,
    "Redirect": _ELSEWHERE,
    "AuthorizationHeaderMalformed": _ELSEWHERE,
    "AuthorizationQueryParametersError": _ELSEWHERE,
    "IllegalLocationConstraintException": _ELSEWHERE,
    "IncorrectEndpoint": _ELSEWHERE,
    "InvalidEncryptionAlgorithmError": _ENCRYPTED,
    "ServerSideEncryptionConfigurationNotFoundError": _ENCRYPTED,
    # S3's answer for an object whose key the caller must send (SSE-C), among others.
    "InvalidRequest": (
        ImageAccessDeniedError,
        "storage refuses the request; an object encrypted with its own key (SSE-C) is not read",
    ),
}

# Throttling and transient errors; the server is up, or itself reports that it is not.
TRANSIENT = {
    "ExpiredToken",
    "TokenRefreshRequired",
    "RequestExpired",
    "RequestTimeTooSkewed",
    "OperationAborted",
    "ConditionalRequestConflict",
    "RequestTimeout",
    "RequestTimeoutException",
    "IncompleteBody",
    "BadDigest",
}
DOWN = {
    "BandwidthLimitExceeded",
    "EC2ThrottledException",
    "InternalError",
    "InternalServerError",
    "LimitExceededException",
    "PriorRequestNotComplete",
    "ProvisionedThroughputExceededException",
    "RequestLimitExceeded",
    "RequestThrottled",
    "RequestThrottledException",
    "ServerBusy",
    "ServiceUnavailable",
    "SlowDown",
    "SlowDownRead",
    "ThrottledException",
    "Throttling",
    "ThrottlingException",
    "TooManyRequests",
    "TooManyRequestsException",
    "TransactionInProgressException",
    "KMS.ThrottlingException",
    "KMS.KMSInternalException",
    "KMS.DependencyTimeoutException",
    "KMS.KeyUnavailableException",
}

FINAL_BY_STATUS: dict[int, tuple[type[ImageError], str]] = {
    404: _NO_KEY,
    410: _NO_KEY,
    405: _DELETED,
    412: _CHANGED,
    414: (ImageNotFoundError, "the key is longer than S3 allows"),
    401: _REFUSED,
    403: _DENIED,
    501: (ImageAccessDeniedError, "storage does not implement the request"),
}
TRANSIENT_STATUSES = {408, 409, 425}
THROTTLED_STATUS = 429

_CODE = re.compile(r"<Code>\s*([\w.-]{1,80})\s*</Code>")
_STATUS = re.compile(r"status code: (\d{3})\b")
_REDIRECT = "redirect without LOCATION"


class S3Answer(NamedTuple):
    """Status and code of an answer, as far as they are known."""

    status: int
    code: str

    @property
    def is_readable(self) -> bool:
        """Return whether the answer can be classified."""
        return bool(self.code) or not 0 <= self.status < 300


def error_of(answer: S3Answer, *, uri: str) -> LabelyardError:
    """Classify an answer that is not a file."""
    status, code = answer
    name = code or str(status)
    if code in FINAL:
        error, reason = FINAL[code]
        return error(uri, reason)
    if code in DOWN or status == THROTTLED_STATUS:
        return SourceDownError(uri, f"storage answers {name}")
    if code in TRANSIENT:
        return StorageUnavailableError(uri, f"storage answers {name}")
    if code.startswith("KMS."):
        return ImageAccessDeniedError(uri, f"{_ENCRYPTED[1]} ({code})")
    return _error_by_status(status, name, uri=uri)


def _error_by_status(status: int, name: str, *, uri: str) -> LabelyardError:
    if status in FINAL_BY_STATUS:
        error, reason = FINAL_BY_STATUS[status]
        return error(uri, reason if name == str(status) else f"storage answers {name}")
    if 300 <= status < 400:
        error, reason = _ELSEWHERE
        return error(uri, reason)
    if status in TRANSIENT_STATUSES:
        return StorageUnavailableError(uri, f"storage answers {name}")
    if 400 <= status < 500:
        return ImageAccessDeniedError(uri, f"storage refuses the request: {name}")
    return SourceDownError(uri, f"storage answers {name}")


def read_body(status: int, body: bytes) -> S3Answer:
    """Read the error code out of an answer's body; empty if it has none."""
    code = _CODE.search(body[:65536].decode("utf-8", "replace"))
    return S3Answer(status, code[1] if code else "")


def read_obstore(error: Exception) -> S3Answer | None:
    """Read status and code out of an exception of obstore.

    Returns:
        ``None`` if no answer came, or if obstore could not make sense of a sound one.
    """
    text = str(error).partition("\n\nDebug source:")[0]
    if _REDIRECT in text:
        code = _CODE.search(text)
        return S3Answer(301, code[1] if code else "")
    status = _STATUS.search(text)
    if status is None:
        return None
    code = _CODE.search(text)
    return S3Answer(int(status[1]), code[1] if code else "")


def obstore_reason(error: Exception) -> str:
    """Cut obstore's text down to its cause; it holds addresses and a dump of its state."""
    first_line = str(error).partition("\n")[0]
    return first_line.rpartition(" - ")[2].partition(": <?xml")[0][:120]


def is_broken_off(error: Exception) -> bool:
    """Return whether the connection failed, before or while the answer was read."""
    text = str(error).partition("\n\nDebug source:")[0]
    return "error sending request" in text or "decoding response body" in text
