"""Measure throughput by number of labels, pixels, job size and workers."""

from collections.abc import Sequence
from typing import Any

from benchmarks.machine import usable_cores
from benchmarks.measure import Effort, Say, measure
from benchmarks.stack import Stack
from benchmarks.systems.labelyard import Labelyard, LabelyardWorker
from benchmarks.systems.system import Case, Engine, Outcome, System

JOB_SIZE = 16


def scaling_of(cases: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Sort labelyard's figures by what they depend on; the first checkpoint alone, on the CPU."""
    chosen = [
        case
        for case in cases
        if case["checkpoint"] == cases[0]["checkpoint"] and case["device"] == cases[0]["device"]
    ]
    labels = {str(case["labels"]): _rate(case) for case in chosen if case["megapixels"] == 2.0}
    pixels = {f"{case['megapixels']:g}": _rate(case) for case in chosen if case["labels"] == 20}
    sizes = {
        name.removeprefix("labelyard_"): system["images_per_s"]
        for case in chosen[:1]
        for name, system in case["systems"].items()
        if name.startswith("labelyard_")
    }
    return {"labels": labels, "megapixels": pixels, "job_size": sizes}


def _rate(case: dict[str, Any]) -> float:
    rate: float = case["systems"][f"labelyard_{JOB_SIZE}"]["images_per_s"]
    return rate


class Several(System):
    """Several workers on one queue."""

    unit = JOB_SIZE

    def __init__(self, workers: Sequence[LabelyardWorker], *, name: str) -> None:
        self.name = name
        self._workers = workers
        self._one = Labelyard(workers[0], job_size=JOB_SIZE)

    def start(self) -> None:
        for worker in self._workers:
            worker.start()

    def stop(self) -> None:
        for worker in self._workers:
            worker.stop()

    def run(self, case: Case, images: int, *, timeout_s: float) -> Outcome:
        return self._one.run(case, images, timeout_s=timeout_s)

    def stages(self) -> dict[str, list[int]]:
        every = [worker.stages() for worker in self._workers]
        own = {name: [pid for one in every for pid in one[name]] for name in ("worker", "children")}
        shared = {name: list(every[0][name]) for name in ("storage", "valkey", "driver")}
        return own | shared


def measure_workers(
    stack: Stack, engine: Engine, case: Case, effort: Effort, *, say: Say
) -> dict[str, float]:
    """Measure one worker with all cores, and workers that share the cores among them."""
    found: dict[str, float] = {}
    for count in sorted({1, 2, usable_cores() // 2} - {0}):
        threads = max(1, usable_cores() // count)
        settings = {"model_threads": str(threads), "model_streams": "1"} if count > 1 else {}
        workers = [
            LabelyardWorker(stack, engine, title=f"workers-{count}-{number}", settings=settings)
            for number in range(count)
        ]
        system = Several(workers, name=f"workers_{count}")
        try:
            measured = measure([system], case, effort, say=say)
        finally:
            system.stop()
        found[str(count)] = round(measured[system.name].images_per_s, 2)
    return found
