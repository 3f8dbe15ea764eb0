"""Measure the latency of one picture: alone, and at 70 % load."""

import random
import statistics
import time
from collections.abc import Sequence
from typing import Any

from benchmarks.measure import Say
from benchmarks.stack import BUCKET
from benchmarks.systems.labelyard import LabelyardWorker
from benchmarks.systems.limit import Limit
from benchmarks.systems.system import Case
from labelyard import Client
from labelyard.label_sets import as_label_set

LOAD = 0.7
BLOCKS = 3
WARM_UP = 3  # images, of the process that is compared with
TIMEOUT_S = 120.0


def measure_latency(
    worker: LabelyardWorker,
    limit: Limit,
    case: Case,
    *,
    images_per_s: float,
    seconds: float,
    say: Say,
) -> dict[str, Any]:
    """Measure lone images, then images that come at random.

    Args:
        images_per_s: What the worker can do with single-image jobs.
        seconds: Length of each of the two parts, about.
    """
    lone = measure_lone(worker.client, limit, case, images=max(10, int(seconds * 3)))
    say(f"  a lone image: {1000 * lone['median_overhead_s']:.1f} ms over fetch, decode and forward")
    loaded = measure_loaded(worker.client, case, rate=LOAD * images_per_s, seconds=seconds)
    say(f"  at {LOAD:.0%} load: p99 is {loaded['p99_to_median']:.1f} times the median")
    return {"lone": lone, "loaded": loaded}


def measure_lone(client: Client, limit: Limit, case: Case, *, images: int) -> dict[str, Any]:
    """Compare single calls with fetch, decode and forward pass in one process, in turns."""
    label_set = as_label_set(case.labels)
    ours: list[float] = []
    bare: list[float] = []
    inside: list[float] = []
    dtype = "float32"
    for _ in range(BLOCKS):
        for picture in case.take(images // BLOCKS):
            started_at = time.monotonic()
            result = client.classify([f"s3://{BUCKET}/{picture.key}"], label_set, timeout_s=60)
            seconds = time.monotonic() - started_at
            if result.status != "succeeded" or result.model is None:
                raise RuntimeError(f"a lone image failed: {result.images[0].error}")
            dtype = result.model.dtype
            ours.append(seconds)
            inside.append(seconds - result.timing.intake_s - result.timing.model_s)
        several = images // BLOCKS + WARM_UP
        bare += limit.lone(case, several, dtype=dtype, timeout_s=TIMEOUT_S)[WARM_UP:]
    return {
        "images": len(ours),
        "median_s": round(statistics.median(ours), 5),
        "bare_median_s": round(statistics.median(bare), 5),
        "median_overhead_s": round(statistics.median(ours) - statistics.median(bare), 5),
        "median_outside_intake_and_model_s": round(statistics.median(inside), 5),
    }


def measure_loaded(client: Client, case: Case, *, rate: float, seconds: float) -> dict[str, Any]:
    """Submit single-image jobs at random times, and read how long each took from its record."""
    numbers = random.Random(0)
    label_set = as_label_set(case.labels)
    handles = []
    due = started_at = time.monotonic()
    for picture in case.take(max(10, int(rate * seconds))):
        due += numbers.expovariate(rate)
        time.sleep(max(0.0, due - time.monotonic()))
        handles.append(client.submit([f"s3://{BUCKET}/{picture.key}"], label_set))
    took_s = time.monotonic() - started_at
    records = client.wait(handles, timeout_s=TIMEOUT_S)
    latencies = sorted(
        record.finished_at - record.submitted_at
        for record in records
        if record.state == "succeeded" and record.finished_at is not None
    )
    if len(latencies) < len(records):
        raise RuntimeError(f"{len(records) - len(latencies)} of {len(records)} jobs failed")
    median, p99 = quantile(latencies, 0.5), quantile(latencies, 0.99)
    return {
        "offered_images_per_s": round(len(handles) / took_s, 1),
        "images": len(latencies),
        "median_s": round(median, 5),
        "p99_s": round(p99, 5),
        "p99_to_median": round(p99 / median, 2),
    }


def quantile(ascending: Sequence[float], part: float) -> float:
    """Return the value that *part* of the values do not exceed."""
    return ascending[min(len(ascending) - 1, int(part * len(ascending)))]
