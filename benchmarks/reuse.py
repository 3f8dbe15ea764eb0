"""Measure the cost of a known picture: submitted again unchanged, or only scored anew."""

import math
from typing import Any

from benchmarks.label_names import labels
from benchmarks.measure import OWN_STAGES, Say
from benchmarks.pictures import Picture
from benchmarks.processes import Meter
from benchmarks.stack import Stack
from benchmarks.systems.labelyard import Labelyard, LabelyardWorker
from benchmarks.systems.system import Case, Engine, Outcome

JOB_SIZE = 64
TIMEOUT_S = 300.0
REPEATS = 5
CACHE_BYTES = 64 * 1024 * 1024


def measure_reuse(
    stack: Stack, engine: Engine, case: Case, *, images: int, say: Say
) -> dict[str, Any]:
    """Classify *images* different pictures, then the same again, then score them anew."""
    many = Case(case.labels, _different(stack, case, images))
    other = Case(labels(40)[20:], many.pictures)
    worker = LabelyardWorker(
        stack, engine, title="reuse", settings={"image_cache_bytes": str(CACHE_BYTES)}
    )
    try:
        worker.start()
        classify = Labelyard(worker, job_size=JOB_SIZE)
        rescore = Labelyard(worker, job_size=JOB_SIZE, is_rescoring=True)
        classify.run(case, JOB_SIZE, timeout_s=TIMEOUT_S)  # warms the model and the labels
        rescore.run(Case(other.labels, case.pictures), JOB_SIZE, timeout_s=TIMEOUT_S)
        found = {
            "first": _cost(classify, many, images),
            "unchanged": _cost(classify, many, REPEATS * images),
            "rescored": _cost(rescore, other, REPEATS * images),
        }
    finally:
        worker.stop()
    first = found["first"]
    parts = {
        name: {
            "time_to_first": round(one["s_per_image"] / first["s_per_image"], 4),
            "cpu_to_first": round(one["cpu_s_per_image"] / first["cpu_s_per_image"], 4),
        }
        for name, one in found.items()
        if name != "first"
    }
    faster = first["s_per_image"] / found["rescored"]["s_per_image"]
    say(
        f"  unchanged pictures cost {parts['unchanged']['time_to_first']:.1%} of the first time; "
        f"re-scoring is {faster:.0f} times as fast as classifying"
    )
    return {"images": images, **found, "ratios": {**parts, "rescoring_speedup": round(faster, 1)}}


def _different(stack: Stack, case: Case, count: int) -> tuple[Picture, ...]:
    """Upload *count* pictures of different contents: bytes after a JPEG's end change no pixel."""
    copies = []
    for number in range(math.ceil(count / len(case.pictures))):
        for picture in case.pictures:
            copy = Picture(picture.path, picture.megapixels, copy=number + 1)
            stack.put(copy.key, picture.path.read_bytes() + number.to_bytes(4))
            copies.append(copy)
    return tuple(copies[:count])


def _cost(system: Labelyard, case: Case, images: int) -> dict[str, float]:
    with Meter(system.stages, measured=OWN_STAGES) as meter:
        outcome: Outcome = system.run(case, images, timeout_s=TIMEOUT_S)
    if outcome.errors:
        raise RuntimeError(f"{outcome.errors} images failed: {outcome.problems}")
    return {
        "s_per_image": round(outcome.seconds / outcome.images, 6),
        "cpu_s_per_image": round(sum(meter.cpu_s.values()) / outcome.images, 6),
    }
