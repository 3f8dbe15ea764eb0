"""Object storage: its address, the credentials, and the buckets that are read and written."""

import secrets
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass, field
from typing import Any, Final
from urllib.parse import urlsplit

from labelyard.buckets import NAMING_RULE, is_bucket_name
from labelyard.doctor import storage_kinds as kinds
from labelyard.doctor.clocks import check_storage_clock
from labelyard.doctor.examination import ANSWER_S, Examination, describe, guarded
from labelyard.doctor.report import Finding
from labelyard.s3_client import open_s3_client

#: Variables of which one is set where S3 is meant to be used.
S3_VARIABLES: Final = (
    "LABELYARD_S3_ENDPOINT_URL",
    "LABELYARD_UPLOAD_BUCKET",
    "LABELYARD_RESULT_BUCKETS",
    "LABELYARD_ALLOWED_BUCKETS",
    "AWS_ACCESS_KEY_ID",
    "AWS_PROFILE",
    "AWS_ENDPOINT_URL",
    "AWS_ENDPOINT_URL_S3",
    "AWS_ROLE_ARN",
)
DENIED: Final = frozenset({"403", "AccessDenied", "Forbidden", "AllAccessDisabled"})
MISSING: Final = frozenset({"404", "NoSuchBucket", "NoSuchKey", "NotFound"})
BAD_KEYS: Final = frozenset({"InvalidAccessKeyId", "SignatureDoesNotMatch", "ExpiredToken"})
BAD_CLOCK: Final = frozenset({"RequestTimeTooSkewed"})
NO_CREDENTIALS: Final = "no credentials"
PROBE: Final = "labelyard-doctor-"
#: MD5 of no bytes at all, in Base64.
DIGEST_OF_NOTHING: Final = "1B2M2Y8AsgTpgAmY7PhCfg=="


def examine_storage(exam: Examination) -> Iterator[Finding]:
    """Reach the S3 server, and try what the settings need on each bucket that they name."""
    settings = exam.settings
    if not exam.is_worker and not any(exam.environ.get(name) for name in S3_VARIABLES):
        yield kinds.S3_NOT_CONFIGURED.at()
        return
    try:
        client = open_s3_client(
            endpoint_url=settings.s3_endpoint_url,
            region=settings.s3_region,
            addressing="path" if settings.s3_endpoint_url else None,
            connect_timeout=ANSWER_S,
            read_timeout=ANSWER_S,
            retries={"total_max_attempts": 1},
        )
    except ModuleNotFoundError as error:
        yield kinds.S3_LIBRARIES_MISSING.at(why=describe(error))
        return
    except Exception as error:  # noqa: BLE001 - botocore: ValueError, ProfileNotFound and others
        yield kinds.S3_CONFIG_REFUSED.at(why=describe(error))
        return
    with closing(client):
        yield from _StorageExamination(client, exam).findings()


class _StorageExamination:
    """Examination of one S3 server."""

    def __init__(self, client: Any, exam: Examination) -> None:
        self._s3 = client
        self._exam = exam
        endpoint = urlsplit(client.meta.endpoint_url)
        self._place = endpoint.netloc.rpartition("@")[2]
        self._is_clock_checked = False
        self._is_over = False  # the server cannot be used, and a finding says why

    def findings(self) -> Iterator[Finding]:
        """Check the buckets in turn, unless the server cannot be used at all."""
        settings = self._exam.settings
        checks: list[tuple[str, Callable[[str, str, _Answer], Iterator[Finding]]]]
        checks = [(bucket, self._check_readable) for bucket in settings.allowed_buckets]
        checks += [(entry, self._check_results) for entry in settings.result_buckets]
        if not self._exam.is_worker:
            checks.append((settings.upload_bucket, self._check_uploads))
        if not checks:
            yield from self._check_server()
        for entry, check in checks:
            bucket = entry.partition("/")[0]
            if not is_bucket_name(bucket):
                yield kinds.S3_BUCKET_NAME_BAD.at(bucket=bucket, rule=NAMING_RULE)
            elif not self._is_over:
                yield from guarded(f"The bucket {bucket}", self._check_bucket, entry, check)

    def _check_server(self) -> Iterator[Finding]:
        """Send one signed request; a refusal to list buckets is an answer, too."""
        yield from self._check_answer(self._try("list_buckets"))
        if not self._is_over:
            yield kinds.S3_REACHED.at(place=self._place)

    def _check_bucket(self, entry: str, check: Any) -> Iterator[Finding]:
        """List one object of the bucket, then try what is done with it."""
        bucket, _, prefix = entry.partition("/")
        answer = self._try("list_objects_v2", Bucket=bucket, MaxKeys=1)
        yield from self._check_answer(answer)
        if not self._is_over:
            yield from check(bucket, prefix, answer)

    def _check_answer(self, answer: "_Answer") -> Iterator[Finding]:
        """Check the clock, and whether the server accepts the credentials."""
        if not self._is_clock_checked and answer.date:
            self._is_clock_checked = True
            yield from check_storage_clock(answer.date, self._exam)
        refusals = {
            kinds.S3_UNREACHABLE: answer.is_silence,
            kinds.S3_CREDENTIALS_MISSING: answer.code == NO_CREDENTIALS,
            kinds.S3_CREDENTIALS_REFUSED: answer.code in BAD_KEYS,
        }
        for kind, is_refused in refusals.items():
            if is_refused:
                yield kind.at(place=self._place, why=answer.code)
        # A wrong clock has a finding of its own.
        self._is_over = any(refusals.values()) or answer.code in BAD_CLOCK

    def _check_readable(self, bucket: str, _: str, listed: "_Answer") -> Iterator[Finding]:
        """Check that pictures of a bucket can be read."""
        if listed.code in MISSING:
            yield kinds.S3_BUCKET_MISSING.at(bucket=bucket, setting="LABELYARD_ALLOWED_BUCKETS")
            return
        contents = listed.fields.get("Contents") or [{"Key": f"{PROBE}none"}]
        key = str(contents[0]["Key"])
        read = self._try("get_object", Bucket=bucket, Key=key, Range="bytes=0-0")
        if read.code not in DENIED:  # a missing key that is reported as missing is readable, too
            yield kinds.S3_BUCKET_USABLE.at(bucket=bucket, action="read")
        elif listed.code in DENIED:
            yield kinds.S3_LIST_REFUSED.at(bucket=bucket)
        else:
            yield kinds.S3_READ_REFUSED.at(bucket=bucket)

    def _check_results(self, bucket: str, prefix: str, listed: "_Answer") -> Iterator[Finding]:
        """Check that results can be written."""
        setting = "LABELYARD_RESULT_BUCKETS"
        if listed.code in MISSING:
            yield kinds.S3_BUCKET_MISSING.at(bucket=bucket, setting=setting)
            return
        prefix = prefix.replace("{tenant}", "default")
        yield from self._check_writable(bucket, prefix, setting=setting)

    def _check_uploads(self, bucket: str, _: str, listed: "_Answer") -> Iterator[Finding]:
        """Check that the command line can upload local files; it makes a missing bucket."""
        if listed.code in MISSING:
            yield kinds.S3_UPLOAD_BUCKET_NEW.at(bucket=bucket)
            return
        prefix = self._exam.settings.upload_prefix
        yield from self._check_writable(bucket, prefix, setting="LABELYARD_UPLOAD_BUCKET")

    def _check_writable(self, bucket: str, prefix: str, *, setting: str) -> Iterator[Finding]:
        """Send an object with the digest of another: S3 checks the right, and writes nothing."""
        key = f"{prefix}{PROBE}{secrets.token_hex(8)}"
        put = self._try(
            "put_object", Bucket=bucket, Key=key, Body=b"a", ContentMD5=DIGEST_OF_NOTHING
        )
        if not put.code:  # a server that does not check digests has written it
            put = self._try("delete_object", Bucket=bucket, Key=key)
        if put.code in ("", "BadDigest", "InvalidDigest"):
            yield kinds.S3_BUCKET_USABLE.at(bucket=bucket, action="written")
        elif put.code in MISSING:
            yield kinds.S3_BUCKET_MISSING.at(bucket=bucket, setting=setting)
        else:
            yield kinds.S3_WRITE_REFUSED.at(bucket=bucket, why=put.code, setting=setting)

    def _try(self, operation: str, **arguments: Any) -> "_Answer":
        """Send one request."""
        from botocore.exceptions import BotoCoreError, ClientError, NoCredentialsError

        try:
            fields = getattr(self._s3, operation)(**arguments)
        except NoCredentialsError:
            return _Answer(NO_CREDENTIALS)
        except ClientError as error:
            return _Answer(str(error.response["Error"]["Code"]), error.response)
        except BotoCoreError as error:
            return _Answer(describe(error), is_silence=True)
        if "Body" in fields:
            fields["Body"].close()
        return _Answer("", fields)


@dataclass(frozen=True, slots=True)
class _Answer:
    """Answer of S3 to one request.

    Attributes:
        code: S3's code of an error; empty if the request succeeded.
        is_silence: Whether there was no usable answer, and *code* says why.
    """

    code: str
    fields: Mapping[str, Any] = field(default_factory=dict)
    is_silence: bool = False

    @property
    def date(self) -> str:
        """The server's time, as it wrote it."""
        headers = self.fields.get("ResponseMetadata", {}).get("HTTPHeaders", {})
        return str(headers.get("date", ""))
