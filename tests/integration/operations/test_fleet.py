"""A fleet of real processes: started again, drained, and never left behind."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil  # type: ignore[import-untyped]
import pytest

from tests.support.waiting import wait_until

# Leaves a file of its name, process id and share; ends on SIGTERM with the code in argv[2].
MEMBER = """
import os, pathlib, signal, sys
signal.signal(signal.SIGTERM, lambda *_: sys.exit(int(sys.argv[2])))
device = os.environ["LABELYARD_DEVICE"].replace(":", "")
threads = os.environ.get("LABELYARD_MODEL_THREADS", "")
pathlib.Path(sys.argv[1], f"{device} {os.getpid()} {threads}").touch()
while True:
    signal.pause()
"""
# argv: member program, folder, then device=code for each member.
FLEET = """
import sys
from labelyard_worker.operations import fleet
fleet.USEFUL_S = 0
program, folder, *members = sys.argv[1:]
pairs = [member.split("=") for member in members]
sys.exit(fleet.run_fleet([
    fleet.FleetWorker(device, health_port=0, command=[sys.executable, "-c", program, folder, code])
    for device, code in pairs
]))
"""

Fleet = subprocess.Popen[bytes]
StartFleet = Callable[..., Fleet]


@pytest.fixture
def start_fleet(tmp_path: Path) -> Iterator[StartFleet]:
    fleets: list[Fleet] = []

    def start(*members: str) -> Fleet:
        fleets.append(
            subprocess.Popen([sys.executable, "-c", FLEET, MEMBER, str(tmp_path), *members])
        )
        wait_until(lambda: len(started(tmp_path)) == len(members))
        return fleets[-1]

    yield start

    for fleet in fleets:
        fleet.kill()
        fleet.wait()
    wait_until(lambda: not any(is_running(pid) for _, pid, _ in started(tmp_path)))


def started(folder: Path) -> list[tuple[str, int, str]]:
    """List device, process id and share of every member that ever started."""
    parts = [path.name.split(" ") for path in folder.iterdir()]
    return [(device, int(pid), threads) for device, pid, threads in parts]


def is_running(pid: int) -> bool:
    """Return whether the process runs; one that nobody waited for yet has ended, too."""
    try:
        return bool(psutil.Process(pid).status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


def pid_of(device: str, folder: Path) -> int:
    return next(pid for name, pid, _ in started(folder) if name == device)


def test_a_member_that_ends_is_started_again_and_the_others_go_on(
    start_fleet: StartFleet, tmp_path: Path
) -> None:
    start_fleet("cpu=0", "cuda:0=0")
    other = pid_of("cuda0", tmp_path)

    os.kill(pid_of("cpu", tmp_path), signal.SIGKILL)

    wait_until(lambda: [name for name, _, _ in started(tmp_path)].count("cpu") == 2)
    assert [pid for name, pid, _ in started(tmp_path) if name == "cuda0"] == [other]
    assert is_running(other)


@pytest.mark.parametrize(
    ("members", "code"), [(("cpu=0", "cuda:0=0"), 0), (("cpu=3", "cuda:0=0"), 3)]
)
def test_sigterm_drains_all_and_the_exit_code_is_the_worst(
    start_fleet: StartFleet, tmp_path: Path, members: tuple[str, ...], code: int
) -> None:
    fleet = start_fleet(*members)

    fleet.send_signal(signal.SIGTERM)

    assert fleet.wait(timeout=10) == code
    assert not any(is_running(pid) for _, pid, _ in started(tmp_path))
    assert len(started(tmp_path)) == 2  # none was started again meanwhile


def test_a_killed_fleet_takes_its_members_down(start_fleet: StartFleet, tmp_path: Path) -> None:
    fleet = start_fleet("cpu=0", "cuda:0=0")
    members = [pid for _, pid, _ in started(tmp_path)]

    fleet.kill()

    wait_until(lambda: not any(is_running(pid) for pid in members))
    assert len(members) == 2


def test_members_on_one_cpu_are_told_their_share(start_fleet: StartFleet, tmp_path: Path) -> None:
    start_fleet("cpu=0", "cpu=0", "cuda:0=0")

    cpu_shares = [threads for name, _, threads in started(tmp_path) if name == "cpu"]
    assert all(int(threads) >= 1 for threads in cpu_shares)
    assert [threads for name, _, threads in started(tmp_path) if name == "cuda0"] == [""]


def test_wrong_devices_end_the_command_with_one_line() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "labelyard_worker", "start", "--devices", "gpu:0"],
        capture_output=True,
        text=True,
        check=False,
    )

    assert done.returncode == 2
    assert "'gpu:0' is not a device" in done.stderr
    assert len(done.stderr.splitlines()) == 1
