"""Fetch image files from S3-compatible storage, and from https where that is allowed."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cached_property
from typing import TYPE_CHECKING, Any

from obstore.exceptions import (
    BaseError,
    NotModifiedError,
    PermissionDeniedError,
    PreconditionError,
    UnauthenticatedError,
)
from obstore.store import S3Store

from labelyard.errors import (
    ImageAccessDeniedError,
    ImageError,
    ImageNotFoundError,
    ImageTooLargeError,
    StorageUnavailableError,
    UnsupportedUriError,
)
from labelyard.messages import ImageRef
from labelyard_worker.intake.access import (
    StorageSettings,
    open_boto3,
    open_store,
    resolve_storage,
)
from labelyard_worker.intake.addresses import HTTPS, S3, S3Address, shown
from labelyard_worker.intake.https import HttpsSource
from labelyard_worker.intake.spec import Fetched, Unchanged

if TYPE_CHECKING:
    from obstore import GetOptions

__all__ = ["Fetched", "Storage", "StorageSettings", "Unchanged", "resolve_storage"]

CHANGED = "the object changed: its ETag is not the one in the message"
REFUSED = "storage refuses the worker's credentials"
ELSEWHERE = "the bucket is in another region: set LABELYARD_S3_REGION"

# What S3 says, in the body of its answer. Anything that is not here may pass.
ERRORS_BY_S3_CODE: dict[str, tuple[type[ImageError], str]] = {
    "NoSuchKey": (ImageNotFoundError, "no object has this key"),
    "NoSuchVersion": (ImageNotFoundError, "the object has no such version"),
    "MethodNotAllowed": (ImageNotFoundError, "this version marks a deletion"),
    "InvalidArgument": (ImageNotFoundError, "the object has no such version"),
    "KeyTooLongError": (ImageNotFoundError, "the key is longer than S3 allows"),
    "NoSuchBucket": (ImageNotFoundError, "there is no such bucket"),
    "InvalidBucketName": (ImageNotFoundError, "there is no such bucket"),
    "PreconditionFailed": (ImageNotFoundError, CHANGED),
    # Without s3:ListBucket S3 hides a missing key behind AccessDenied.
    "AccessDenied": (ImageAccessDeniedError, "storage refuses, or hides a missing key"),
    "AllAccessDisabled": (ImageAccessDeniedError, "the bucket is disabled"),
    "InvalidAccessKeyId": (ImageAccessDeniedError, REFUSED),
    "SignatureDoesNotMatch": (ImageAccessDeniedError, REFUSED),
    "InvalidObjectState": (ImageAccessDeniedError, "the object is archived: restore it first"),
    "PermanentRedirect": (ImageAccessDeniedError, ELSEWHERE),
    "AuthorizationHeaderMalformed": (ImageAccessDeniedError, ELSEWHERE),
}
_S3_CODE = re.compile(r"<Code>(\w+)</Code>")


class Storage:
    """Fetches files, within limits; one for each child, not for several threads."""

    def __init__(self, settings: StorageSettings, *, https: HttpsSource | None = None) -> None:
        """Prepare to fetch; connections are opened when they are needed.

        Args:
            https: In place of the source that *settings* describe.
        """
        self._settings = settings
        self._stores: dict[str, S3Store] = {}
        self._https = https
        if https is None and settings.https_sources:
            self._https = HttpsSource(
                hosts=settings.https_hosts,
                max_bytes=settings.max_bytes,
                timeout_s=settings.timeout_s,
            )

    def fetch(self, image: ImageRef, *, if_none_match: str | None = None) -> Fetched | Unchanged:
        """Read one image's file.

        Args:
            if_none_match: ETag that is known already; the file is not sent again if it
                still has that one.

        Raises:
            UnsupportedUriError: An address that is not read here.
            ImageNotFoundError: No such object, or not with the ETag asked for.
            ImageAccessDeniedError: Storage refused.
            ImageTooLargeError: Larger than the limit.
            StorageUnavailableError: No usable answer; it may work later.
        """
        uri = image.uri
        if uri.startswith(S3):
            return self._fetch_s3(image, if_none_match)
        if uri.startswith(HTTPS) and self._https is not None:
            return self._https.fetch(uri, if_match=image.etag, if_none_match=if_none_match)
        raise UnsupportedUriError(shown(uri), self._why_unsupported(uri))

    def _fetch_s3(self, image: ImageRef, if_none_match: str | None) -> Fetched | Unchanged:
        address = S3Address.parse(image.uri)
        allowed = self._settings.allowed_buckets
        if allowed and address.bucket not in allowed:
            raise UnsupportedUriError(image.uri, "the bucket is not in LABELYARD_ALLOWED_BUCKETS")
        options: GetOptions = {}
        if image.version_id is not None:
            options["version"] = image.version_id
        if image.etag is not None:
            options["if_match"] = _quoted(image.etag)
        if if_none_match is not None:
            options["if_none_match"] = _quoted(if_none_match)
        with s3_errors_as_ours(image.uri):
            try:
                if address.is_plain:
                    return self._get(address, options, uri=image.uri)
                return self._get_with_boto3(address, options, uri=image.uri)
            except NotModifiedError:
                return Unchanged(_unquoted(if_none_match or ""))

    def _get(self, address: S3Address, options: "GetOptions", *, uri: str) -> Fetched:
        answer = self._store(address.bucket).get(address.key, options=options)
        self._check_size(answer.meta["size"], uri=uri)
        # No stream: the client stops at the Content-Length that was just checked.
        return Fetched(bytes(answer.bytes()), _unquoted(answer.meta["e_tag"] or "") or None)

    def _get_with_boto3(self, address: S3Address, options: "GetOptions", *, uri: str) -> Fetched:
        """Read a key that obstore cannot ask for, ``a//b`` for example; slower."""
        from botocore.exceptions import BotoCoreError, ClientError

        named = {"version": "VersionId", "if_match": "IfMatch", "if_none_match": "IfNoneMatch"}
        request = {named[name]: value for name, value in options.items() if value is not None}
        try:
            answer = self._boto3.get_object(Bucket=address.bucket, Key=address.key, **request)
            self._check_size(answer["ContentLength"], uri=uri)
            with answer["Body"] as body:
                return Fetched(body.read(), _unquoted(answer["ETag"]))
        except ClientError as error:
            code = error.response["Error"]["Code"]
            if code == "304":
                raise NotModifiedError from error
            raise _error_for(code, uri=uri) from error
        except BotoCoreError as error:
            raise StorageUnavailableError(uri, type(error).__name__) from error

    def _check_size(self, size: int, *, uri: str) -> None:
        limit = self._settings.max_bytes
        if size > limit:
            raise ImageTooLargeError(uri, f"{size} bytes; the limit is {limit}")

    def _store(self, bucket: str) -> S3Store:
        if bucket not in self._stores:
            self._stores[bucket] = open_store(self._settings, bucket)
        return self._stores[bucket]

    @cached_property
    def _boto3(self) -> Any:
        return open_boto3(self._settings)

    def _why_unsupported(self, uri: str) -> str:
        if uri.startswith(HTTPS):
            return "https:// is off here: the operator can set LABELYARD_HTTPS_SOURCES"
        return "write s3://bucket/key"


@contextmanager
def s3_errors_as_ours(uri: str) -> Iterator[None]:
    """Turn what obstore raises inside the block into our errors.

    Raises:
        ImageNotFoundError: No such object, version or bucket, or another ETag.
        ImageAccessDeniedError: S3 refused.
        StorageUnavailableError: Anything else, no answer included.
    """
    try:
        yield
    except NotModifiedError:
        raise
    except FileNotFoundError as error:  # obstore's word for 404
        code = _S3_CODE.search(str(error))
        raise _error_for(code[1] if code else "NoSuchKey", uri=uri) from error
    except PreconditionError as error:
        raise ImageNotFoundError(uri, CHANGED) from error
    except (PermissionDeniedError, UnauthenticatedError) as error:
        code = _S3_CODE.search(str(error))
        raise _error_for(code[1] if code else "AccessDenied", uri=uri) from error
    except BaseError as error:
        code = _S3_CODE.search(str(error))
        raise _error_for(code[1] if code else _what_failed(error), uri=uri) from error


def _error_for(s3_code: str, *, uri: str) -> Exception:
    if s3_code in ERRORS_BY_S3_CODE:
        error, reason = ERRORS_BY_S3_CODE[s3_code]
        return error(uri, reason)
    return StorageUnavailableError(uri, s3_code)


def _what_failed(error: BaseError) -> str:
    """Cut obstore's text down to its cause; it holds addresses and a dump of its state."""
    first_line = str(error).partition("\n")[0]
    return first_line.rpartition(" - ")[2].partition(": <?xml")[0][:120]


def _quoted(etag: str) -> str:
    return etag if etag.startswith(('"', "W/")) else f'"{etag}"'


def _unquoted(etag: str) -> str:
    return etag.strip('"')
