"""Maps of explanations, as workers write them to object storage."""

from contextlib import closing
from typing import Any, Final

from labelyard.errors import ServiceConfigError, StorageUnavailableError
from labelyard.settings import ClientSettings

#: Largest map that is read.
MAX_MAP_BYTES: Final = 8 * 1024 * 1024


def read_map(uri: str, settings: ClientSettings) -> bytes:
    """Read the object of a map.

    Raises:
        ServiceConfigError: S3 refused, or boto3 is missing.
        StorageUnavailableError: S3 gave no usable answer.
    """
    from labelyard.uploads import open_client

    try:
        from botocore.exceptions import BotoCoreError, ClientError
    except ImportError as error:
        raise ServiceConfigError("maps need boto3: pip install 'labelyard[cli]'") from error
    bucket, _, key = uri.removeprefix("s3://").partition("/")
    try:
        with closing(open_client(settings)) as s3:
            answer: Any = s3.get_object(Bucket=bucket, Key=key)
            with closing(answer["Body"]) as stream:
                body: bytes = stream.read(MAX_MAP_BYTES)
                return body
    except ClientError as error:
        code = error.response["Error"]["Code"]
        if code in {"403", "AccessDenied", "InvalidAccessKeyId", "SignatureDoesNotMatch"}:
            raise ServiceConfigError(
                f"S3 refused to read {uri} ({code}): the credentials must read the bucket that "
                "the workers write maps to"
            ) from error
        raise StorageUnavailableError(f"{uri}: {code}") from error
    except (BotoCoreError, ValueError) as error:
        raise StorageUnavailableError(f"{uri}: {error}") from error
