"""A further source is one file: limits, errors, redaction and unchanged answers come with it."""

from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from labelyard.errors import (
    ImageNotFoundError,
    ImageTooLargeError,
    LabelyardError,
    StorageUnavailableError,
    UnsupportedUriError,
)
from labelyard.messages import ImageRef
from labelyard_worker.intake.pool import IntakeOptions, IntakePool
from labelyard_worker.intake.sources import registry
from labelyard_worker.intake.sources.fetcher_settings import FetcherSettings, SourceConfig
from labelyard_worker.intake.sources.source import TransferLimits
from labelyard_worker.intake.storage_away import StorageAwayError
from labelyard_worker.pixels import FileVersion, ImageLimits, Pixels, PixelSpec, Unchanged
from labelyard_worker.settings import WorkerSettings
from tests.support import memory_source, pictures
from tests.support.memory_source import BREAKS, PANICS, STALLS
from tests.support.waiting import wait_until

WITHIN_S = 30.0
LIMITS = TransferLimits(max_bytes=100_000, timeout_s=0.5)
FILES = {"cat.png": pictures.png(), "large": bytes(LIMITS.max_bytes + 1)}
SHELF = memory_source.config_of(FILES)
OFF = SourceConfig("off", off_reason="it is off here")

StartPool = Callable[..., IntakePool]


@pytest.fixture
def start() -> Iterator[StartPool]:
    """Start an intake whose fetcher opens the third source alone."""
    with ExitStack() as started:

        def start_pool(source: SourceConfig = SHELF, **options: Any) -> IntakePool:
            pool = IntakePool(
                spec=PixelSpec("exact", height=8, width=8),
                limits=ImageLimits(),
                fetchers=FetcherSettings((source, OFF), LIMITS),
                options=IntakeOptions(children=1, image_retries=0, **options),
            )
            started.callback(pool.close)
            return pool

        yield start_pool


def ref(uri: str) -> ImageRef:
    return ImageRef(id="1", uri=uri)


def outcome(answer: "Future[Pixels | Unchanged]") -> Any:
    error = answer.exception(WITHIN_S)
    return error if error is not None else answer.result()


def test_its_files_become_pixels_and_are_not_read_again_while_unchanged(start: StartPool) -> None:
    pool, cat = start(), ref("mem://shelf/cat.png")

    first = outcome(pool.submit([cat])[0])
    known = {cat.uri: FileVersion(first.facts.etag, first.stamp)}
    again = outcome(pool.submit([cat], known=known)[0])
    other = outcome(pool.submit([cat], known={cat.uri: FileVersion(first.facts.etag, "older")})[0])

    assert (first.width, first.height) == (8, 8)
    assert again == Unchanged(first.facts.etag)
    assert type(other) is Pixels


@pytest.mark.parametrize(
    ("uri", "error", "reason"),
    [
        ("mem://shelf/missing", ImageNotFoundError, "nothing on the shelf"),
        ("mem://other/cat.png", UnsupportedUriError, "the shelf is not shelf"),
        ("mem://shelf/large", ImageTooLargeError, "100001 bytes; the limit is 100000"),
        (f"mem://shelf/{STALLS}", StorageUnavailableError, "longer than 0.5 s"),
        (f"mem://shelf/{PANICS}", StorageUnavailableError, "RuntimeError"),
        ("off://shelf/cat.png", UnsupportedUriError, "it is off here"),
        ("ftp://shelf/cat.png", UnsupportedUriError, "write s3://bucket/key"),
        ("cat.png", UnsupportedUriError, "write s3://bucket/key"),
    ],
)
def test_its_failures_are_our_errors_without_the_addresss_secrets(
    start: StartPool, uri: str, error: type[LabelyardError], reason: str
) -> None:
    pool = start(has_breakers=False)
    secretive = uri.replace("://", "://user:password@") + "?token=secret" * ("://" in uri)

    failed = outcome(pool.submit([ref(secretive)])[0])

    assert type(failed) is error
    assert reason in str(failed)
    assert not any(secret in str(failed) for secret in ("password", "secret"))


def test_it_has_a_breaker_of_its_own(start: StartPool) -> None:
    pool = start()

    failed = outcome(pool.submit([ref(f"mem://user:password@Shelf/{BREAKS}")])[0])

    assert type(failed) is StorageAwayError
    assert pool.sources_away == ["mem://shelf"]


def test_its_fetcher_gets_the_variables_that_it_names_and_no_other_sources(
    start: StartPool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TEST_SHELF_KEY", "1")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "awssecret")
    pool = start()
    wait_until(lambda: pool.fetcher_pids, within_s=WITHIN_S)

    environment = Path(f"/proc/{pool.fetcher_pids[0]}/environ").read_bytes()

    assert b"TEST_SHELF_KEY" in environment
    assert b"awssecret" not in environment


def test_a_source_that_cannot_be_opened_is_logged_and_makes_the_intake_unhealthy(
    start: StartPool, caplog: pytest.LogCaptureFixture
) -> None:
    pool = start(SourceConfig("mem", opener="no_such_module:open_source"))

    wait_until(lambda: not pool.is_alive(), within_s=WITHIN_S)

    events = {record.getMessage() for record in caplog.records}
    logged = " ".join(str(vars(record).get("fields")) for record in caplog.records)
    assert events <= {"intake_fetcher_died", "intake_fetcher_stderr"}
    assert "No module named 'no_such_module'" in logged


def test_a_line_in_the_registry_turns_it_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "SOURCES", (*registry.SOURCES, memory_source.configure))

    fetcher = registry.resolve_fetcher(WorkerSettings(https_sources=False))

    assert [source.scheme for source in fetcher.sources] == ["s3", "https", "mem"]
    assert "LABELYARD_HTTPS_SOURCES" in fetcher.sources[1].off_reason
