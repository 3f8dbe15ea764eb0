"""Files come out of real storage, and everything that goes wrong has its code."""

import json
from dataclasses import replace
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import pytest

from labelyard.errors import (
    ImageAccessDeniedError,
    ImageNotFoundError,
    ImageTooLargeError,
    LabelyardError,
    StorageUnavailableError,
    UnsupportedUriError,
)
from labelyard.s3_client import S3Credentials
from labelyard_worker.intake.sources.fetcher_settings import FetcherSettings
from labelyard_worker.intake.sources.s3 import S3Source, config_of
from labelyard_worker.intake.sources.s3_settings import S3Settings, resolve_s3
from labelyard_worker.intake.sources.source import TransferLimits
from labelyard_worker.local.servers import SeaweedServer
from labelyard_worker.pixels import Unchanged
from labelyard_worker.settings import WorkerSettings
from tests.support.answering import answering, reply
from tests.support.buckets import Bucket
from tests.support.fetching import Fetched, SyncSource


def open_s3(settings: S3Settings, **limits: Any) -> SyncSource:
    return SyncSource(lambda: S3Source(settings), TransferLimits(**limits))


def resolve(**settings: Any) -> S3Settings:
    return resolve_s3(WorkerSettings(**settings), timeout_s=5)


@pytest.fixture
def s3_settings(seaweed: SeaweedServer, monkeypatch: pytest.MonkeyPatch) -> S3Settings:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", seaweed.access_key_id)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", seaweed.secret_access_key)
    return resolve(s3_endpoint_url=seaweed.endpoint_url)


@pytest.fixture
def storage(s3_settings: S3Settings) -> SyncSource:
    return open_s3(s3_settings)


@pytest.mark.parametrize(
    "key",
    [
        "cat.jpg",
        "a folder/ü né.jpg",
        "100%25.jpg",
        "a+b?c#d&e=f.jpg",
        "[1] {2} ~*'\"\\^`|<>.jpg",
        "a//b.jpg",
        "line\nbreak.jpg",
    ],
)
def test_any_key_that_s3_allows_is_read_as_written(
    storage: SyncSource, bucket: Bucket, key: str
) -> None:
    """Nothing in a key is decoded, encoded or cut off."""
    uri = bucket.put(key, key.encode())

    file = storage.fetch(uri)

    assert isinstance(file, Fetched)
    assert file.data == key.encode()
    assert file.etag == bucket.s3.head_object(Bucket=bucket.name, Key=key)["ETag"].strip('"')


def test_an_older_version_is_read_when_asked_for(storage: SyncSource, bucket: Bucket) -> None:
    """In a bucket that keeps versions."""
    enabled = {"Status": "Enabled"}
    bucket.s3.put_bucket_versioning(Bucket=bucket.name, VersioningConfiguration=enabled)
    first = bucket.s3.put_object(Bucket=bucket.name, Key="cat", Body=b"kitten")["VersionId"]
    uri = bucket.put("cat", b"grown")

    older, newest = storage.fetch(uri, version_id=first), storage.fetch(uri)

    assert isinstance(older, Fetched)
    assert isinstance(newest, Fetched)
    assert (older.data, newest.data) == (b"kitten", b"grown")


@pytest.mark.parametrize("key", ["plain", "not//plain"])
def test_etags_decide_what_is_sent(storage: SyncSource, bucket: Bucket, key: str) -> None:
    """Known ones spare the transfer, other ones than the message's are refused."""
    uri = bucket.put(key, b"cat")
    file = storage.fetch(uri)
    assert isinstance(file, Fetched)
    assert file.etag is not None

    assert storage.fetch(uri, etag=file.etag) == file
    assert storage.fetch(uri, etag=f'"{file.etag}"') == file
    known = {"known_etag": file.etag, "known_stamp": file.stamp}
    assert storage.fetch(uri, **known) == Unchanged(file.etag)
    assert storage.fetch(uri, **known | {"known_etag": "another"}) == file
    with pytest.raises(ImageNotFoundError, match="changed"):
        storage.fetch(uri, etag="another")


@pytest.mark.parametrize("key", ["plain", "not//plain"])
@pytest.mark.parametrize("differs", ["size", "time", "version", "no stamp"])
def test_an_equal_etag_is_not_believed_alone(
    storage: SyncSource, bucket: Bucket, key: str, differs: str
) -> None:
    """Files of equal MD5, and so of equal ETag, can be made at will."""
    uri = bucket.put(key, b"cat")
    file = storage.fetch(uri)
    assert isinstance(file, Fetched)
    size, at, version = file.stamp.split(" ")
    stamps = {
        "size": f"{int(size) + 1} {at} {version}",
        "time": f"{size} 2020-01-01T00:00:00+00:00 {version}",
        "version": f"{size} {at} another",
        "no stamp": "",
    }

    assert size == "3"
    assert storage.fetch(uri, known_etag=file.etag, known_stamp=stamps[differs]) == file


@pytest.mark.parametrize(
    ("uri", "error", "reason"),
    [
        ("s3://{bucket}/missing.jpg", ImageNotFoundError, "no object"),
        ("s3://{bucket}/missing//too.jpg", ImageNotFoundError, "no object"),
        ("s3://no-such-bucket-here/cat.jpg", ImageNotFoundError, "no such bucket"),
        ("s3://{bucket}/folder/", ImageNotFoundError, "folder"),
        ("s3://{bucket}/folder", ImageNotFoundError, "no object"),
        ("s3://{bucket}", UnsupportedUriError, "s3://bucket/key"),
        ("s3:///cat.jpg", UnsupportedUriError, "s3://bucket/key"),
    ],
)
def test_each_wrong_address_has_its_code(
    storage: SyncSource, bucket: Bucket, uri: str, error: type[LabelyardError], reason: str
) -> None:
    """The error's text names the wrong part of the address."""
    bucket.put("folder/cat.jpg", b"cat")

    with pytest.raises(error, match=reason):
        storage.fetch(uri.format(bucket=bucket.name))


def test_an_empty_object_is_read_as_such(storage: SyncSource, bucket: Bucket) -> None:
    """Only the decoder refuses it as a picture."""
    file = storage.fetch(bucket.put("empty", b""))

    assert isinstance(file, Fetched)
    assert file.data == b""


@pytest.mark.parametrize("key", ["plain", "not//plain"])
def test_a_file_beyond_the_limit_is_not_read(
    s3_settings: S3Settings, bucket: Bucket, key: str
) -> None:
    """One byte more than allowed is refused by what the server announces."""
    uri = bucket.put(key, bytes(1000))

    open_s3(s3_settings, max_bytes=1000).fetch(uri)
    with pytest.raises(ImageTooLargeError, match="1000 bytes; the limit is 999"):
        open_s3(s3_settings, max_bytes=999).fetch(uri)


def test_only_allowed_buckets_are_read(s3_settings: S3Settings, bucket: Bucket) -> None:
    """If the operator lists any, other buckets are refused."""
    uri = bucket.put("cat", b"cat")

    open_s3(replace(s3_settings, allowed_buckets=(bucket.name,))).fetch(uri)
    with pytest.raises(UnsupportedUriError, match="LABELYARD_ALLOWED_BUCKETS"):
        open_s3(replace(s3_settings, allowed_buckets=("others",))).fetch(uri)


@pytest.mark.parametrize("key", ["plain", "not//plain"])
@pytest.mark.parametrize("is_known", [True, False], ids=["wrong secret", "unknown key"])
def test_refused_credentials_are_an_error_of_access(
    s3_settings: S3Settings,
    seaweed: SeaweedServer,
    bucket: Bucket,
    key: str,
    is_known: bool,
) -> None:
    """Not one that a retry could cure."""
    uri = bucket.put(key, b"cat")
    access_key = seaweed.access_key_id if is_known else "UNKNOWN"
    wrong = replace(s3_settings, credentials=S3Credentials(access_key, "wrong"))

    with pytest.raises(ImageAccessDeniedError, match="credentials"):
        open_s3(wrong).fetch(uri)


@pytest.mark.parametrize("key", ["plain", "not//plain"])
def test_a_server_that_is_away_is_unavailable(s3_settings: S3Settings, key: str) -> None:
    """Refused connections pass."""
    away = replace(s3_settings, endpoint_url="http://127.0.0.1:1")

    with pytest.raises(StorageUnavailableError):
        open_s3(away).fetch(f"s3://pets/{key}")


def s3_error(status: int, code: str) -> tuple[int, bytes]:
    return status, f"<?xml version='1.0'?><Error><Code>{code}</Code></Error>".encode()


@pytest.mark.parametrize("key", ["plain", "not//plain"])
@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (s3_error(403, "AccessDenied"), ImageAccessDeniedError),
        (s3_error(403, "InvalidObjectState"), ImageAccessDeniedError),
        (s3_error(403, "RequestTimeTooSkewed"), StorageUnavailableError),
        (s3_error(404, "NoSuchVersion"), ImageNotFoundError),
        (s3_error(400, "InvalidArgument"), ImageNotFoundError),
        (s3_error(500, "InternalError"), StorageUnavailableError),
        (s3_error(503, "SlowDown"), StorageUnavailableError),
        ((502, b"<html>bad gateway</html>"), StorageUnavailableError),
        ((200, b""), None),
    ],
    ids=lambda value: str(value)[:40],
)
def test_what_s3_answers_becomes_our_error(
    s3_settings: S3Settings,
    key: str,
    answer: tuple[int, bytes],
    error: type[LabelyardError] | None,
) -> None:
    """Both clients raise the same error; its text holds no dump of the client's state."""

    def tell(request: BaseHTTPRequestHandler) -> None:
        reply(request, *answer, ETag='"1"', Last_Modified="Mon, 23 Nov 2026 00:00:00 GMT")

    with answering(tell) as port:
        storage = open_s3(replace(s3_settings, endpoint_url=f"http://127.0.0.1:{port}"))
        if error is None:
            assert storage.fetch(f"s3://pets/{key}") == Fetched(b"", "1")
            return
        with pytest.raises(error) as raised:
            storage.fetch(f"s3://pets/{key}")

    assert len(str(raised.value)) < 150


def test_a_server_that_stalls_is_unavailable(s3_settings: S3Settings) -> None:
    """After the time for one fetch, not after that of the client's default."""

    def stall(request: BaseHTTPRequestHandler) -> None:
        request.send_response(200)
        request.send_header("Content-Length", "100")
        request.send_header("Last-Modified", "Mon, 23 Nov 2026 00:00:00 GMT")
        request.end_headers()
        request.rfile.read(1)  # until the client hangs up

    with answering(stall) as port:
        url = f"http://127.0.0.1:{port}"
        storage = open_s3(replace(s3_settings, endpoint_url=url), timeout_s=0.3)
        with pytest.raises(StorageUnavailableError):
            storage.fetch("s3://pets/cat")


def test_profiles_and_regions_are_resolved_as_boto3_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From AWS's own variables and files; ours go before them."""
    (tmp_path / "config").write_text(
        "[profile yard]\nregion = eu-central-1\nendpoint_url = http://127.0.0.1:7\n"
    )
    (tmp_path / "keys").write_text("[yard]\naws_access_key_id=A\naws_secret_access_key=B\n")
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "keys"))
    monkeypatch.setenv("AWS_PROFILE", "yard")

    theirs = resolve()
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", "http://127.0.0.1:8")
    from_variable = resolve()
    ours = resolve(s3_endpoint_url="http://127.0.0.1:9", s3_region="x")

    assert (theirs.endpoint_url, theirs.region) == ("http://127.0.0.1:7", "eu-central-1")
    assert theirs.credentials == S3Credentials("A", "B")
    assert from_variable.endpoint_url == "http://127.0.0.1:8"
    assert (ours.endpoint_url, ours.region) == ("http://127.0.0.1:9", "x")


def test_without_credentials_requests_go_unsigned(s3_settings: S3Settings) -> None:
    """Requests to public buckets are not signed."""
    seen: list[str | None] = []

    def note(request: BaseHTTPRequestHandler) -> None:
        seen.append(request.headers.get("Authorization"))
        reply(request, 200, b"cat", ETag='"1"', Last_Modified="Mon, 23 Nov 2026 00:00:00 GMT")

    with answering(note) as port:
        anonymous = replace(
            s3_settings,
            endpoint_url=f"http://127.0.0.1:{port}",
            credentials=None,
            is_anonymous=True,
        )
        storage = open_s3(anonymous)
        for key in ("plain", "not//plain"):
            storage.fetch(f"s3://pets/{key}")

    assert seen == [None, None]


def test_settings_cross_to_a_child_and_never_show_their_keys(
    s3_settings: S3Settings, seaweed: SeaweedServer
) -> None:
    """Not even in repr."""
    config = config_of(s3_settings)
    fetcher = FetcherSettings((config,))

    crossed = FetcherSettings.from_json(json.loads(json.dumps(fetcher.to_json())))

    assert crossed.limits == fetcher.limits
    assert S3Settings.from_json(crossed.sources[0].settings) == s3_settings
    assert crossed.variables == config.variables
    assert seaweed.secret_access_key not in repr((fetcher, crossed))
    assert seaweed.secret_access_key not in repr(s3_settings)
    assert seaweed.access_key_id not in repr(s3_settings)
