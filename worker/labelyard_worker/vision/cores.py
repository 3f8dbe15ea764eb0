"""How many CPU cores this process may use: its affinity, and its container's quota."""

import math
import os
from pathlib import Path

CGROUP = Path("/sys/fs/cgroup")


def available_cores(cgroup: Path = CGROUP) -> int:
    """Count the cores that this process may keep busy, at least 1.

    A container with a quota sees every core of its machine; threads beyond the
    quota only get each other throttled.

    Source:
        Linux cgroup-v2.rst, "cpu.max"; sched-bwc.rst (version 1).
    """
    cores = len(os.sched_getaffinity(0))
    quota = _quota(cgroup)
    return cores if quota is None else max(1, min(cores, math.ceil(quota)))


def _quota(cgroup: Path) -> float | None:
    """Read the quota in cores, ``None`` when there is none."""
    try:
        words = (cgroup / "cpu.max").read_text().split()
    except OSError:
        words = _version_1(cgroup / "cpu")
    if len(words) != 2 or not words[0].isdigit():  # "max 100000", "-1 100000"
        return None
    return int(words[0]) / int(words[1])


def _version_1(folder: Path) -> list[str]:
    try:
        return [
            (folder / name).read_text().strip()
            for name in ("cpu.cfs_quota_us", "cpu.cfs_period_us")
        ]
    except OSError:
        return []
