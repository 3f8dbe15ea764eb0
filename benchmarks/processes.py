"""CPU time and resident memory of whole process trees, out of /proc."""

import os
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

TICKS_PER_S = os.sysconf("SC_CLK_TCK")
PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")
LOOK_EVERY_S = 0.25

Stages = Mapping[str, Sequence[int]]


def descendants(pid: int) -> list[int]:
    """List the processes below *pid*, without itself."""
    children: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and (fields := _stat(int(entry.name))):
            children.setdefault(int(fields[1]), []).append(int(entry.name))
    found: list[int] = []
    todo = [pid]
    while todo:
        below = children.get(todo.pop(), [])
        found += below
        todo += below
    return found


def cpu_s(pids: Sequence[int]) -> float:
    """Add up the CPU seconds of *pids*, and of children that they have waited for."""
    return sum(sum(map(int, fields[11:15])) for pid in pids if (fields := _stat(pid))) / TICKS_PER_S


def rss_bytes(pids: Sequence[int]) -> int:
    """Add up the resident memory of *pids*; what they share counts for each."""
    return sum(int(fields[21]) for pid in pids if (fields := _stat(pid))) * PAGE_BYTES


def _stat(pid: int) -> list[str]:
    """Read the fields of proc(5)'s stat from the third on; none when the process is gone."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return []


class Meter:
    """Measures, while it is entered, the CPU seconds by stage and the peak memory.

    Attributes:
        cpu_s: Seconds by stage, known after the block.
        peak_rss_bytes: Highest sum over the stages in *measured*.
    """

    def __init__(self, stages: Callable[[], Stages], *, measured: Sequence[str]) -> None:
        """Prepare to measure; entering the meter starts it.

        Args:
            stages: Gives the process ids of each stage at the time of asking.
            measured: Stages that belong to the system itself, for its memory.
        """
        self.cpu_s: dict[str, float] = {}
        self.peak_rss_bytes = 0
        self._stages = stages
        self._measured = measured
        self._before: dict[str, float] = {}
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._look, name="meter", daemon=True)

    def __enter__(self) -> Self:
        self._before = {stage: cpu_s(pids) for stage, pids in self._stages().items()}
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        after = {stage: cpu_s(pids) for stage, pids in self._stages().items()}
        self._ended.set()
        self._thread.join()
        self.cpu_s = {stage: after[stage] - self._before.get(stage, 0.0) for stage in after}

    def _look(self) -> None:
        pids = [
            pid for name, stage in self._stages().items() if name in self._measured for pid in stage
        ]
        while True:
            self.peak_rss_bytes = max(self.peak_rss_bytes, rss_bytes(pids))
            if self._ended.wait(LOOK_EVERY_S):
                return
