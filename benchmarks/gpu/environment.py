"""Step: what the machine is, and whether it can be measured on."""

import argparse
import os
import shutil
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, version

from benchmarks.gpu.gpu_meter import GpuMeter, describe_gpu
from benchmarks.gpu.step_result import StepResult
from labelyard_worker.cpu_budget import usable_cores

NEEDED = ("torch", "transformers", "celery", "redis", "obstore", "boto3", "pillow", "numpy")
NVIDIA_SMI = ("nvidia-smi", "--query-gpu=driver_version,clocks.max.sm,clocks.sm,power.limit")


def main() -> int:
    """Describe the machine; fail if the device is not there or a library is missing."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", required=True)
    device = parser.parse_args().device
    result = StepResult()
    versions = {name: version_of(name) for name in NEEDED}
    result.add(python=sys.version.split()[0], **versions)
    result.add(cores=usable_cores(), memory_gib=round(memory_gib()), load=os.getloadavg()[0])
    import torch

    flash = torch.backends.cuda.flash_sdp_enabled()  # type: ignore[no-untyped-call]
    result.add(cuda=torch.version.cuda, flash=flash)
    if device == "cuda":
        result.add(device=torch.cuda.get_device_name())
        result.add(**describe_gpu())
        if shutil.which(NVIDIA_SMI[0]):
            subprocess.run([*NVIDIA_SMI, "--format=csv"], check=False)
        product = torch.ones(4096, 4096, device=device, dtype=torch.bfloat16)
        with GpuMeter() as meter:
            (product @ product).sum().item()
        result.add(meter_works=meter.samples > 0)
    else:
        result.add(device="CPU")
    missing = [name for name, found in versions.items() if found is None]
    if missing:
        print(f"missing: {', '.join(missing)}")
    return 1 if missing else 0


def version_of(name: str) -> str | None:
    """Read a distribution's version; ``None`` if it is not installed."""
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def memory_gib() -> float:
    """Read how much memory the machine has."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30


if __name__ == "__main__":
    sys.exit(main())
