"""What the figures were measured on."""

import os
import platform
from importlib.metadata import version
from pathlib import Path
from typing import Any

from labelyard_worker.vision.devices import cpu_flags

FLAGS_THAT_MATTER = ("avx2", "avx512f", "avx512_bf16", "avx512_vnni", "amx_bf16", "amx_int8")
DISTRIBUTIONS = ("torch", "transformers", "celery", "kombu", "redis", "obstore", "pillow")


def usable_cores() -> int:
    """Count the cores that this process may run on."""
    return len(os.sched_getaffinity(0))


def has_bfloat16() -> bool:
    """Tell whether the CPU computes in bfloat16."""
    return bool(cpu_flags() & {"avx512_bf16", "amx_bf16"})


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
        "bfloat16": has_bfloat16(),
        "memory_kib": int(_line("/proc/meminfo", "MemTotal").split()[0]),
        "gpus": cuda_devices(),
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        **{name: version(name) for name in DISTRIBUTIONS},
    }


def load_before() -> float:
    """Tell how many processes wanted to run in the last minute: others disturb the figures."""
    return os.getloadavg()[0]


def _line(path: str, name: str) -> str:
    for line in Path(path).read_text().splitlines():
        if line.startswith(name):
            return line.partition(":")[2].strip()
    return "unknown 0"
