"""Utilisation, power and memory of the first GPU while a block runs, through NVML."""

import statistics
import threading
from types import TracebackType
from typing import Any, Self

LOOK_EVERY_S = 0.1


class GpuMeter:
    """Samples the GPU while it is entered; finds nothing on a machine without one.

    Attributes:
        samples: How often it looked.
    """

    def __init__(self) -> None:
        self.samples = 0
        self._utilisation: list[float] = []
        self._power_w: list[float] = []
        self._memory_bytes = 0
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._look, name="gpu-meter", daemon=True)

    @property
    def found(self) -> dict[str, float]:
        """Means over the samples, and the most memory; empty when there is none."""
        if not self._utilisation:
            return {}
        return {
            "gpu_utilisation": round(statistics.mean(self._utilisation), 3),
            "gpu_power_w": round(statistics.mean(self._power_w), 1),
            "gpu_memory_gib": round(self._memory_bytes / 2**30, 2),
        }

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._ended.set()
        self._thread.join()

    def _look(self) -> None:
        try:
            import pynvml

            pynvml.nvmlInit()
            gpu = pynvml.nvmlDeviceGetHandleByIndex(0)
        except Exception:  # noqa: BLE001 - no library, no driver, no GPU: no figures
            return
        while True:
            self._utilisation.append(pynvml.nvmlDeviceGetUtilizationRates(gpu).gpu / 100)
            self._power_w.append(pynvml.nvmlDeviceGetPowerUsage(gpu) / 1000)
            self._memory_bytes = max(self._memory_bytes, pynvml.nvmlDeviceGetMemoryInfo(gpu).used)
            self.samples += 1
            if self._ended.wait(LOOK_EVERY_S):
                break
        pynvml.nvmlShutdown()


def describe_gpu() -> dict[str, Any]:
    """Read the first GPU's memory, clocks and driver."""
    import pynvml

    pynvml.nvmlInit()
    gpu = pynvml.nvmlDeviceGetHandleByIndex(0)
    found = {
        "driver": pynvml.nvmlSystemGetDriverVersion(),
        "gpu_memory_gib": round(pynvml.nvmlDeviceGetMemoryInfo(gpu).total / 2**30, 1),
        "clock_mhz": pynvml.nvmlDeviceGetClockInfo(gpu, pynvml.NVML_CLOCK_SM),
        "highest_clock_mhz": pynvml.nvmlDeviceGetMaxClockInfo(gpu, pynvml.NVML_CLOCK_SM),
    }
    pynvml.nvmlShutdown()
    return found
