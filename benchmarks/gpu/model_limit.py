"""Step: what the image tower alone can do, as it is, as a CUDA graph, and compiled."""

import argparse
import sys
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import torch

from benchmarks.gpu.checkpoints import edge_of, random_model
from benchmarks.gpu.form import CHECKPOINTS, Form, form_of
from benchmarks.gpu.step_result import StepResult
from labelyard_worker.vision.devices import is_out_of_memory
from labelyard_worker.vision.towers import prepare_model

WARM_UPS = 3
LABELYARDS_BATCH = 64
Pass = Callable[[], Any]


def main() -> int:
    """Measure one checkpoint: in both dtypes as it is and as a graph, or compiled in the first."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", required=True)
    parser.add_argument("--checkpoint", choices=CHECKPOINTS, required=True)
    parser.add_argument("--is-compiled", action="store_true")
    options = parser.parse_args()
    form = form_of(options.device)
    result = StepResult()
    if options.is_compiled:
        compiled = Tower(options.checkpoint, form.dtypes[0], form, is_compiled=True)
        size = min(LABELYARDS_BATCH, form.batch_sizes[-1])
        is_measured = try_way(
            "compiled", form.dtypes[0], size, lambda: compiled.pass_of(size), form, result
        )
        return 0 if is_measured else 1
    for dtype in form.dtypes:
        tower = Tower(options.checkpoint, dtype, form)
        measure_eager(tower, dtype, form, result)
        if form.device == "cuda":
            measure_graphs(tower, dtype, form, result)
    return 0


class Tower:
    """The image tower as labelyard prepares it, on random pixels that lie on the device."""

    def __init__(
        self, checkpoint: str, dtype: str, form: Form, *, is_compiled: bool = False
    ) -> None:
        self.device = torch.device(form.device)
        self.dtype: torch.dtype = getattr(torch, dtype)
        self._edge = edge_of(checkpoint, form)
        model = prepare_model(
            random_model(checkpoint, form), self.device, self.dtype, is_compiled=is_compiled
        )
        self._features: Callable[..., Any] = model.get_image_features
        if is_compiled:
            self._features = torch.compile(self._features, dynamic=False)

    def pass_of(self, batch_size: int) -> Pass:
        """Make one forward pass ready."""
        shape = (batch_size, 3, self._edge, self._edge)
        pixels = torch.rand(shape, device=self.device).to(self.dtype)
        pixels = pixels.to(memory_format=torch.channels_last)
        return lambda: self._features(pixel_values=pixels).pooler_output


def measure_eager(tower: Tower, dtype: str, form: Form, result: StepResult) -> None:
    """Try every batch size, until one does not fit."""
    for size in form.batch_sizes:
        if not try_way("eager", dtype, size, partial(tower.pass_of, size), form, result):
            return


def measure_graphs(tower: Tower, dtype: str, form: Form, result: StepResult) -> None:
    """Measure a CUDA graph for a lone image, and for the best batch."""
    for size in sorted({1, best_size(result, dtype)}):
        try_way("graph", dtype, size, partial(graphed, tower, size), form, result)


def graphed(tower: Tower, batch_size: int) -> Pass:
    """Capture one pass, to be launched in one call."""
    run = tower.pass_of(batch_size)
    stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]
    with torch.inference_mode():
        with torch.cuda.stream(stream):
            for _ in range(WARM_UPS):
                run()
        stream.synchronize()
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, stream=stream):
            run()

    def replay(_kept: Pass = run) -> None:  # the graph reads the pixels that it keeps
        graph.replay()

    return replay


def try_way(
    way: str, dtype: str, size: int, make: Callable[[], Pass], form: Form, result: StepResult
) -> bool:
    """Measure one way in one batch size, or print why it cannot run."""
    try:
        seconds = seconds_of(make(), form)
    except Exception as error:  # noqa: BLE001 - the other ways are measured all the same
        if is_out_of_memory(error):
            torch.cuda.empty_cache()
        print(f"  {way} {dtype} batch {size}: {type(error).__name__}: {str(error)[:300]}")
        return False
    ways = result.found.get("ways", [])
    found = {"way": way, "dtype": dtype, "batch_size": size, "seconds": round(seconds, 6)}
    result.add(ways=[*ways, {**found, "images_per_s": round(size / seconds, 1)}])
    print(f"  {way} {dtype} batch {size}: {size / seconds:.1f} images/s", flush=True)
    return True


def seconds_of(run: Pass, form: Form) -> float:
    """Time a pass: the mean over as many as fit into a part of a run."""
    with torch.inference_mode():
        for _ in range(WARM_UPS):
            run()
        wait_for(form)
        started_at = time.perf_counter()
        passes = 0
        while time.perf_counter() - started_at < form.seconds / 6 or passes < WARM_UPS:
            run()
            passes += 1
            if passes % WARM_UPS == 0:
                wait_for(form)  # or launches would run far ahead of the clock
        wait_for(form)
        return (time.perf_counter() - started_at) / passes


def wait_for(form: Form) -> None:
    """Wait until the device has done all its queued work."""
    if form.device == "cuda":
        torch.cuda.synchronize()


def best_size(result: StepResult, dtype: str) -> int:
    """Name the batch size that did the most images in a second."""
    ways = [one for one in result.found["ways"] if one["dtype"] == dtype]
    return int(max(ways, key=lambda one: float(one["images_per_s"]))["batch_size"])


if __name__ == "__main__":
    sys.exit(main())
