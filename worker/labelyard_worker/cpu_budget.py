"""The process's use of the machine: its cores, its threads, its time for garbage collection."""

import gc
import math
import os
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

from threadpoolctl import ThreadpoolController

#: Added to the niceness of threads that let others go first. Such a thread gets a tenth of a core
#: that another one wants, which is enough to bring back a lock that it holds.
NICENESS: Final = 10
MAX_NICENESS: Final = 19


def usable_cores(root: Path = Path("/")) -> int:
    """Count the cores that affinity and container limits leave to this process, at least 1.

    ``os.cpu_count()`` counts the machine's, and a container with 2 of 64 would start 64.

    Args:
        root: Where ``/proc`` and ``/sys`` are looked for.
    """
    cores = len(os.sched_getaffinity(0))
    quotas = [quota for quota in (_quota_v2(root), _quota_v1(root)) if quota is not None]
    return max(1, min([cores, *(math.ceil(quota) for quota in quotas)]))


def keep_numpy_to_one_thread() -> None:
    """Keep numpy's matrix products on the calling thread.

    Many jobs are scored at once, beside forward passes that have the cores. From about a
    hundred labels on, OpenBLAS would call a team of threads for each, and wait, spinning,
    for members that get no core.
    """
    for library in ThreadpoolController().lib_controllers:
        if "numpy" in library.filepath:
            library.set_num_threads(1)


def let_others_go_first() -> None:
    """Lower the calling thread's priority, for ever, so that other threads get the cores first.

    Where threads have no priority of their own (outside Linux) nothing happens. Threads that the
    thread starts, as the team of its forward passes, inherit it.
    """
    if sys.platform == "linux":
        me = threading.get_native_id()
        with suppress(OSError):
            now = os.getpriority(os.PRIO_PROCESS, me)
            os.setpriority(os.PRIO_PROCESS, me, min(now + NICENESS, MAX_NICENESS))


@contextmanager
def garbage_left_alone() -> Iterator[None]:
    """Look for no reference cycles while the block runs, as when it imports large libraries.

    What torch and transformers make of themselves lives as long as the process: looking
    through it again and again took an eighth of their import.
    """
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


def _quota_v2(root: Path) -> float | None:
    """Read the smallest quota of our control group and those above it, in cores."""
    mount = root / "sys/fs/cgroup"
    entries = _read(root / "proc/self/cgroup").splitlines()
    ours = next((line.removeprefix("0::/") for line in entries if line.startswith("0::/")), "")
    group, quotas = mount / ours, []
    while group.is_relative_to(mount):
        quota, _, period = _read(group / "cpu.max").partition(" ")
        if quota.isdigit():
            quotas.append(int(quota) / int(period))
        group = group.parent
    return min(quotas, default=None)


def _quota_v1(root: Path) -> float | None:
    group = root / "sys/fs/cgroup/cpu"
    quota, period = _read(group / "cpu.cfs_quota_us"), _read(group / "cpu.cfs_period_us")
    return int(quota) / int(period) if quota.strip().isdigit() and period else None


def _read(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:
        return ""
