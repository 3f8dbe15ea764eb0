"""Machine that the figures were measured on."""

import os
import platform
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

from labelyard_worker.vision.precision import (
    BFLOAT16_FLAGS,
    WORTHWHILE,
    bfloat16_speed_up,
    cpu_flags,
)

FLAGS_THAT_MATTER = ("avx2", "avx512f", "avx512_bf16", "avx512_vnni", "amx_bf16", "amx_int8")
DISTRIBUTIONS = ("torch", "transformers", "celery", "kombu", "redis", "obstore", "pillow")


def usable_cores() -> int:
    """Count the cores that this process may run on."""
    return len(os.sched_getaffinity(0))


def has_bfloat16() -> bool:
    """Return whether the CPU has instructions for bfloat16."""
    return bool(cpu_flags() & BFLOAT16_FLAGS)


@cache
def speed_up_by_bfloat16() -> float:
    """Measure how many times faster the CPU multiplies in bfloat16 than in float32."""
    return bfloat16_speed_up() if has_bfloat16() else 0.0


def gains_by_bfloat16() -> bool:
    """Return whether labelyard computes in bfloat16 here by itself."""
    return speed_up_by_bfloat16() >= WORTHWHILE


def cuda_devices() -> list[str]:
    """Name the GPUs that torch can use."""
    import torch  # 2 s, which --help need not pay

    if not torch.cuda.is_available():
        return []
    return [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]


def describe() -> dict[str, Any]:
    """Describe processor, memory, GPUs and libraries."""
    flags = cpu_flags()
    return {
        "cpu": _line("/proc/cpuinfo", "model name"),
        "cores": usable_cores(),
        "flags": [flag for flag in FLAGS_THAT_MATTER if flag in flags],
        "bfloat16_speed_up": round(speed_up_by_bfloat16(), 2),
        "memory_kib": int(_line("/proc/meminfo", "MemTotal").split()[0]),
        "gpus": cuda_devices(),
        "system": f"{platform.system()} {platform.release().partition('-')[0]}",
        "python": platform.python_version(),
        **{name: version(name) for name in DISTRIBUTIONS},
    }


def load_before() -> float:
    """Return the load average of the last minute: other processes disturb the figures."""
    return os.getloadavg()[0]


def _line(path: str, name: str) -> str:
    for line in Path(path).read_text().splitlines():
        if line.startswith(name):
            return line.partition(":")[2].strip()
    return "unknown 0"
