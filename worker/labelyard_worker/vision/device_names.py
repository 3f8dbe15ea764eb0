"""Names and memory of devices, for people who look at a fleet."""

import platform
from pathlib import Path

import torch

from labelyard_worker.cpu_budget import usable_cores

CPU_INFO = Path("/proc/cpuinfo")


def name_device(device: torch.device) -> str:
    """Return the product name of a GPU, or that of the processor with its usable cores."""
    if device.type == "cuda":
        return str(torch.cuda.get_device_name(device))
    cores = usable_cores()
    return f"{_name_processor()} ({cores} core{'s' if cores > 1 else ''})"


def count_device_memory(device: torch.device) -> int | None:
    """Return the bytes of memory of a GPU; ``None`` for a CPU, which has no memory of its own."""
    if device.type != "cuda":
        return None
    return int(torch.cuda.get_device_properties(device).total_memory)


def _name_processor() -> str:
    try:
        lines = CPU_INFO.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        lines = []
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(filter(None, names), platform.machine() or "CPU")
