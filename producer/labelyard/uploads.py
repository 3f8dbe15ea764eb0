"""Upload local files to a bucket, so that workers can read them."""

import hashlib
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

from labelyard.buckets import NAMING_RULE, is_bucket_name
from labelyard.errors import ServiceConfigError, StorageUnavailableError
from labelyard.s3_client import open_s3_client
from labelyard.settings import ClientSettings

UPLOADS_AT_ONCE = 8


@contextmanager
def storage_errors_as_ours(bucket: str) -> Iterator[None]:
    """Translate exceptions of botocore raised inside the block into our errors.

    Raises:
        ServiceConfigError: Credentials are missing or refused, or the address is wrong.
        StorageUnavailableError: Anything else, no answer included.
    """
    from botocore.exceptions import BotoCoreError, ClientError, NoCredentialsError

    try:
        yield
    except NoCredentialsError as error:
        raise ServiceConfigError(
            "no S3 credentials for uploads: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, "
            "or AWS_PROFILE"
        ) from error
    except ClientError as error:
        code = error.response["Error"]["Code"]
        if code in {"403", "AccessDenied", "InvalidAccessKeyId", "SignatureDoesNotMatch"}:
            raise ServiceConfigError(
                f"S3 refused an upload to the bucket {bucket} ({code}): check the credentials, "
                "or choose another bucket with LABELYARD_UPLOAD_BUCKET"
            ) from error
        raise StorageUnavailableError(f"s3://{bucket}: {code}") from error
    except BotoCoreError as error:
        raise StorageUnavailableError(f"s3://{bucket}: {error}") from error
    except ValueError as error:  # botocore's error for an endpoint that is not an address
        raise ServiceConfigError(f"LABELYARD_S3_ENDPOINT_URL: {error}") from error


def upload_files(
    paths: Sequence[Path],
    settings: ClientSettings,
    *,
    on_done: Callable[[], None] = lambda: None,
) -> list[str]:
    """Upload files, each under the digest of its content, unless the object exists.

    Args:
        on_done: Called after each file.

    Returns:
        Their ``s3://`` addresses, in the order of *paths*.

    Raises:
        ServiceConfigError: S3 refused, or boto3 is missing; the text names the remedy.
        StorageUnavailableError: S3 gave no usable answer.
    """
    try:
        import boto3  # noqa: F401 - checked before the first file is read
    except ImportError as error:
        raise ServiceConfigError("uploads need boto3: pip install 'labelyard[cli]'") from error
    bucket = settings.upload_bucket
    if not is_bucket_name(bucket):
        raise ServiceConfigError(f"LABELYARD_UPLOAD_BUCKET: {NAMING_RULE}")
    with storage_errors_as_ours(bucket), closing(open_client(settings)) as s3:
        _make_bucket(s3, settings)

        def upload(path: Path) -> str:
            key = f"{settings.upload_prefix}{_digest(path)}{path.suffix.lower()}"
            if not _exists(s3, bucket, key):
                s3.upload_file(str(path), bucket, key)
            on_done()
            return f"s3://{bucket}/{key}"

        with ThreadPoolExecutor(UPLOADS_AT_ONCE, thread_name_prefix="labelyard-upload") as pool:
            return list(pool.map(upload, paths))


def open_client(settings: ClientSettings) -> Any:
    """Open a boto3 client with bounded waits and a few retries; the caller closes it."""
    return open_s3_client(
        endpoint_url=settings.s3_endpoint_url,
        region=settings.s3_region,
        # Self-hosted servers seldom accept bucket names in the host name.
        addressing="path" if settings.s3_endpoint_url else None,
        connect_timeout=5,
        read_timeout=30,
        retries={"total_max_attempts": 4, "mode": "standard"},
        max_pool_connections=UPLOADS_AT_ONCE,
    )


def _make_bucket(s3: Any, settings: ClientSettings) -> None:
    from botocore.exceptions import ClientError

    try:
        s3.head_bucket(Bucket=settings.upload_bucket)
    except ClientError as error:
        if error.response["Error"]["Code"] != "404":
            raise
        region = s3.meta.region_name
        # S3 refuses a constraint for its first region, and requires one for every other.
        constraint = {"CreateBucketConfiguration": {"LocationConstraint": region}}
        is_constrained = region not in {None, "us-east-1", "aws-global"}
        s3.create_bucket(Bucket=settings.upload_bucket, **(constraint if is_constrained else {}))


def _exists(s3: Any, bucket: str, key: str) -> bool:
    from botocore.exceptions import ClientError

    try:
        s3.head_object(Bucket=bucket, Key=key)
    except ClientError as error:
        if error.response["Error"]["Code"] != "404":
            raise
        return False
    return True


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
