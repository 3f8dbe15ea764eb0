"""Objects of a run in storage: its plan, the files of its shards, its summary."""

import gzip
import logging
import random
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from threading import Lock
from typing import TYPE_CHECKING, Final, TypeVar

from obstore.exceptions import BaseError, NotFoundError
from obstore.store import S3Store

from labelyard.errors import ImageError, RunFilesError
from labelyard.runs.request import RunRequest
from labelyard_worker.intake.sources.s3_answers import error_of, read_obstore
from labelyard_worker.intake.sources.s3_clients import open_store
from labelyard_worker.intake.sources.s3_settings import S3Settings, resolve_s3
from labelyard_worker.intake.storage_away import StorageAwayError
from labelyard_worker.jobs.delivery.objects import cause_of
from labelyard_worker.jobs.delivery.permissions import NotPermittedError, ResultPlaces
from labelyard_worker.settings import WorkerSettings

if TYPE_CHECKING:
    from obstore import GetOptions

log = logging.getLogger(__name__)
Answer = TypeVar("Answer")

#: Folder of a run's output for what only its workers read.
PLAN_FOLDER: Final = "_plan/"
TRIES: Final = 4
FIRST_PAUSE_S: Final = 0.5


@dataclass(frozen=True)
class RunStorage:
    """Reads and writes the objects below a run's output prefix; called from many threads.

    Attributes:
        s3: The server, and how to sign requests.
        places: Where the operator permits results.
    """

    s3: S3Settings
    places: ResultPlaces
    _stores: dict[str, S3Store] = field(default_factory=dict)
    _lock: Lock = field(default_factory=Lock)

    @classmethod
    def of(cls, settings: WorkerSettings) -> "RunStorage":
        """Build it from the worker's settings.

        Raises:
            ServiceConfigError: LABELYARD_RESULT_BUCKETS has another form.
        """
        return cls(
            resolve_s3(settings, timeout_s=settings.object_timeout_s),
            ResultPlaces.parse(settings.result_buckets, readable=settings.allowed_buckets),
        )

    def check(self, request: RunRequest) -> None:
        """Permit the output prefix of a run.

        Raises:
            RunFilesError: The operator does not permit it.
        """
        try:
            self.places.check_uri(f"{request.out}manifest.json", tenant=request.tenant)
        except NotPermittedError as error:
            raise RunFilesError(f"{request.out}: {error}") from error

    def check_old(self, request: RunRequest) -> None:
        """Permit the prefix of the old run that a run reads.

        Raises:
            RunFilesError: The operator does not permit the tenant to write there either.
        """
        try:
            self.places.check_uri(f"{request.source}manifest.json", tenant=request.tenant)
        except NotPermittedError as error:
            raise RunFilesError(f"{request.source}: {error}") from error

    def put(self, request: RunRequest, name: str, body: bytes, *, content_type: str) -> None:
        """Write one object whole, so that nobody ever sees a part of it.

        Raises:
            RunFilesError: The operator does not permit it.
            StorageAwayError: Storage does not take it.
        """
        self.check(request)
        bucket, key = _place_of(request.out, name)
        with _errors_as_ours(request.out + name):
            _try(
                lambda: self.store(bucket).put(key, body, attributes={"Content-Type": content_type})
            )

    def delete(self, request: RunRequest, name: str) -> None:
        """Delete one object, if it is there; raises as :meth:`put`."""
        self.check(request)
        bucket, key = _place_of(request.out, name)
        with _errors_as_ours(request.out + name), suppress(NotFoundError):
            _try(lambda: self.store(bucket).delete(key))

    def get(self, request: RunRequest, name: str) -> bytes:
        """Read one object.

        Raises:
            RunFilesError: It is not there.
            StorageAwayError: Storage gives no usable answer.
        """
        return self.get_from(request.out, name)

    def get_from(self, out: str, name: str) -> bytes:
        """Read one object below a prefix; raises as :meth:`get`."""
        bucket, key = _place_of(out, name)
        with _errors_as_ours(out + name):
            return _try(lambda: bytes(self.store(bucket).get(key).bytes()))

    def get_end(self, out: str, name: str, length: int) -> bytes:
        """Read the last bytes of an object, all of it if it is shorter; raises as :meth:`get`."""
        bucket, key = _place_of(out, name)
        options: GetOptions = {"range": {"suffix": length}}
        with _errors_as_ours(out + name):
            return _try(lambda: bytes(self.store(bucket).get(key, options=options).bytes()))

    def list_names(self, out: str, start: str) -> list[str]:
        """List the objects below a prefix whose name begins with *start*, in their order.

        Raises:
            StorageAwayError: Storage gives no usable answer.
        """
        bucket, prefix = _place_of(out, "")
        folder, _, begin = start.rpartition("/")
        place = f"{prefix}{folder}/" if folder else prefix

        def read() -> list[str]:
            listing = self.store(bucket).list_with_delimiter(prefix=place)
            return [entry["path"].removeprefix(prefix) for entry in listing["objects"]]

        with _errors_as_ours(out):
            names = _try(read)
        return sorted(name for name in names if name.rpartition("/")[2].startswith(begin))

    def put_plan(self, request: RunRequest, name: str, lines: bytes) -> None:
        """Write lines of a plan; raises as :meth:`put`."""
        packed = gzip.compress(lines, compresslevel=1, mtime=0)
        place = f"{PLAN_FOLDER}{name}.jsonl.gz"
        self.put(request, place, packed, content_type="application/gzip")

    def get_plan(self, request: RunRequest, name: str) -> bytes:
        """Read lines of a plan; raises as :meth:`get`."""
        return self.get_plan_from(request.out, f"{PLAN_FOLDER}{name}.jsonl.gz")

    def get_plan_from(self, out: str, name: str) -> bytes:
        """Read lines of a plan below a prefix; raises as :meth:`get`."""
        return gzip.decompress(self.get_from(out, name))

    def store(self, bucket: str) -> S3Store:
        """Return the client of a bucket."""
        with self._lock:
            if bucket not in self._stores:
                self._stores[bucket] = open_store(self.s3, bucket)
            return self._stores[bucket]


def _place_of(out: str, name: str) -> tuple[str, str]:
    bucket, _, prefix = out.removeprefix("s3://").partition("/")
    return bucket, prefix + name


def _try(call: Callable[[], Answer]) -> Answer:
    """Call storage, a few times if it gives no usable answer."""
    pause_s = FIRST_PAUSE_S
    for _ in range(TRIES - 1):
        try:
            return call()
        except NotFoundError:
            raise
        except (BaseError, OSError) as error:
            log.info("run_storage_retry", extra={"fields": {"why": cause_of(error)}})
            time.sleep(random.uniform(0.5, 1) * pause_s)
            pause_s *= 2
    return call()


@contextmanager
def _errors_as_ours(uri: str) -> Iterator[None]:
    """Translate exceptions of obstore raised inside the block into our errors."""
    try:
        yield
    except NotFoundError as error:
        raise RunFilesError(f"{uri}: there is no such object or bucket any more") from error
    except (BaseError, OSError) as error:
        answer = read_obstore(error)
        ours = error_of(answer, uri=uri) if answer is not None else None
        if isinstance(ours, ImageError):  # the same request would get the same answer
            raise RunFilesError(f"{uri}: {ours.reason}") from error
        raise StorageAwayError(uri, cause_of(error)) from error
