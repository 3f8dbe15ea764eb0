"""CPU budget: the cores that a process may use, and the threads of its libraries."""

import gc
import os
from pathlib import Path

import numpy as np
import pytest
from threadpoolctl import ThreadpoolController, threadpool_limits

from labelyard_worker.cpu_budget import garbage_left_alone, keep_numpy_to_one_thread, usable_cores
from labelyard_worker.intake.pool import default_children


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine of 64 cores without any limit."""
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(64)))
    return tmp_path


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def test_without_limits_affinity_counts(root: Path) -> None:
    """Even where /proc and /sys are missing."""
    assert usable_cores(root) == 64


@pytest.mark.parametrize(
    ("quota", "cores"),
    [("200000 100000", 2), ("150000 100000", 2), ("10000 100000", 1), ("max 100000", 64)],
)
def test_a_quota_of_cgroup_2_is_rounded_up(root: Path, quota: str, cores: int) -> None:
    """Half a core more is worth a process."""
    write(root / "sys/fs/cgroup/cpu.max", quota + "\n")

    assert usable_cores(root) == cores


def test_the_smallest_quota_above_us_counts(root: Path) -> None:
    """A pod's limit holds for its containers."""
    write(root / "proc/self/cgroup", "0::/pod/container\n")
    write(root / "sys/fs/cgroup/pod/cpu.max", "300000 100000\n")
    write(root / "sys/fs/cgroup/pod/container/cpu.max", "max 100000\n")

    assert usable_cores(root) == 3


@pytest.mark.parametrize(("quota", "cores"), [("400000", 4), ("-1", 64)])
def test_a_quota_of_cgroup_1_counts_too(root: Path, quota: str, cores: int) -> None:
    """-1 is none."""
    write(root / "sys/fs/cgroup/cpu/cpu.cfs_quota_us", quota)
    write(root / "sys/fs/cgroup/cpu/cpu.cfs_period_us", "100000")

    assert usable_cores(root) == cores


@pytest.mark.parametrize(("cores", "children"), [(1, 2), (2, 2), (16, 16), (500, 32)])
def test_there_is_a_child_for_each_core_and_never_one_alone(
    cores: int, children: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nor hundreds."""
    monkeypatch.setattr("labelyard_worker.intake.pool.usable_cores", lambda: cores)

    assert default_children() == children


def numpy_threads() -> list[int]:
    """Read how many threads numpy's own BLAS uses."""
    libraries = ThreadpoolController().lib_controllers
    return [each.num_threads for each in libraries if "numpy" in each.filepath]


def test_numpy_multiplies_on_the_thread_that_asks_it_to() -> None:
    """A team for each job that is scored would wait for cores that the model has."""
    with threadpool_limits(limits=2):  # which gives back what was before
        assert np.ones((2, 2)) @ np.ones(2) == pytest.approx([2, 2])

        keep_numpy_to_one_thread()

        assert numpy_threads() == [1]


def test_cycles_are_looked_for_again_after_an_import_whatever_comes_of_it() -> None:
    seen = []

    def import_what_is_broken() -> None:
        with garbage_left_alone():
            seen.append(gc.isenabled())
            raise ImportError

    with pytest.raises(ImportError):
        import_what_is_broken()
    assert [*seen, gc.isenabled()] == [False, True]


def test_who_never_looks_for_cycles_is_not_made_to() -> None:
    gc.disable()
    try:
        with garbage_left_alone():
            pass

        assert not gc.isenabled()
    finally:
        gc.enable()
