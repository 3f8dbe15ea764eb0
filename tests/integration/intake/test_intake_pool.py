"""The intake's two kinds of children: who has what, and who pays when one misbehaves."""

import hashlib
import logging
import os
import signal
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import ExitStack, contextmanager
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import psutil  # type: ignore[import-untyped]
import pytest

from labelyard.errors import (
    ImageCrashedDecoderError,
    ImageUndecodableError,
    StorageUnavailableError,
)
from labelyard.messages import ImageRef
from labelyard.queues import Priority
from labelyard_worker.intake.pixel_budget import PixelBudget
from labelyard_worker.intake.pool import IntakeOptions, IntakePool
from labelyard_worker.intake.storage_away import StorageAwayError
from labelyard_worker.pixels import ImageLimits, Pixels, PixelSpec, Unchanged
from tests.support import pictures, poison
from tests.support.answering import answering, reply
from tests.support.fetching import anonymous_s3
from tests.support.waiting import wait_until

SPEC = PixelSpec("exact", height=8, width=8)
WITHIN_S = 30.0
DATE = "Mon, 23 Nov 2026 00:00:00 GMT"
Serve = Callable[[BaseHTTPRequestHandler, str], None]
StartPool = Callable[..., IntakePool]


def give(request: BaseHTTPRequestHandler, raw: bytes, **headers: str) -> None:
    """Answer with a file whose ETag is not an MD5, unless *headers* replace it."""
    reply(request, 200, raw, **{"ETag": '"1"', "Last_Modified": DATE, **headers})


@pytest.fixture
def start() -> Iterator[StartPool]:
    """Start an intake in front of a server that answers by *serve*."""
    with ExitStack() as started:

        def start_pool(
            serve: Serve,
            *,
            budget: PixelBudget | None = None,
            transfers: dict[str, Any] | None = None,
            **options: Any,
        ) -> IntakePool:
            port = started.enter_context(
                answering(lambda request: serve(request, request.path.rpartition("/")[2]))
            )
            pool = IntakePool(
                spec=SPEC,
                limits=ImageLimits(),
                fetchers=anonymous_s3(f"http://127.0.0.1:{port}", **(transfers or {})),
                options=IntakeOptions(**{"children": 1, **options}),
                budget=budget,
                decoder=poison.DECODER,
            )
            started.callback(pool.close)
            return pool

        yield start_pool


def ref(key: str, bucket: str = "pets") -> ImageRef:
    return ImageRef(id="1", uri=f"s3://{bucket}/{key}")


def outcome(answer: "Future[Pixels | Unchanged]") -> Any:
    error = answer.exception(WITHIN_S)
    return error if error is not None else answer.result()


def files(raw_by_key: dict[str, bytes]) -> Serve:
    return lambda request, key: give(request, raw_by_key.get(key, pictures.png()))


class Drip:
    """Sends headers and a byte now and then, until the client is gone or the test ends."""

    def __init__(self) -> None:
        self.over = threading.Event()
        self.lock = threading.Lock()
        self.now = self.ever = 0

    def __call__(self, request: BaseHTTPRequestHandler) -> None:
        request.send_response(200)
        for name, value in {"ETag": '"1"', "Last-Modified": DATE, "Content-Length": "9999"}.items():
            request.send_header(name, value)
        request.end_headers()
        with self.lock:
            self.now += 1
            self.ever += 1
        try:
            while not self.over.wait(0.02):
                request.wfile.write(b".")
        except OSError:
            pass
        finally:
            with self.lock:
                self.now -= 1


@pytest.fixture
def drip() -> Iterator[Drip]:
    dripping = Drip()
    yield dripping
    dripping.over.set()


def test_only_the_fetcher_has_secrets_and_no_child_gains_privileges(
    start: StartPool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LABELYARD_WEBHOOK_SECRET", "whsec_topsecret")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "awssecret")
    pool = start(files({}))
    wait_until(lambda: pool.decoder_pids and pool.fetcher_pids, within_s=WITHIN_S)
    (decoder,), (fetcher,) = pool.decoder_pids, pool.fetcher_pids
    fork_server = psutil.Process(decoder).ppid()

    environments = {
        pid: Path(f"/proc/{pid}/environ").read_bytes() for pid in (decoder, fetcher, fork_server)
    }

    for pid in (decoder, fork_server):
        assert environments[pid].strip(b"\0") == b""
    assert b"topsecret" not in environments[fetcher]
    assert b"awssecret" in environments[fetcher]
    for pid in environments:
        assert "NoNewPrivs:\t1" in Path(f"/proc/{pid}/status").read_text()


def test_a_decoder_has_no_network(start: StartPool, drip: Drip) -> None:
    pool = start(lambda request, _: drip(request))
    pool.submit([ref("slow")])
    wait_until(lambda: drip.now == 1 and pool.decoder_pids, within_s=WITHIN_S)

    (decoder,), (fetcher,) = pool.decoder_pids, pool.fetcher_pids

    assert not psutil.Process(decoder).net_connections(kind="inet")
    assert psutil.Process(fetcher).net_connections(kind="inet")


@pytest.mark.parametrize("answer", poison.NONSENSE, ids=lambda raw: raw.decode()[9:])
def test_a_malformed_answer_costs_that_decoder_and_that_image(
    start: StartPool, answer: bytes
) -> None:
    pool = start(files({"bad": answer}))
    wait_until(lambda: pool.decoder_pids, within_s=WITHIN_S)
    before = pool.decoder_pids

    bad, *good = pool.submit([ref("bad"), *(ref(f"good{n}") for n in range(5))])

    assert isinstance(outcome(bad), ImageCrashedDecoderError)
    assert {type(outcome(one)) for one in good} == {Pixels}
    assert pool.decoder_pids != before
    assert pool.is_alive()


def test_what_a_decoder_writes_is_bounded_and_logged_once(
    start: StartPool, caplog: pytest.LogCaptureFixture
) -> None:
    pool = start(files({"loud": poison.LOUD}))

    with caplog.at_level(logging.DEBUG, logger="labelyard_worker.intake"):
        answers = [outcome(one) for one in pool.submit([ref("loud"), ref("quiet")])]

    assert {type(one) for one in answers} == {Pixels}
    events = [one for one in caplog.records if one.message == "intake_decoder_stderr"]
    assert len(events) == 1
    fields = vars(events[0])["fields"]
    assert (fields["uri"], fields["is_cut"]) == ("s3://pets/loud", True)
    assert len(fields["stderr"]) <= 500


def test_fetches_in_flight_are_begun_anew_when_the_fetcher_dies(start: StartPool) -> None:
    held, go_on = threading.Event(), threading.Event()

    def serve(request: BaseHTTPRequestHandler, key: str) -> None:
        held.set()
        go_on.wait(WITHIN_S)
        give(request, pictures.png())

    pool = start(serve)
    answers = pool.submit([ref(str(number)) for number in range(10)])
    assert held.wait(WITHIN_S)

    os.kill(pool.fetcher_pids[0], signal.SIGKILL)
    go_on.set()

    assert {type(outcome(one)) for one in answers} == {Pixels}


def test_a_cancelled_fetch_is_withdrawn_at_once(start: StartPool, drip: Drip) -> None:
    budget = PixelBudget(4)
    pool = start(lambda request, _: drip(request), budget=budget)
    answers = pool.submit([ref(str(number)) for number in range(6)])
    wait_until(lambda: drip.now == 6, within_s=WITHIN_S)

    for answer in answers:
        answer.cancel()

    wait_until(lambda: drip.now == 0, within_s=WITHIN_S)
    assert pool.pending == 0
    assert budget.taken == 0


def test_a_dripping_bucket_takes_its_share_and_others_are_fetched_at_once(
    start: StartPool, drip: Drip
) -> None:
    def serve(request: BaseHTTPRequestHandler, key: str) -> None:
        if key.startswith("slow"):
            drip(request)
        else:
            give(request, pictures.png())

    pool = start(serve, fetches=16)
    pool.submit(
        [ref(f"slow{n}", bucket="tarpit") for n in range(40)], tenant="a", priority="interactive"
    )
    wait_until(lambda: drip.now == 4, within_s=WITHIN_S)  # a quarter of the slots

    others = pool.submit([ref(f"fast{n}") for n in range(20)], tenant="b")

    assert {type(outcome(one)) for one in others} == {Pixels}
    assert drip.ever == 4


def test_a_fetch_below_the_least_rate_is_given_up(start: StartPool, drip: Drip) -> None:
    pool = start(
        lambda request, _: drip(request),
        transfers={"grace_s": 0.3, "min_bytes_per_s": 10_000_000},
        image_retries=0,
        has_breakers=False,
    )

    error = outcome(pool.submit([ref("slow")])[0])

    assert type(error) is StorageUnavailableError
    assert "10000000 bytes/s" in str(error)


@contextmanager
def cut_transfers(*, sse: str = "", times: int = 1) -> Iterator[tuple[Serve, list[str]]]:
    """Serve a picture cut short with a length that agrees, so many times."""
    raw = pictures.jpeg()
    etag = hashlib.md5(raw).hexdigest()
    asked: list[str] = []

    def serve(request: BaseHTTPRequestHandler, key: str) -> None:
        asked.append(key)
        cut = raw[: len(raw) // 2 - len(asked)] if len(asked) <= times else raw
        more = {"x_amz_server_side_encryption": sse} if sse else {}
        give(request, cut, ETag=f'"{etag}"', **more)

    yield serve, asked


def test_a_cut_transfer_is_fetched_again(start: StartPool) -> None:
    with cut_transfers() as (serve, asked):
        answer = outcome(start(serve, image_retries=0).submit([ref("cat")])[0])

    assert isinstance(answer, Pixels)
    assert len(asked) == 2


def test_a_transfer_that_is_always_cut_is_storage_at_fault(start: StartPool) -> None:
    with cut_transfers(times=99) as (serve, asked):
        answer = outcome(start(serve, image_retries=2).submit([ref("cat")])[0])

    assert type(answer) is StorageUnavailableError
    assert "cut" in str(answer)
    assert len(asked) == 3


def test_an_etag_that_is_not_an_md5_does_not_hide_a_broken_picture(start: StartPool) -> None:
    """Of objects encrypted with KMS the ETag looks like an MD5, and is none."""
    with cut_transfers(sse="aws:kms", times=99) as (serve, asked):
        answer = outcome(start(serve, image_retries=2).submit([ref("cat")])[0])

    assert type(answer) is ImageUndecodableError
    assert len(asked) == 2


def test_a_bucket_that_fails_as_a_whole_is_told_from_an_object_that_does(
    start: StartPool,
) -> None:
    """The object's own error is final for the attempt; a whole bucket's makes jobs wait."""
    is_failing = threading.Event()

    def serve(request: BaseHTTPRequestHandler, key: str) -> None:
        if is_failing.is_set() or key == "bad":
            reply(request, 500)
        elif key.startswith("labelyard-probe"):
            reply(request, 404)
        else:
            give(request, pictures.png())

    pool = start(serve, image_retries=0)
    bad = outcome(pool.submit([ref("bad")])[0])
    is_failing.set()
    wait_until(
        lambda: isinstance(outcome(pool.submit([ref("cat")])[0]), StorageAwayError),
        within_s=WITHIN_S,
    )
    assert pool.sources_away == ["s3://pets"]
    is_failing.clear()
    wait_until(lambda: isinstance(outcome(pool.submit([ref("cat")])[0]), Pixels), within_s=WITHIN_S)

    assert type(bad) is StorageUnavailableError
    assert pool.sources_away == []


def test_a_slow_source_gives_up_job_slots_when_these_get_scarce(
    start: StartPool, drip: Drip
) -> None:
    pool = start(lambda request, _: drip(request), job_slots=8)

    answers = [
        pool.submit([ref(str(number))], job=f"job-{number}", tenant="a")[0] for number in range(8)
    ]

    wait_until(lambda: sum(one.done() for one in answers) == 6, within_s=WITHIN_S)
    assert not answers[0].done()  # the oldest may go on
    assert all(isinstance(one.exception(), StorageAwayError) for one in answers[2:])


def test_an_interactive_image_needs_no_place_that_bulk_images_hold(start: StartPool) -> None:
    budget = PixelBudget(8)
    pool = start(files({}), budget=budget)
    bulk = pool.submit([ref(f"bulk{number}") for number in range(20)])
    wait_until(lambda: sum(answer.done() for answer in bulk) == 7, within_s=WITHIN_S)

    (lone,) = pool.submit([ref("lone")], priority=Priority.INTERACTIVE)

    assert type(outcome(lone)) is Pixels
    assert sum(answer.done() for answer in bulk) == 7
    for answer in bulk:
        answer.cancel()


def test_images_wait_for_a_place_and_every_place_comes_back(start: StartPool) -> None:
    budget = PixelBudget(2)
    pool = start(files({"crash": poison.CRASH, "bad": b"no picture"}), budget=budget)
    keys = ["crash", "bad", *(f"good{n}" for n in range(6))]

    answers = pool.submit([ref(key) for key in keys])
    taken = []

    def use(answer: "Future[Pixels | Unchanged]") -> None:
        if answer.exception() is None:
            taken.append(budget.taken)
            budget.give_back()

    for answer in answers:
        answer.add_done_callback(use)
    kinds = [type(outcome(answer)) for answer in answers]

    assert kinds == [ImageCrashedDecoderError, ImageUndecodableError, *[Pixels] * 6]
    wait_until(lambda: len(taken) == 6)
    assert max(taken) <= 2
    assert budget.taken == 0
