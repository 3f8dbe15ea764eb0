"""Every S3 answer means the same with and without a body, through obstore and signed by us."""

from http.server import BaseHTTPRequestHandler

import pytest

from labelyard.errors import (
    ImageAccessDeniedError,
    ImageNotFoundError,
    LabelyardError,
    StorageUnavailableError,
)
from labelyard_worker.intake.sources.s3 import S3Source
from labelyard_worker.intake.sources.s3_settings import S3Settings
from labelyard_worker.intake.sources.source import SourceDownError, TransferLimits
from labelyard_worker.pixels import Unchanged
from tests.support.answering import Answer, answering, reply
from tests.support.fetching import Fetched, SyncSource

DENIED, MISSING = ImageAccessDeniedError, ImageNotFoundError
PASSING, DOWN = StorageUnavailableError, SourceDownError
REGION = "set LABELYARD_S3_REGION"
DATE = "Mon, 23 Nov 2026 00:00:00 GMT"

# Status, code in the body, error, words of its reason.
WITH_BODY = [
    (301, "PermanentRedirect", DENIED, REGION),
    (307, "TemporaryRedirect", DENIED, REGION),
    (307, "Redirect", DENIED, REGION),
    (400, "AuthorizationHeaderMalformed", DENIED, REGION),
    (400, "IllegalLocationConstraintException", DENIED, REGION),
    (400, "InvalidRequest", DENIED, "SSE-C"),
    (400, "KMS.DisabledException", DENIED, "KMS.DisabledException"),
    (400, "KMS.NotFoundException", DENIED, "KMS.NotFoundException"),
    (400, "KMS.ThrottlingException", DOWN, "KMS.ThrottlingException"),
    (400, "InvalidArgument", MISSING, "version"),
    (400, "InvalidURI", MISSING, "key"),
    (400, "KeyTooLongError", MISSING, "longer"),
    (400, "InvalidBucketName", MISSING, "bucket"),
    (400, "InvalidToken", DENIED, "credentials"),
    (400, "ExpiredToken", PASSING, "ExpiredToken"),
    (400, "RequestTimeout", PASSING, "RequestTimeout"),
    (400, "SomethingNew", DENIED, "SomethingNew"),
    (403, "AccessDenied", DENIED, "hides a missing key"),
    (403, "AllAccessDisabled", DENIED, "disabled"),
    (403, "InvalidAccessKeyId", DENIED, "credentials"),
    (403, "SignatureDoesNotMatch", DENIED, "credentials"),
    (403, "InvalidObjectState", DENIED, "restore"),
    (403, "RequestTimeTooSkewed", PASSING, "RequestTimeTooSkewed"),
    (404, "NoSuchKey", MISSING, "key"),
    (404, "NoSuchBucket", MISSING, "bucket"),
    (404, "NoSuchVersion", MISSING, "version"),
    (405, "MethodNotAllowed", MISSING, "deletion"),
    (409, "OperationAborted", PASSING, "OperationAborted"),
    (412, "PreconditionFailed", MISSING, "changed"),
    (429, "TooManyRequests", DOWN, "TooManyRequests"),
    (500, "InternalError", DOWN, "InternalError"),
    (501, "NotImplemented", DENIED, "NotImplemented"),
    (503, "SlowDown", DOWN, "SlowDown"),
    (503, "RequestLimitExceeded", DOWN, "RequestLimitExceeded"),
    (503, "ServiceUnavailable", DOWN, "ServiceUnavailable"),
]
WITHOUT_BODY = [
    (301, DENIED, REGION),
    (302, DENIED, REGION),
    (307, DENIED, REGION),
    (400, DENIED, "400"),
    (401, DENIED, "credentials"),
    (403, DENIED, "hides a missing key"),
    (404, MISSING, "key"),
    (405, MISSING, "deletion"),
    (408, PASSING, "408"),
    (409, PASSING, "409"),
    (410, MISSING, "key"),
    (412, MISSING, "changed"),
    (416, DENIED, "416"),
    (425, PASSING, "425"),
    (429, DOWN, "429"),
    (451, DENIED, "451"),
    (500, DOWN, "500"),
    (501, DENIED, "implement"),
    (502, DOWN, "502"),
    (503, DOWN, "503"),
    (504, DOWN, "504"),
]
keys = pytest.mark.parametrize("key", ["plain", "not//plain"], ids=["obstore", "signed"])


def fetch(answer: Answer, key: str = "plain", **options: object) -> Fetched | Unchanged:
    with answering(answer) as port:
        settings = S3Settings(f"http://127.0.0.1:{port}", "us-east-1", is_anonymous=True)
        source = SyncSource(lambda: S3Source(settings), TransferLimits(timeout_s=30))
        return source.fetch(f"s3://pets/{key}", **options)


def error_of(answer: Answer, key: str = "plain", **options: object) -> LabelyardError:
    with pytest.raises(LabelyardError) as raised:
        fetch(answer, key, **options)
    return raised.value


def body_of(code: str) -> bytes:
    return f"<?xml version='1.0'?><Error><Code>{code}</Code></Error>".encode()


@keys
@pytest.mark.parametrize("has_length", [True, False], ids=["length", "no length"])
@pytest.mark.parametrize(("status", "code", "kind", "reason"), WITH_BODY)
def test_a_code_decides(
    status: int, code: str, kind: type[LabelyardError], reason: str, has_length: bool, key: str
) -> None:
    def answer(request: BaseHTTPRequestHandler) -> None:
        request.send_response(status)
        if has_length:
            request.send_header("Content-Length", str(len(body_of(code))))
        request.end_headers()
        request.wfile.write(body_of(code))

    error = error_of(answer, key)

    assert type(error) is kind
    if key != "plain" or status >= 400:  # obstore does not read the body of a redirect
        assert reason in str(error)
    assert REGION in str(error) or reason != REGION


@keys
@pytest.mark.parametrize(("status", "kind", "reason"), WITHOUT_BODY)
def test_without_a_body_the_status_decides(
    status: int, kind: type[LabelyardError], reason: str, key: str
) -> None:
    error = error_of(lambda request: reply(request, status), key)

    assert type(error) is kind
    assert reason in str(error)


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"ETag": '"1"'},
        {"Last-Modified": DATE},
        {"Last-Modified": "yesterday", "ETag": '"1"'},
        {"Last-Modified": DATE, "ETag": '"gr\u00fc\u00dfe"'},
    ],
    ids=str,
)
@pytest.mark.parametrize("has_length", [True, False])
def test_what_boto3_reads_is_read(headers: dict[str, str], has_length: bool) -> None:
    """A server that leaves out headers that obstore wants, or formats them differently."""

    def answer(request: BaseHTTPRequestHandler) -> None:
        request.send_response(200)
        for name, value in headers.items():
            request.send_header(name, value)
        if has_length:
            request.send_header("Content-Length", "3")
        request.end_headers()
        request.wfile.write(b"cat")

    file = fetch(answer)

    assert isinstance(file, Fetched)
    assert file.data == b"cat"


@keys
def test_a_304_that_nobody_asked_for_is_an_error_that_passes(key: str) -> None:
    error = error_of(lambda request: reply(request, 304), key)

    assert type(error) is StorageUnavailableError
    assert "unconditional" in str(error)


@keys
def test_a_304_that_was_asked_for_is_not(key: str) -> None:
    assert fetch(lambda request: reply(request, 304), key, known_etag="1") == Unchanged("1")


def test_a_known_object_is_read_from_a_server_that_answers_head_with_an_error() -> None:
    """The server of these tests answers HEAD with 501; the GET behind it decides."""

    def answer(request: BaseHTTPRequestHandler) -> None:
        reply(request, 200, b"cat", ETag='"1"', Last_Modified=DATE)

    file = fetch(answer, known_etag="1", known_stamp="3 2026-11-23T00:00:00+00:00 None")

    assert isinstance(file, Fetched)
    assert file.data == b"cat"


@pytest.mark.parametrize("text", ["a\nb", "a\rb", "a\x00b", "a\x7fb", "a\u0085b"], ids=repr)
@pytest.mark.parametrize("field", ["etag", "version_id"])
def test_control_characters_in_a_message_never_reach_a_client(field: str, text: str) -> None:
    """obstore panics over them."""

    def answer(request: BaseHTTPRequestHandler) -> None:
        reply(request, 404, body_of("NoSuchVersion"))

    error = error_of(answer, **{field: text})

    assert type(error) is ImageNotFoundError


@keys
def test_a_body_that_is_shorter_than_announced_is_not_taken_for_whole(key: str) -> None:
    def answer(request: BaseHTTPRequestHandler) -> None:
        reply(request, 200, b"half", Content_Length="8", ETag='"1"', Last_Modified=DATE)

    assert isinstance(error_of(answer, key), StorageUnavailableError)


@pytest.mark.parametrize("bucket", ["evil:8080", "evil@host", "a%2fb", "a?b", "a b", "a#b"])
def test_a_bucket_cannot_name_another_host(bucket: str) -> None:
    asked: list[str] = []

    def answer(request: BaseHTTPRequestHandler) -> None:
        asked.append(request.path)
        reply(request, 404)

    with answering(answer) as port:
        settings = S3Settings(f"http://127.0.0.1:{port}", "us-east-1", is_anonymous=True)
        with pytest.raises(LabelyardError, match="bucket"):
            SyncSource(lambda: S3Source(settings)).fetch(f"s3://{bucket}/key")

    assert asked == []


@pytest.mark.parametrize(
    ("answer", "is_down"),
    [
        ((404, "NoSuchKey"), False),
        ((403, "AccessDenied"), False),
        ((403, ""), False),
        ((500, "InternalError"), True),
        ((503, ""), True),
    ],
)
def test_a_probe_tells_a_failing_bucket_from_a_failing_object(
    answer: tuple[int, str], is_down: bool
) -> None:
    status, code = answer
    body = body_of(code) if code else b""

    with answering(lambda request: reply(request, status, body)) as port:
        settings = S3Settings(f"http://127.0.0.1:{port}", "us-east-1", is_anonymous=True)
        source = SyncSource(lambda: S3Source(settings))

        assert source.is_down("s3://pets/cat") == is_down

    assert source.is_down("s3://pets/cat")  # nobody answers any more
