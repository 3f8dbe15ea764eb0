"""Write the report of a run: read its output once, choose pictures, and write one page."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

from labelyard.buckets import NAMING_RULE, is_bucket_name
from labelyard.errors import InvalidMessageError, ServiceConfigError
from labelyard.local_paths import is_folder
from labelyard.messages import LabelSet
from labelyard.runs.report.gallery import MAX_PICTURES, choose_pictures, limits_for
from labelyard.runs.report.output_files import (
    ERRORS,
    RESULTS,
    BucketOutput,
    FolderOutput,
    RunOutput,
    WrittenFile,
    read_document,
)
from labelyard.runs.report.page import ReportData, report_page
from labelyard.runs.report.picture_sources import (
    BucketPictures,
    FirstOf,
    FolderPictures,
    NoPictures,
    PictureSource,
)
from labelyard.runs.report.result_lines import read_errors, read_results
from labelyard.runs.report.run_facts import RunFacts, run_facts
from labelyard.runs.report.run_source import find_source
from labelyard.runs.report.tally import RunTally
from labelyard.runs.report.throughput import Throughput, measure_throughput
from labelyard.runs.report.thumbnails import Thumbnails, make_thumbnails
from labelyard.s3_client import open_s3_client
from labelyard.settings import ClientSettings

DEFAULT_SAMPLE: Final = 360
#: Most characters of all thumbnails; the rest of a page takes up to 1.2 MB.
THUMBNAIL_BYTES: Final = 3_600_000


@dataclass(frozen=True, slots=True)
class WrittenReport:
    """A report that was written.

    Attributes:
        lines: Result lines that were read.
        pictures: Pictures that are shown.
        missing: Pictures that could not be shown.
    """

    path: Path
    size_bytes: int
    lines: int
    pictures: int
    missing: int


def write_report(
    source: str | Path,
    output: str | Path,
    *,
    sample: int = DEFAULT_SAMPLE,
    pictures: str | Path | None = None,
    has_thumbnails: bool = True,
    seed: int = 0,
    settings: ClientSettings | None = None,
) -> WrittenReport:
    """Write the report of a run as one page that needs nothing else.

    The results are read once, line by line, in memory that does not grow with them.

    Args:
        source: Output of the run: a folder, a prefix ``s3://bucket/prefix/``, or the id of the
            run, whose prefix and label set the ledger knows.
        output: File to write.
        sample: Most pictures to choose as examples, 0 to 600.
        pictures: Folder with copies of the pictures, looked up before S3.
        has_thumbnails: Whether the pictures are read and shown; else only their names are.
        seed: Decides which pictures are chosen; equal seeds choose equally.
        settings: Address of S3; from the environment when ``None``.

    Raises:
        InvalidMessageError: An argument is not usable, or there is no output at *source*.
        RunNotFoundError: There is no run of this id.
        ServiceConfigError: S3 refused the credentials, or a library is missing.
        StorageUnavailableError: S3 gave no usable answer.
    """
    if not 0 <= sample <= MAX_PICTURES:
        raise InvalidMessageError(f"sample must be 0 to {MAX_PICTURES} pictures")
    settings = settings or ClientSettings.read()
    found = find_source(source, settings)
    with ExitStack() as stack:
        place, s3 = stack.enter_context(_open_output(found.address, settings))
        readers = stack.enter_context(
            _open_pictures(pictures, settings, s3, is_needed=has_thumbnails)
        )
        data = _gather(place, readers, label_set=found.label_set, sample=sample, seed=seed)
    content = report_page(data).encode()
    path = Path(output)
    try:
        path.write_bytes(content)
    except OSError as error:
        raise InvalidMessageError(f"{path}: {error.strerror}") from error
    missing = sum(data.thumbnails.missing.values())
    shown = len(data.thumbnails.by_uri)
    return WrittenReport(path, len(content), data.tally.total, shown, missing)


def _gather(
    output: RunOutput,
    readers: PictureSource | None,
    *,
    label_set: LabelSet | None,
    sample: int,
    seed: int,
) -> ReportData:
    files = output.files()
    manifest = next((file for file in files if file.name == "manifest.json"), None)
    facts = run_facts(
        read_document(output, "manifest.json", files),
        read_document(output, "summary.json", files),
        retries=output.retries(),
    )
    if facts.label_set is None:
        facts = replace(facts, label_set=label_set)
    if manifest is None and not any(RESULTS.fullmatch(file.name) for file in files):
        raise InvalidMessageError(f"{output.address} holds no output of a run")
    tally = RunTally(seed=seed, limits=limits_for(sample), thresholds=facts.thresholds)
    written = list(_read_all(output, files, tally))
    gallery = choose_pictures(tally, sample=sample)
    uris = [picture.uri for picture in gallery.pictures()]
    thumbnails = Thumbnails()
    if readers is not None and uris:
        room = THUMBNAIL_BYTES // len(uris)
        thumbnails = make_thumbnails(uris, readers, max_bytes=room)
    return ReportData(
        address=output.address,
        facts=facts,
        tally=tally,
        gallery=gallery,
        thumbnails=thumbnails,
        throughput=_throughput(output, facts, written),
    )


def _throughput(
    output: RunOutput, facts: RunFacts, written: list[tuple[float, int]]
) -> Throughput | None:
    seconds = facts.summary.seconds if facts.summary else 0.0
    if not (seconds or output.has_own_times):
        return None
    return measure_throughput(written, started_at=facts.started_at, run_seconds=seconds)


def _read_all(
    output: RunOutput, files: list[WrittenFile], tally: RunTally
) -> Iterator[tuple[float, int]]:
    """Count every line; yield the time of each file of results with its number of images."""
    for file in files:
        if RESULTS.fullmatch(file.name):
            before = tally.total
            with output.open(file.name) as stream:
                for line in read_results(stream, name=file.name):
                    if line is None:
                        tally.unreadable += 1
                    else:
                        tally.add(line)
            yield file.written_at, tally.total - before
        elif ERRORS.fullmatch(file.name):
            with output.open(file.name) as stream:
                for error in read_errors(stream):
                    if error is None:
                        tally.unreadable += 1
                    else:
                        tally.errors.add(error)


@contextmanager
def _open_output(address: str, settings: ClientSettings) -> Iterator[tuple[RunOutput, Any | None]]:
    """Open the output, with the S3 client that reads it, if it is in S3."""
    if not address.startswith("s3://"):
        yield FolderOutput(Path(address)), None
        return
    bucket, _, prefix = address.removeprefix("s3://").partition("/")
    if not is_bucket_name(bucket):
        raise InvalidMessageError(f"{address}: {NAMING_RULE}")
    with _s3(settings) as client:
        prefix = f"{prefix.rstrip('/')}/" if prefix.strip("/") else ""
        yield BucketOutput(client, bucket, prefix), client


@contextmanager
def _open_pictures(
    folder: str | Path | None, settings: ClientSettings, s3: Any | None, *, is_needed: bool
) -> Iterator[PictureSource | None]:
    """Open the places that pictures are read from; ``None`` if none is needed."""
    if not is_needed:
        yield None
        return
    sources: list[PictureSource] = []
    if folder is not None:
        if not is_folder(folder):
            raise InvalidMessageError(f"{folder}: there is no such folder")
        sources.append(FolderPictures(Path(folder)))
    with ExitStack() as stack:
        try:
            sources.append(BucketPictures(s3 or stack.enter_context(_s3(settings))))
        except ServiceConfigError as error:  # the counts are worth a report without pictures
            sources.append(NoPictures(str(error)))
        yield FirstOf(sources)


@contextmanager
def _s3(settings: ClientSettings) -> Iterator[Any]:
    try:
        client = open_s3_client(
            endpoint_url=settings.s3_endpoint_url,
            region=settings.s3_region,
            addressing="path" if settings.s3_endpoint_url else None,
            connect_timeout=5,
            read_timeout=20,
            retries={"total_max_attempts": 2, "mode": "standard"},
            max_pool_connections=16,
        )
    except ImportError as error:
        raise ServiceConfigError("reading S3 needs boto3: pip install 'labelyard[cli]'") from error
    except ValueError as error:  # botocore's error for an endpoint that is not an address
        raise ServiceConfigError(f"LABELYARD_S3_ENDPOINT_URL: {error}") from error
    try:
        yield client
    finally:
        client.close()
