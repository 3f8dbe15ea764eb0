"""The whole service on one machine, by the commands of the README, in a fresh shell."""

import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from labelyard.local_stack import StackState
from tests.support.pictures import photo
from tests.support.processes import processes_on
from tests.support.shell import shell
from tests.support.waiting import wait_until

GONE_WITHIN_S = 30.0


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Path]:
    """Make a home, and end what is left of a stack in it."""
    yield tmp_path
    if state := StackState.read(tmp_path / "labelyard"):
        os.kill(state.pid, signal.SIGKILL)
        wait_until(lambda: processes_on(tmp_path) == [], within_s=GONE_WITHIN_S)


def test_a_stack_goes_up_classifies_survives_its_supervisor_and_goes_down(home: Path) -> None:
    """One test for the whole path, because each start of a stack costs seconds."""
    (home / "mine.jpg").write_bytes(photo("coffee"))
    labels = '--labels "cat,dog,a cup of coffee" --json'

    up = shell(home, "labelyard-worker up --detach")
    classified = shell(home, f"labelyard classify mine.jpg {labels}")
    result = json.loads(classified.stdout)
    uri = result["images"][0]["uri"]
    again = shell(home, f'eval "$(labelyard-worker env)"; labelyard classify {uri} {labels}')
    doctor = shell(home, 'eval "$(labelyard-worker env)"; labelyard doctor --json')
    status = shell(home, "labelyard-worker status && labelyard-worker up")

    assert up.returncode == 0, up.stderr
    assert "the local stack is up" in up.stdout
    assert classified.stderr.startswith(f"using the local stack on {home / 'labelyard'}\n")
    assert uri.startswith("s3://labelyard-uploads/")
    assert "using" not in again.stderr
    assert result["images"][0]["labels"][0]["name"] == "a cup of coffee"
    assert json.loads(again.stdout)["images"][0]["labels"] == result["images"][0]["labels"]
    counts = json.loads(doctor.stdout)["counts"]
    assert (doctor.returncode, counts["serious"], counts["warning"]) == (0, 0, 0), doctor.stdout
    assert "ready: yes" in status.stdout
    assert status.returncode == 1
    assert "runs on" in status.stderr

    kill_supervisor(home)
    wait_until(lambda: processes_on(home) == [], within_s=GONE_WITHIN_S)
    gone = shell(home, "labelyard-worker status || labelyard status x")
    assert gone.returncode == 3
    assert "no_stack: " in gone.stderr
    assert "no LABELYARD_*_URL is set, and no local stack runs" in gone.stderr

    job_id = result["job_id"]
    kept = shell(
        home,
        "labelyard-worker up --detach >/dev/null 2>&1;"
        f'eval "$(labelyard-worker env)"; labelyard result {job_id} --json',
    )
    down = shell(home, "labelyard-worker down")

    assert json.loads(kept.stdout) == result, kept.stderr
    assert (down.returncode, down.stdout) == (0, "stopped\n")
    wait_until(lambda: processes_on(home) == [], within_s=GONE_WITHIN_S)
    assert not (home / "labelyard" / "stack.json").exists()


def kill_supervisor(home: Path) -> None:
    """End the supervisor as a crash would."""
    state = StackState.read(home / "labelyard")
    assert state is not None
    os.kill(state.pid, signal.SIGKILL)
