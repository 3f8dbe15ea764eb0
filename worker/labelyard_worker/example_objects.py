"""Objects with the examples of label sets, read from storage."""

from functools import cached_property

from obstore.exceptions import BaseError, NotFoundError

from labelyard.errors import ImageError, LabelSetExamplesError
from labelyard.messages.learned import MAX_EXAMPLES_BYTES, Examples
from labelyard_worker.intake.sources.s3_answers import error_of, read_obstore
from labelyard_worker.intake.sources.s3_clients import open_store
from labelyard_worker.intake.sources.s3_settings import S3Settings, resolve_s3
from labelyard_worker.intake.storage_away import StorageAwayError
from labelyard_worker.jobs.delivery.objects import cause_of
from labelyard_worker.settings import WorkerSettings


class ExampleObjects:
    """Reads objects of examples from the buckets that pictures are read from.

    A label set is opened once and kept, so a client for each read costs little.
    """

    def __init__(self, settings: WorkerSettings) -> None:
        self._settings = settings

    @cached_property
    def s3(self) -> S3Settings:
        """The server, how to sign requests, and the buckets that may be read."""
        return resolve_s3(self._settings, timeout_s=self._settings.object_timeout_s)

    def read(self, examples: Examples) -> bytes:
        """Read one object.

        Raises:
            LabelSetExamplesError: It is gone, too large, or may not be read.
            StorageAwayError: Storage gives no usable answer; the job is tried again.
        """
        uri = examples.object_uri
        bucket, _, key = uri.removeprefix("s3://").partition("/")
        if self.s3.allowed_buckets and bucket not in self.s3.allowed_buckets:
            raise LabelSetExamplesError(f"{uri}: LABELYARD_ALLOWED_BUCKETS does not list {bucket}")
        try:
            answer = open_store(self.s3, bucket).get(key)
            if answer.meta["size"] > MAX_EXAMPLES_BYTES:
                raise LabelSetExamplesError(f"{uri}: it is too large to be one of examples")
            return bytes(answer.bytes())
        except NotFoundError as error:
            raise LabelSetExamplesError(f"{uri}: there is no such object any more") from error
        except (BaseError, OSError) as error:
            status = read_obstore(error)
            ours = error_of(status, uri=uri) if status is not None else None
            if isinstance(ours, ImageError):  # the same request would get the same answer
                raise LabelSetExamplesError(f"{uri}: {ours.reason}") from error
            raise StorageAwayError(uri, cause_of(error)) from error
