"""deploy/systemd: the unit that systemd reads, and the settings beside it."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from labelyard.settings import ClientSettings, unknown_variables
from labelyard_worker.settings import WorkerSettings

FOLDER = Path(__file__).parents[2] / "deploy/systemd"
UNIT = (FOLDER / "labelyard-worker.service").read_text(encoding="utf-8")
EXAMPLE = (FOLDER / "worker.env.example").read_text(encoding="utf-8")
NOT_INSTALLED = "systemd-analyze is not installed"
# systemd-analyze's scale ends at 100; a service without any confinement has 96.
MAX_EXPOSURE = 20
needs_systemd = pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason=NOT_INSTALLED)


def values(name: str) -> list[str]:
    """Return the values of a setting of the unit."""
    return re.findall(rf"^{name}=(.*)$", UNIT, re.MULTILINE)


def environment() -> dict[str, str]:
    """Return the variables that the unit and its file set."""
    lines = [*values("Environment"), *re.findall(r"^[A-Z]\w*=.*$", EXAMPLE, re.MULTILINE)]
    return dict(line.split("=", 1) for line in lines)


@pytest.fixture
def unit(tmp_path: Path) -> Path:
    """Write the unit with a program that exists here."""
    program = str(Path(sys.executable).with_name("labelyard-worker"))
    path = tmp_path / "labelyard-worker.service"
    path.write_text(UNIT.replace("/opt/labelyard/bin/labelyard-worker", program))
    return path


@needs_systemd
def test_systemd_finds_no_fault_in_the_unit(unit: Path) -> None:
    checked = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", unit], capture_output=True, text=True, check=False
    )

    assert (checked.returncode, checked.stderr) == (0, "")


@needs_systemd
def test_systemd_rates_the_unit_as_confined(unit: Path) -> None:
    checked = subprocess.run(
        ["systemd-analyze", "security", "--offline=yes", f"--threshold={MAX_EXPOSURE}", unit],
        capture_output=True,
        text=True,
        check=False,
    )

    assert checked.returncode == 0, checked.stdout


def test_worker_is_killed_later_than_it_has_drained() -> None:
    [stop_s] = values("TimeoutStopSec")

    assert float(stop_s) >= float(environment()["LABELYARD_DRAIN_S"]) + 10


def test_sigterm_goes_to_the_worker_alone_and_a_dead_one_is_started_again() -> None:
    assert values("KillMode") == ["mixed"]
    assert values("Restart") == ["always"]
    assert values("StartLimitIntervalSec") == ["0"]


def test_each_variable_is_a_setting_and_the_example_holds_no_secret() -> None:
    given = environment()

    assert unknown_variables(given, [WorkerSettings, ClientSettings]) == set()
    assert given["AWS_SECRET_ACCESS_KEY"] == given["AWS_ACCESS_KEY_ID"] == ""
