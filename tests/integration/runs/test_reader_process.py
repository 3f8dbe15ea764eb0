"""The process that reads a run's source: the same lines, and its death harms nobody."""

import gzip
import os
import signal
from pathlib import Path

import pytest

from labelyard.errors import JobCancelledError
from labelyard.s3_client import S3Credentials
from labelyard_worker.intake.sources.s3_settings import S3Settings
from labelyard_worker.intake.storage_away import StorageAwayError
from labelyard_worker.local.servers import SeaweedServer
from labelyard_worker.runs.sources import reader_process
from labelyard_worker.runs.sources.plan_parts import RunSourceError
from labelyard_worker.runs.sources.reader_process import (
    ReaderDiedError,
    ReaderProcess,
    SourceAddress,
)
from labelyard_worker.runs.sources.run_sources import SourceOpener
from tests.support.buckets import Bucket
from tests.support.manifests import line_of, parts_of


@pytest.fixture
def settings(seaweed: SeaweedServer) -> S3Settings:
    keys = S3Credentials(seaweed.access_key_id, seaweed.secret_access_key)
    return S3Settings(seaweed.endpoint_url, "us-east-1", credentials=keys)


def manifest(lines: int) -> bytes:
    return b"\n".join(line_of(f"{n}", n=n) for n in range(lines))


def test_a_reader_yields_what_the_source_yields(bucket: Bucket, settings: S3Settings) -> None:
    uri = bucket.put("m.jsonl.gz", gzip.compress(manifest(3_000)))
    whole = SourceOpener(settings).open(uri, form="jsonl", columns=["n"])
    wanted = list(parts_of(whole, max_lines=700))

    with ReaderProcess(SourceAddress(uri, "jsonl", ("n",)), settings=settings) as source:
        first = source.take(700)
        pid = source.pid
    with ReaderProcess(
        SourceAddress(uri, "jsonl", ("n",)), settings=settings, checkpoint=wanted[0].checkpoint
    ) as source:
        rest = list(parts_of(source, max_lines=700))

    assert [first, *rest] == wanted
    assert not Path(f"/proc/{pid}").exists()


def test_errors_of_the_source_come_through(bucket: Bucket, settings: S3Settings) -> None:
    missing = SourceAddress(bucket.uri("m.jsonl"), "jsonl")
    damaged = SourceAddress(bucket.put("m.csv.gz", gzip.compress(b"custom_id,uri\n")[:-9]), "csv")

    with pytest.raises(RunSourceError, match="no such object"):
        ReaderProcess(missing, settings=settings)
    with (
        ReaderProcess(damaged, settings=settings) as source,
        pytest.raises(RunSourceError, match="ends too early"),
    ):
        source.take(1)


def test_storage_that_does_not_answer_is_told_from_a_bad_source(
    settings: S3Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    away = S3Settings("http://127.0.0.1:9", "us-east-1", credentials=settings.credentials)
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")

    with pytest.raises(StorageAwayError):
        ReaderProcess(SourceAddress("s3://pets/m.jsonl", "jsonl"), settings=away)


def test_a_reader_that_dies_is_an_error_that_may_be_retried(
    bucket: Bucket, settings: S3Settings
) -> None:
    uri = bucket.put("m.jsonl", manifest(10))

    with ReaderProcess(SourceAddress(uri, "jsonl"), settings=settings) as source:
        os.kill(source.pid, signal.SIGSEGV)
        with pytest.raises(ReaderDiedError, match="SIGSEGV"):
            source.take(1)


def test_a_reader_that_hangs_is_left_when_the_plan_is_cancelled_or_at_its_limit(
    bucket: Bucket, settings: S3Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reader_process, "CHECK_EVERY_S", 0.01)
    is_cancelled = False

    def check() -> None:
        if is_cancelled:
            raise JobCancelledError("run.plan")

    address = SourceAddress(bucket.put("m.jsonl", manifest(10)), "jsonl")
    with ReaderProcess(address, settings=settings, check=check) as source:
        os.kill(source.pid, signal.SIGSTOP)
        is_cancelled = True
        with pytest.raises(JobCancelledError):
            source.take(1)
        is_cancelled = False
        monkeypatch.setattr(reader_process, "MAX_SILENCE_S", 0.05)
        with pytest.raises(ReaderDiedError, match="no answer"):
            source.take(1)
