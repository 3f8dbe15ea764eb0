"""A job or a forward pass beyond twice its deadline ends the process, and nothing less does."""

import subprocess
import sys
import threading
import time
from collections.abc import Iterator

import pytest

from labelyard_worker.jobs.cancellation import Token
from labelyard_worker.jobs.watchdog import EXIT_CODE, Watchdog
from tests.support.waiting import wait_until

HANGING = """
import threading, time
from labelyard_worker.jobs.watchdog import Watchdog
from labelyard_worker.operations import logs
logs.set_up(level="info", form="text")
hangs = threading.Event()
Watchdog(
    model_busy_s=lambda: 9.0 if hangs.is_set() else 0.0, model_timeout_s=1.0, poll_every_s=0.05
)
def hang_in_native_code():
    hangs.set()
    time.sleep(60)
hang_in_native_code()
"""


class Scene:
    """A watchdog that only notes what it would end the process for."""

    def __init__(self) -> None:
        self.model_busy_s = 0.0
        self.reasons: list[str] = []
        self.watchdog = Watchdog(
            model_busy_s=lambda: self.model_busy_s,
            model_timeout_s=10.0,
            poll_every_s=0.005,
            on_hang=self.reasons.append,
        )


@pytest.fixture
def scene() -> Iterator[Scene]:
    scene = Scene()
    yield scene
    scene.watchdog.close()


def token(*, ran_for_s: float, timeout_s: float = 10.0) -> Token:
    made = Token("job-1", timeout_s=timeout_s, expires_in_s=None)
    made.started_at = time.monotonic() - ran_for_s
    return made


def test_a_job_beyond_twice_its_deadline_is_a_hang(scene: Scene) -> None:
    with scene.watchdog.guarding(token(ran_for_s=20.1)):
        wait_until(lambda: scene.reasons)

    assert scene.reasons == ["job job-1 runs for more than 20 s"]


def test_a_job_beyond_its_deadline_still_has_time_to_stop_by_itself(scene: Scene) -> None:
    with scene.watchdog.guarding(token(ran_for_s=19)):
        assert scene.watchdog.hung() is None


def test_a_job_that_ended_is_watched_no_more(scene: Scene) -> None:
    with pytest.raises(MemoryError), scene.watchdog.guarding(token(ran_for_s=0)):
        raise MemoryError

    assert scene.watchdog._guarded == set()


@pytest.mark.parametrize(("busy_s", "is_hung"), [(0.0, False), (20.0, False), (20.1, True)])
def test_a_forward_pass_beyond_twice_its_deadline_is_a_hang(
    scene: Scene, busy_s: float, is_hung: bool
) -> None:
    scene.model_busy_s = busy_s

    assert (scene.watchdog.hung() is not None) == is_hung


def test_switched_off_nothing_is_ended_but_health_still_sees_it() -> None:
    threads = threading.active_count()
    watchdog = Watchdog(model_busy_s=lambda: 9.0, model_timeout_s=1.0, is_on=False)

    assert threading.active_count() == threads
    assert watchdog.hung() == "a forward pass runs for more than 2 s"
    watchdog.close()


def test_the_process_ends_with_its_stacks_in_the_log() -> None:
    done = subprocess.run(
        [sys.executable, "-c", HANGING], capture_output=True, text=True, timeout=30, check=False
    )

    assert done.returncode == EXIT_CODE
    assert "critical watchdog_ends_process reason=" in done.stderr
    assert "in hang_in_native_code" in done.stderr


@pytest.mark.parametrize(
    "preparation",
    [
        "import os; os.close(2)",
        "import sys; sys.stderr.close()",
        "import sys; sys.stderr = None",
        # A pipe that nobody reads: a write into it waits for ever.
        (
            "import os, fcntl\n"
            "_, end = os.pipe()\n"
            "os.dup2(end, 2)\n"
            "os.set_blocking(2, False)\n"
            "try:\n"
            "    while os.write(2, b'x' * 4096): pass\n"
            "except BlockingIOError: os.set_blocking(2, True)\n"
            "import labelyard_worker.jobs.watchdog as watchdog\n"
            "watchdog.LOG_WITHIN_S = 0.5"
        ),
    ],
    ids=["descriptor closed", "file closed", "no file", "full pipe"],
)
def test_the_process_ends_although_its_stacks_cannot_be_written(preparation: str) -> None:
    code = HANGING.replace("hangs = threading", f"{preparation}\nhangs = threading")

    done = subprocess.run([sys.executable, "-c", code], timeout=25, check=False)

    assert done.returncode == EXIT_CODE
