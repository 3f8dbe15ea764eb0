"""Measure the cost of the queue: an instant model, beside a Celery task that does nothing.

Pictures that are new are fetched and decoded, unchanged ones asked for with If-None-Match;
recalled ones are known, so that nothing is left but the queue, the ledger and the scoring.
"""

import sys
from collections.abc import Mapping
from contextlib import ExitStack
from typing import Any

from benchmarks.checkpoints import Checkpoint
from benchmarks.folders import cache_dir
from benchmarks.label_names import labels
from benchmarks.measure import Effort, Say, Stoppable, measure, start_all, stop_all
from benchmarks.pictures import ensure_pictures
from benchmarks.stack import Stack
from benchmarks.systems.celery_workers import CelerySystem
from benchmarks.systems.labelyard import Labelyard, LabelyardWorker
from benchmarks.systems.system import Case, Engine, System
from labelyard_worker.cli import CELERY_FLAGS

TINY_MEGAPIXELS = 0.02
CACHE_BYTES = 64 * 1024 * 1024
JOB_SIZES = (1, 64)
APP = "benchmarks.systems.instant_worker"


def measure_overhead(stack: Stack, effort: Effort, *, say: Say) -> dict[str, Any]:
    """Measure jobs and images per second, and their ratios to no-op tasks."""
    case = Case(labels(5), tuple(ensure_pictures(TINY_MEGAPIXELS)))
    stack.upload(case.pictures)
    engine = Engine(Checkpoint("instant", cache_dir()))
    with ExitStack() as exits:
        noop = CelerySystem(
            stack, engine, title="noop", module="noop_worker", pool="threads", processes=16
        )
        workers: list[Stoppable] = [noop]
        exits.callback(stop_all, workers)
        systems: list[System] = [noop]
        for name, cache_bytes in (("new", 0), ("unchanged", CACHE_BYTES)):
            worker = instant_worker(stack, engine, name=name, cache_bytes=cache_bytes)
            workers.append(worker)
            systems += [
                Labelyard(worker, job_size=size, name=f"{name}_{size}") for size in JOB_SIZES
            ]
        systems += [  # by the worker that knows them, once it has run the unchanged ones
            Labelyard(worker, job_size=size, name=f"recalled_{size}", is_rescoring=True)
            for size in JOB_SIZES
        ]
        start_all([noop, systems[1], systems[3]], case, say=say)
        found = measure(systems, case, effort, say=say)
    rates = {name: round(one.images_per_s, 1) for name, one in found.items()}
    tasks_per_s = rates.pop("noop")
    return {
        "noop_tasks_per_s": tasks_per_s,
        "images_per_s": rates,
        "ratios_to_noop": {
            name: round(rate / tasks_per_s, 3) if tasks_per_s else None
            for name, rate in rates.items()
        },
        "systems": {name: one.as_json() for name, one in found.items()},
    }


def instant_worker(
    stack: Stack,
    engine: Engine,
    *,
    name: str,
    cache_bytes: int,
    settings: Mapping[str, str] | None = None,
) -> LabelyardWorker:
    """Describe a worker with an instant model, on queues of its own."""
    return LabelyardWorker(
        stack,
        engine,
        title=f"instant-{name}",
        command=(sys.executable, "-m", "celery", "-A", APP, "worker", *CELERY_FLAGS),
        settings={"namespace": name, "image_cache_bytes": str(cache_bytes), **(settings or {})},
    )
