"""Objects with examples, in the bucket of uploads: written by who teaches, read to calibrate."""

import tempfile
from contextlib import closing
from pathlib import Path
from typing import Any, Final

from labelyard.errors import LabelSetExamplesError, ServiceConfigError
from labelyard.messages import LabelSet
from labelyard.messages.learned import MAX_EXAMPLES_BYTES, Examples
from labelyard.settings import ClientSettings
from labelyard.uploads import open_client, storage_errors_as_ours, upload_files

#: Start of their keys; the digest of the content follows.
EXAMPLES_PREFIX: Final = "label-sets/sha256-"


def store_examples(body: bytes, settings: ClientSettings) -> str:
    """Write an object of examples, unless it is there, and return its address.

    Raises:
        ServiceConfigError: S3 refused, or boto3 is missing.
        StorageUnavailableError: S3 gave no usable answer.
    """
    place = settings.model_copy(update={"upload_prefix": EXAMPLES_PREFIX})
    with tempfile.TemporaryDirectory(prefix="labelyard-examples-") as folder:
        file = Path(folder, "examples.npz")
        file.write_bytes(body)
        (address,) = upload_files([file], place)  # under the digest of its content
    return address


def read_example_digests(label_set: LabelSet, settings: ClientSettings) -> frozenset[str]:
    """Return the digests of the pictures that taught a set; none if it was not taught.

    Raises:
        LabelSetExamplesError: The object is gone, or another one.
        ServiceConfigError: S3 refused, or a library is missing.
        StorageUnavailableError: S3 gave no usable answer.
    """
    examples = None if label_set.learned is None else label_set.learned.examples
    if examples is None:
        return frozenset()
    from labelyard.evaluation.example_file import ExampleFile, digest_of

    body = _read(examples, settings)
    if digest_of(body) != examples.sha256:
        raise LabelSetExamplesError(f"{examples.object_uri}: another object is there")
    try:
        return frozenset(ExampleFile.from_bytes(body).sha256)
    except ValueError as error:
        raise LabelSetExamplesError(f"{examples.object_uri}: {error}") from error


def _read(examples: Examples, settings: ClientSettings) -> bytes:
    try:
        from botocore.exceptions import ClientError
    except ImportError as error:
        raise ServiceConfigError("examples need boto3: pip install 'labelyard[cli]'") from error
    bucket, _, key = examples.object_uri.removeprefix("s3://").partition("/")
    with storage_errors_as_ours(bucket), closing(open_client(settings)) as s3:
        try:
            answer: Any = s3.get_object(Bucket=bucket, Key=key)
        except ClientError as error:
            if error.response["Error"]["Code"] in {"NoSuchKey", "NoSuchBucket", "404"}:
                raise LabelSetExamplesError(
                    f"{examples.object_uri}: there is no such object any more"
                ) from error
            raise
        with closing(answer["Body"]) as stream:
            body: bytes = stream.read(MAX_EXAMPLES_BYTES + 1)
            return body
