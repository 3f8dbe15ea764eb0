"""A fleet: its devices, its members' environment, its exit code."""

import os
import signal
import sys

import pytest
import torch

from labelyard.errors import ServiceConfigError
from labelyard_worker.operations import fleet
from labelyard_worker.operations.fleet import FleetWorker, divide_cores, parse_devices, to_exit_code


@pytest.mark.parametrize(
    ("wanted", "devices"),
    [
        ("cpu", ["cpu"]),
        ("cpu,cpu", ["cpu", "cpu"]),
        ("cuda:0, cuda:11 ,", ["cuda:0", "cuda:11"]),
    ],
)
def test_devices_are_read_in_their_order(wanted: str, devices: list[str]) -> None:
    assert parse_devices(wanted) == devices


@pytest.mark.parametrize("wanted", [",", " ", "gpu", "cpu,cdua:0", "cpu:0", "cuda", "cuda:", "3"])
def test_what_is_no_device_gets_one_line_that_says_what_to_write(wanted: str) -> None:
    with pytest.raises(ServiceConfigError, match=r"--devices.*write all") as caught:
        parse_devices(wanted)

    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("count", [1, 3])
def test_all_is_every_cuda_device(monkeypatch: pytest.MonkeyPatch, count: int) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: count)

    assert parse_devices("all") == [f"cuda:{index}" for index in range(count)]


def test_all_without_cuda_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)

    with pytest.raises(ServiceConfigError, match="sees no CUDA device"):
        parse_devices("all")


@pytest.mark.parametrize(
    ("devices", "cores", "share"),
    [(["cpu"] * 2, 8, "4"), (["cpu"] * 3, 8, "2"), (["cpu"] * 4, 2, "1"), (["cpu"] * 2, 1, "1")],
)
def test_cpu_members_share_the_cores(devices: list[str], cores: int, share: str) -> None:
    assert divide_cores(devices, {}, cores=cores) == {
        "LABELYARD_MODEL_THREADS": share,
        "LABELYARD_MODEL_STREAMS": "1",
        "LABELYARD_INTAKE_CHILDREN": share,
    }


@pytest.mark.parametrize("devices", [["cpu"], ["cpu", "cuda:0"], ["cuda:0", "cuda:1"]])
def test_a_lone_cpu_member_decides_for_itself(devices: list[str]) -> None:
    assert divide_cores(devices, {}, cores=8) == {}


def test_what_the_operator_set_is_left_as_it_is() -> None:
    shares = divide_cores(["cpu", "cpu"], {"LABELYARD_MODEL_THREADS": "7"}, cores=8)

    assert "LABELYARD_MODEL_THREADS" not in shares
    assert shares["LABELYARD_INTAKE_CHILDREN"] == "4"


def test_only_cpu_members_get_a_share(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fleet, "usable_cores", lambda: 6)
    members = [
        FleetWorker(name, health_port=0, command=["true"]) for name in ("cpu", "cuda:0", "cpu")
    ]

    fleet.share_cores(members)

    threads = [member.environment.get("LABELYARD_MODEL_THREADS") for member in members]
    assert threads == ["3", None, "3"]


def test_a_member_has_the_callers_environment_and_its_own_device_and_port() -> None:
    member = FleetWorker("cuda:1", health_port=9465, command=["true"])

    assert member.environment["PATH"] == os.environ["PATH"]
    assert member.environment["LABELYARD_DEVICE"] == "cuda:1"
    assert member.environment["LABELYARD_HEALTH_PORT"] == "9465"


@pytest.mark.parametrize(
    ("code", "expected"),
    [(0, 0), (3, 3), (-signal.SIGKILL, 137), (-signal.SIGSEGV, 139), (-signal.SIGTERM, 0)],
)
def test_an_exit_code_is_what_a_shell_would_say(code: int, expected: int) -> None:
    assert to_exit_code(code) == expected


def test_a_member_that_ended_by_itself_keeps_its_code_for_the_fleets() -> None:
    member = FleetWorker(
        "cpu", health_port=0, command=[sys.executable, "-c", "raise SystemExit(5)"]
    )
    member.start()
    assert member.wait() == 5

    member.keep_running()

    assert member.wait() == 5


def test_a_member_that_is_of_no_use_is_not_started_again_at_once() -> None:
    member = FleetWorker("cpu", health_port=0, command=["true"])
    member.start()
    member.wait()
    member.keep_running()

    member.keep_running()

    assert member._process is None
