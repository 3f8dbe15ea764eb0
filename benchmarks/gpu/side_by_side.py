"""Step: labelyard and the tutorial's Celery task, on one checkpoint in one dtype."""

import argparse
import os
import statistics
import sys
import time
from collections.abc import Sequence
from contextlib import ExitStack
from typing import Any

from benchmarks.gpu.checkpoints import ensure_checkpoint
from benchmarks.gpu.form import CHECKPOINTS, LABELS, MEGAPIXELS, Form, form_of
from benchmarks.gpu.gpu_meter import GpuMeter
from benchmarks.gpu.step_result import StepResult
from benchmarks.label_names import labels
from benchmarks.measure import Effort, measure, start_all, stop_all
from benchmarks.pictures import ensure_pictures
from benchmarks.stack import BUCKET, Stack, isolate, running_stack
from benchmarks.systems.celery_workers import CelerySystem
from benchmarks.systems.labelyard import Labelyard, LabelyardWorker
from benchmarks.systems.limit import Limit
from benchmarks.systems.limit_candidates import Candidate
from benchmarks.systems.system import Case, Engine, System
from labelyard.label_sets import as_label_set

WARM_UP = 3  # images
LONE_WITHIN_S = 90.0


def main() -> int:
    """Start all systems at once, then measure them one after the other."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", required=True)
    parser.add_argument("--checkpoint", choices=CHECKPOINTS, required=True)
    parser.add_argument("--dtype", required=True)
    parser.add_argument("--only-labelyard", action="store_true")
    options = parser.parse_args()
    form = form_of(options.device)
    isolate(os.environ)
    checkpoint = ensure_checkpoint(options.checkpoint, form)
    engine = Engine(checkpoint, device=form.device, dtype=options.dtype)
    result = StepResult()
    with running_stack() as stack, ExitStack() as exits:
        cases = [case_of(stack, megapixels) for megapixels in MEGAPIXELS]
        worker = LabelyardWorker(stack, engine)
        tutorials: list[CelerySystem] = []
        if not options.only_labelyard:
            is_first = options.checkpoint == CHECKPOINTS[0]
            counts = form.tutorials if is_first else form.tutorials[-1:]
            tutorials = [tutorial(stack, engine, count) for count in counts]
        exits.callback(stop_all, [worker, *tutorials])
        result.add(start_to_ready_s=round(worker.start(), 2))
        if tutorials:
            start_all(tutorials, cases[0], say=say)
        ours = [Labelyard(worker, job_size=size) for size in form.job_sizes]
        for case in cases:
            measure_case(case, [*ours, *tutorials], form, result)
        if not options.only_labelyard:
            result.add(lone=measure_lone(stack, engine, worker, cases[-1], form))
    errors = [
        system["errors"] for case in result.found["cases"] for system in case["systems"].values()
    ]
    return 1 if any(errors) else 0


def case_of(stack: Stack, megapixels: float) -> Case:
    """Put the pictures of a size into the bucket."""
    case = Case(labels(LABELS), tuple(ensure_pictures(megapixels, shipped=True)))
    stack.upload(case.pictures)
    return case


def tutorial(stack: Stack, engine: Engine, processes: int) -> CelerySystem:
    """Describe the tutorial's worker."""
    return CelerySystem(
        stack,
        engine,
        title=f"tutorial_{processes}",
        module="tutorial_worker",
        processes=processes,
    )


def measure_case(case: Case, systems: Sequence[System], form: Form, result: StepResult) -> None:
    """Measure every system once, and note it at once."""
    found: dict[str, dict[str, Any]] = {}
    others = result.found.get("cases", [])
    for system in systems:
        with GpuMeter() as meter:
            measured = measure([system], case, Effort(rounds=1, seconds=form.seconds), say=say)
        found[system.name] = measured[system.name].as_json() | meter.found
        for problem in found[system.name].get("problems", []):
            say(f"  {system.name}: {problem}")
        result.add(cases=[*others, {"megapixels": case.megapixels, "systems": found}])


def measure_lone(
    stack: Stack, engine: Engine, worker: LabelyardWorker, case: Case, form: Form
) -> dict[str, Any]:
    """Time single calls, and fetch, decode and forward pass in one process that does nothing else."""
    label_set = as_label_set(case.labels)
    seconds, outside = [], []
    for picture in case.take(form.lone_images + WARM_UP):
        started_at = time.monotonic()
        answer = worker.client.classify(
            [f"s3://{BUCKET}/{picture.key}"], label_set, timeout_s=LONE_WITHIN_S
        )
        seconds.append(time.monotonic() - started_at)
        outside.append(seconds[-1] - answer.timing.intake_s - answer.timing.model_s)
    found = {
        "megapixels": case.megapixels,
        "median_s": round(statistics.median(seconds[WARM_UP:]), 5),
        "median_outside_intake_and_model_s": round(statistics.median(outside[WARM_UP:]), 5),
    }
    bare = Limit(stack, engine, Candidate("overlapped", 1, 1, 1, engine.dtype), title="bare")
    try:
        bare.start()
        alone = bare.lone(
            case, form.lone_images + WARM_UP, dtype=engine.dtype, timeout_s=LONE_WITHIN_S
        )
    finally:
        bare.stop()
    found["bare_median_s"] = round(statistics.median(alone[WARM_UP:]), 5)
    found["overhead_s"] = round(found["median_s"] - found["bare_median_s"], 5)
    return found


def say(line: str) -> None:
    """Print a progress line at once."""
    print(line, flush=True)


if __name__ == "__main__":
    sys.exit(main())
