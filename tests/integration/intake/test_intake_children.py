"""Children take images in; one that crashes, hangs or eats memory costs one image."""

import os
import signal
import subprocess
import sys
import textwrap
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import psutil  # type: ignore[import-untyped]
import pytest

from labelyard.errors import (
    ImageCrashedDecoderError,
    ImageNotFoundError,
    ImageTimedOutError,
    ImageTooLargeError,
    ImageUndecodableError,
    StorageUnavailableError,
)
from labelyard.messages import ImageRef
from labelyard_worker.intake.decode import decode
from labelyard_worker.intake.pool import IntakeOptions, IntakePool
from labelyard_worker.intake.sources.fetcher_settings import FetcherSettings
from labelyard_worker.intake.sources.registry import resolve_fetcher
from labelyard_worker.local.servers import SeaweedServer
from labelyard_worker.pixels import FileVersion, ImageLimits, Pixels, PixelSpec, Unchanged
from labelyard_worker.settings import WorkerSettings
from tests.support import pictures, poison
from tests.support.buckets import Bucket
from tests.support.waiting import wait_until

SPEC = PixelSpec("shortest_edge", shortest_edge=32, crop=(32, 32))
LIMITS = ImageLimits(max_memory_bytes=128 * 2**20)
ANSWER_WITHIN_S = 30

StartIntake = Callable[..., IntakePool]


@pytest.fixture
def fetchers(seaweed: SeaweedServer, monkeypatch: pytest.MonkeyPatch) -> FetcherSettings:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", seaweed.access_key_id)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", seaweed.secret_access_key)
    return resolve_fetcher(WorkerSettings(s3_endpoint_url=seaweed.endpoint_url))


@pytest.fixture
def start_intake(fetchers: FetcherSettings) -> Iterator[StartIntake]:
    """Start an intake of two children whose decoder obeys orders in files; closed at the end."""
    with ExitStack() as started:

        def start(
            *,
            decoder: str = poison.DECODER,
            budget: Any = None,
            **options: Any,
        ) -> IntakePool:
            intake = IntakePool(
                spec=SPEC,
                limits=LIMITS,
                fetchers=fetchers,
                options=IntakeOptions(**{"children": 2, **options}),
                decoder=decoder,
                budget=budget,
            )
            started.callback(intake.close)
            return intake

        yield start


@pytest.fixture
def put(bucket: Bucket) -> Callable[[bytes], ImageRef]:
    """Store a file, and refer to it."""

    def put_numbered(raw: bytes) -> ImageRef:
        number = str(next(numbers))
        return ImageRef(id=number, uri=bucket.put(number, raw))

    numbers = iter(range(10_000))
    return put_numbered


def outcome(answer: Future[Pixels | Unchanged]) -> Any:
    error = answer.exception(ANSWER_WITHIN_S)
    return error if error is not None else answer.result()


def words(answer: Future[Pixels | Unchanged]) -> str:
    pixels = answer.result(ANSWER_WITHIN_S)
    assert isinstance(pixels, Pixels)
    return pixels.data.decode().rstrip()


def test_each_image_gets_its_pixels_in_order(
    start_intake: StartIntake, put: Callable[[bytes], ImageRef], bucket: Bucket
) -> None:
    """The pixels equal those decoded in this process, and the ETag is the object's."""
    files = [pictures.jpeg(seed=seed) for seed in range(20)]
    images = [put(raw) for raw in files]
    intake = start_intake(decoder="labelyard_worker.intake.decode:decode")

    answers = [outcome(answer) for answer in intake.submit(images)]

    for image, raw, pixels in zip(images, files, answers, strict=True):
        here = decode(raw, uri=image.uri, spec=SPEC, limits=LIMITS)
        assert (pixels.data, pixels.facts.sha256) == (here.data, here.facts.sha256)
        assert len(pixels.facts.etag) == 32
    wait_until(lambda: intake.pending == 0)


def test_only_poison_fails_and_each_with_its_code(
    start_intake: StartIntake, put: Callable[[bytes], ImageRef]
) -> None:
    """60 good images among 3 that crash, 3 that hang, 3 that eat memory, 3 that are broken."""
    poisons = [poison.CRASH, poison.HANG, poison.EAT_MEMORY, b"no picture"]
    files = [pictures.png(seed=number) for number in range(60)]
    for place, raw in enumerate(poisons * 3):
        files.insert(place * 6 + 3, raw)
    intake = start_intake(image_timeout_s=1.0)

    answers = [outcome(answer) for answer in intake.submit([put(raw) for raw in files])]

    assert Counter(type(answer) for answer in answers) == {
        Pixels: 60,
        ImageCrashedDecoderError: 3,
        ImageTimedOutError: 3,
        ImageTooLargeError: 3,
        ImageUndecodableError: 3,
    }
    failed = [raw for raw, one in zip(files, answers, strict=True) if not isinstance(one, Pixels)]
    assert failed == poisons * 3
    assert "SIGABRT" in next(str(one) for one in answers if "crashed" in str(one))
    assert intake.is_alive()


def test_children_know_nothing_of_torch(
    start_intake: StartIntake, put: Callable[[bytes], ImageRef]
) -> None:
    """Though this process has imported it, and so may have its main module."""
    import torch  # noqa: F401

    modules = words(start_intake().submit([put(poison.NAME_MODULES)])[0]).split()

    assert "PIL.JpegImagePlugin" in modules
    heavy = {"torch", "transformers", "numpy", "boto3", "celery", "pytest", "prometheus_client"}
    assert not heavy & set(modules)


def test_children_and_fork_server_never_feel_sigterm_and_sigint(
    start_intake: StartIntake, put: Callable[[bytes], ImageRef]
) -> None:
    """Blocked since before their first instruction, and ignored by the children."""
    intake = start_intake()
    answered = intake.submit([put(poison.NAME_SIGNALS)])[0]
    status = dict(line.split(":\t") for line in words(answered).splitlines() if ":\t" in line)
    server = psutil.Process(intake.decoder_pids[0]).parent()
    assert server is not None
    server_status = Path(f"/proc/{server.pid}/status").read_text()

    both = 1 << (signal.SIGTERM - 1) | 1 << (signal.SIGINT - 1)
    blocked_there = int(server_status.split("SigBlk:\t")[1].split()[0], 16)
    assert int(status["SigIgn"], 16) & both == both
    assert int(status["SigBlk"], 16) & both == both
    assert blocked_there & both == both
    for pid in (*intake.decoder_pids, server.pid):
        os.kill(pid, signal.SIGTERM)
        os.kill(pid, signal.SIGINT)
    assert isinstance(outcome(intake.submit([put(pictures.png())])[0]), Pixels)


def test_a_child_killed_in_idleness_is_replaced_unnoticed(
    start_intake: StartIntake, put: Callable[[bytes], ImageRef]
) -> None:
    """No image is blamed for it."""
    intake = start_intake()
    wait_until(lambda: len(intake.decoder_pids) == 2, within_s=ANSWER_WITHIN_S)
    before = intake.decoder_pids

    for pid in before:
        os.kill(pid, signal.SIGKILL)
    answers = [outcome(one) for one in intake.submit([put(pictures.png()) for _ in range(8)])]

    assert {type(one) for one in answers} == {Pixels}
    assert intake.is_alive()


def test_an_image_whose_child_was_killed_from_outside_gets_another(
    start_intake: StartIntake, put: Callable[[bytes], ImageRef], tmp_path: Path
) -> None:
    """The kernel's memory killer picks children too: one death proves nothing."""
    intake = start_intake()

    answer = intake.submit([put(b"die once:" + os.fsencode(tmp_path / "mark"))])[0]

    assert words(answer) == "recovered"


def test_a_transient_error_is_retried_in_place(
    start_intake: StartIntake, put: Callable[[bytes], ImageRef], tmp_path: Path
) -> None:
    """Up to the limit; without retries it is the answer."""
    file = b"once:" + os.fsencode(tmp_path / "mark")
    image = put(file)

    assert isinstance(
        outcome(start_intake(image_retries=0).submit([image])[0]), StorageUnavailableError
    )
    (tmp_path / "mark").unlink()
    assert words(start_intake(image_retries=1).submit([image])[0]) == "recovered"


def test_waiting_for_a_retry_keeps_no_child_busy(
    start_intake: StartIntake,
    put: Callable[[bytes], ImageRef],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """With one child, other images are done meanwhile."""
    monkeypatch.setattr("labelyard_worker.intake.pipeline.random.uniform", lambda low, high: 0.5)
    intake = start_intake(children=1)
    retried = put(b"once:" + os.fsencode(tmp_path / "mark"))

    first, *others = intake.submit([retried, *(put(pictures.png()) for _ in range(5))])

    assert {type(outcome(one)) for one in others} == {Pixels}
    assert not first.done()
    assert words(first) == "recovered"


def test_images_sent_behind_a_slow_one_are_done_elsewhere(
    start_intake: StartIntake, put: Callable[[bytes], ImageRef]
) -> None:
    """One that hangs holds nobody up until its time is over, 30 seconds here."""
    intake = start_intake()
    calm = [put(pictures.png()) for _ in range(20)]

    hanging, *others = intake.submit([put(poison.HANG), *calm])

    assert {type(outcome(one)) for one in others} == {Pixels}
    assert not hanging.done()


def test_an_object_known_by_its_etag_is_not_fetched_again(
    start_intake: StartIntake, put: Callable[[bytes], ImageRef]
) -> None:
    """Nor is one missing, or changed, taken for it."""
    intake = start_intake()
    image = put(pictures.png())
    pixels = outcome(intake.submit([image])[0])
    gone = image.model_copy(update={"uri": image.uri + "-gone"})
    version = FileVersion(pixels.facts.etag, pixels.stamp)
    known = {image.uri: version, gone.uri: version}

    same, missing = intake.submit([image, gone], known=known)
    changed = intake.submit([image], known={image.uri: FileVersion("another", pixels.stamp)})[0]
    [rewritten] = intake.submit([image], known={image.uri: FileVersion(pixels.facts.etag, "1 2 3")})

    assert outcome(same) == Unchanged(pixels.facts.etag)
    assert isinstance(outcome(missing), ImageNotFoundError)
    assert outcome(changed) == pixels
    assert outcome(rewritten) == pixels


def test_a_cancelled_image_is_skipped(
    start_intake: StartIntake, put: Callable[[bytes], ImageRef]
) -> None:
    """If a child has not begun it; nobody waits for it either."""
    intake = start_intake(children=1, image_timeout_s=1.0)
    hanging = intake.submit([put(poison.HANG)])[0]
    wait_until(lambda: intake.is_decoding, within_s=ANSWER_WITHIN_S)
    behind = intake.submit([put(pictures.png()) for _ in range(10)])

    cancelled = [answer.cancel() for answer in behind[5:]]

    assert all(cancelled)
    assert {type(outcome(answer)) for answer in behind[:5]} == {Pixels}
    assert isinstance(outcome(hanging), ImageTimedOutError)
    wait_until(lambda: intake.pending == 0)


def test_closing_answers_every_caller(
    start_intake: StartIntake, put: Callable[[bytes], ImageRef]
) -> None:
    """An image that hangs and the queued ones behind it fail because the worker stops."""
    intake = start_intake(children=1)
    done = intake.submit([put(pictures.png())])[0]
    done.result(ANSWER_WITHIN_S)
    left = intake.submit([put(poison.HANG)])
    wait_until(lambda: intake.is_decoding)  # else other files may arrive before it
    left += intake.submit([put(pictures.png()) for _ in range(5)])
    pids = intake.decoder_pids

    intake.close(0.05)
    late = intake.submit([put(pictures.png())])

    assert all(isinstance(outcome(one), StorageUnavailableError) for one in left + late)
    assert intake.pending == 0
    assert not intake.is_alive()
    assert not any(psutil.pid_exists(pid) for pid in pids)


def test_closing_with_time_lets_what_waits_be_done(
    start_intake: StartIntake, put: Callable[[bytes], ImageRef]
) -> None:
    """A drain hands nothing back that it can finish."""
    intake = start_intake()
    answers = intake.submit([put(pictures.png()) for _ in range(30)])

    intake.close(ANSWER_WITHIN_S)

    assert {type(outcome(answer)) for answer in answers} == {Pixels}


def test_children_that_cannot_start_are_no_images_fault(
    start_intake: StartIntake, put: Callable[[bytes], ImageRef], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The image waits, and the intake is not alive."""
    monkeypatch.setattr("labelyard_worker.intake.decode_stage.PAUSE_AFTER_FAILURE_S", 0.01)
    intake = start_intake(decoder="no_such_module:decode", children=1)

    answer = intake.submit([put(pictures.png())])[0]

    wait_until(lambda: not intake.is_alive(), within_s=ANSWER_WITHIN_S)
    assert not answer.done()


def test_many_callers_at_once_each_get_their_own(
    start_intake: StartIntake, put: Callable[[bytes], ImageRef]
) -> None:
    """Callers of several threads share one intake."""
    intake = start_intake(children=3)
    images = [put(pictures.png(seed=seed)) for seed in range(5)]
    expected = [outcome(answer) for answer in intake.submit(images)]
    wrong: list[object] = []

    def call() -> None:
        for _ in range(10):
            got = [outcome(answer) for answer in intake.submit(images)]
            wrong.extend(one for one, wanted in zip(got, expected, strict=True) if one != wanted)

    callers = [threading.Thread(target=call) for _ in range(6)]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join()

    assert wrong == []
    wait_until(lambda: intake.pending == 0)


@contextmanager
def program(source: str, *arguments: str) -> Iterator["subprocess.Popen[str]"]:
    """Run a program that prints its children's process ids, in a group of its own."""
    command = [sys.executable, "-c", textwrap.dedent(source), *arguments]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, text=True, start_new_session=True, cwd=Path.cwd()
    ) as running:
        try:
            yield running
        finally:
            running.kill()


HANGING_PROGRAM = """
    import sys
    from labelyard.messages import ImageRef
    from labelyard_worker.intake.pool import IntakeOptions, IntakePool
    from labelyard_worker.pixels import ImageLimits, PixelSpec
    from tests.support.fetching import anonymous_s3

    endpoint, hang, idle = sys.argv[1:]
    intake = IntakePool(
        spec=PixelSpec("exact", height=8, width=8), limits=ImageLimits(),
        fetchers=anonymous_s3(endpoint),
        options=IntakeOptions(children=3, image_timeout_s=2.0),
        decoder="tests.support.poison:decode",
    )
    answers = intake.submit([ImageRef(id="1", uri=hang), ImageRef(id="2", uri=idle)])
    answers[1].exception()
    while len(intake.decoder_pids) < 3:
        pass
    print(*intake.decoder_pids, *intake.fetcher_pids, not answers[0].done(), flush=True)
    answers[0].exception()
"""


@pytest.mark.parametrize(
    ("hang", "within_s"),
    [(poison.HANG, 1.5), (poison.HANG_IN_NATIVE_CODE, 10.0)],
    ids=["wait", "native"],
)
def test_no_child_outlives_a_killed_parent(hang: bytes, within_s: float) -> None:
    """Idle ones and hanging ones end; native code that lets no thread run, a little later."""
    from tests.support.answering import answering, reply

    def give(request: Any) -> None:
        raw = hang if request.path.endswith("hang") else pictures.png()
        reply(request, 200, raw, ETag='"1"', Last_Modified="Mon, 23 Nov 2026 00:00:00 GMT")

    with answering(give) as port:
        arguments = (f"http://127.0.0.1:{port}", "s3://pets/hang", "s3://pets/idle")
        with program(HANGING_PROGRAM, *arguments) as running:
            assert running.stdout is not None
            *printed, is_hanging = running.stdout.readline().split()
            pids = [int(pid) for pid in printed]
            assert (len(pids), is_hanging) == (4, "True")

            running.kill()
            running.wait()

            wait_until(lambda: not any(map(is_running, pids)), within_s=within_s)


def test_children_do_not_run_the_main_module_again(tmp_path: Path) -> None:
    """The main module may import torch, or do work at its top."""
    mark, script = tmp_path / "mark", tmp_path / "main.py"
    source = f"with open({str(mark)!r}, 'a') as file: file.write('run ')\n"
    script.write_text(source + textwrap.dedent(IDLE_PROGRAM))

    subprocess.run([sys.executable, script], check=True)

    assert mark.read_text() == "run "


IDLE_PROGRAM = """
    from labelyard_worker.intake.pool import IntakeOptions, IntakePool
    from labelyard_worker.intake.sources.fetcher_settings import FetcherSettings
    from labelyard_worker.pixels import ImageLimits, PixelSpec

    if __name__ == "__main__":
        fetchers = FetcherSettings(sources=())
        spec = PixelSpec("exact", height=8, width=8)
        intake = IntakePool(spec=spec, limits=ImageLimits(), fetchers=fetchers)
        while not intake.decoder_pids:
            pass
        intake.close()
"""


def is_running(pid: int) -> bool:
    try:
        return bool(psutil.Process(pid).status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False
