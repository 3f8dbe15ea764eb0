"""Find processes by the folder that they work on, whoever their parent is."""

from pathlib import Path

import psutil  # type: ignore[import-untyped]


def processes_on(folder: Path) -> list[str]:
    """Describe the processes that work in *folder*, or name it on their command line."""
    return [line for process in psutil.process_iter() if str(folder) in (line := describe(process))]


def describe(process: psutil.Process) -> str:
    """Write a process's id, its folder and its command; empty if it is gone."""
    try:
        with process.oneshot():
            if process.status() == psutil.STATUS_ZOMBIE:
                return ""
            return f"{process.pid} in {process.cwd()}: {' '.join(process.cmdline())}"
    except (psutil.Error, OSError):
        return ""
