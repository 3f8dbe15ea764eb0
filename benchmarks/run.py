"""Run a plan: every engine's cases, then the sections, each in its turn on the same servers."""

import time
from collections.abc import Callable
from typing import Any

from benchmarks import machine, pictures
from benchmarks.cases import EngineRun, case_of, check_exact_answers
from benchmarks.checkpoints import CLIP, ensure_checkpoint
from benchmarks.clock import Clock
from benchmarks.durability_cost import measure_durability_cost
from benchmarks.label_cost import measure_label_cost
from benchmarks.measure import Say
from benchmarks.overhead import measure_overhead
from benchmarks.plans import EnginePlan, Plan
from benchmarks.reuse import measure_reuse
from benchmarks.scaling import measure_workers, scaling_of
from benchmarks.soak import measure_soak
from benchmarks.stack import Stack, running_stack
from benchmarks.systems.system import Engine

# Seconds below which a section is not begun.
SECTION_S = {
    "overhead": 20.0,
    "durability": 20.0,
    "reuse": 25.0,
    "soak": 30.0,
    "labels": 38.0,
    "workers": 60.0,
    "answers": 30.0,
}


def run_plan(plan: Plan, *, say: Say) -> dict[str, Any]:
    """Measure all that *plan* names, and return the content of ``latest.json``.

    Whoever ends it early, by Ctrl-C or SIGTERM, gets what is there; ``is_whole`` is false then.
    """
    clock = Clock(plan.limit_s, say=say)
    results: dict[str, Any] = {
        "measured_at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "plan": plan.name,
        "is_whole": True,
        "effort": {"rounds": plan.effort.rounds, "seconds": plan.effort.seconds},
        "machine": machine.describe(),
        "load_before": round(machine.load_before(), 2),
        "pictures": {},
        "cases": [],
        "latency": None,
        **dict.fromkeys(SECTION_S),
    }
    try:
        with running_stack() as stack:
            _run_engines(stack, plan, clock, results, say=say)
            _run_sections(stack, plan, clock, results, say=say)
    except (KeyboardInterrupt, SystemExit):
        say("ended early")
        results["is_whole"] = False
    results["scaling"] = scaling_of(results["cases"]) | {"workers": results.pop("workers")}
    results["left_out"] = clock.left_out
    results["took_s"] = round(clock.elapsed_s, 1)
    return results


def _run_engines(
    stack: Stack, plan: Plan, clock: Clock, results: dict[str, Any], *, say: Say
) -> None:
    """Measure every engine's cases, and the latency with the first one."""
    for engine_plan in plan.engines:
        for engine in engines(engine_plan):
            run = EngineRun(stack, engine, plan, clock, say=say)
            wants_latency = "latency" in plan.sections and results["latency"] is None
            try:
                run.run(engine_plan, with_latency=wants_latency)
            finally:
                results["cases"] += run.cases
                results["latency"] = results["latency"] or run.latency
        for case in engine_plan.cases:
            made = pictures.ensure_pictures(case.megapixels)
            results["pictures"][f"{case.megapixels:g}"] = pictures.describe(made)


def engines(plan: EnginePlan) -> list[Engine]:
    """List the engines of a plan; GPUs add their own."""
    checkpoint = ensure_checkpoint(plan.checkpoint)
    found = [Engine(checkpoint)]
    if machine.cuda_devices():
        found += [
            Engine(checkpoint, device="cuda", dtype=dtype) for dtype in ("float16", "bfloat16")
        ]
        if plan.checkpoint == CLIP:
            found.append(Engine(checkpoint, device="cuda", dtype="bfloat16", is_compiled=True))
    return found


def _run_sections(
    stack: Stack, plan: Plan, clock: Clock, results: dict[str, Any], *, say: Say
) -> None:
    engine = Engine(ensure_checkpoint(plan.section_checkpoint))
    case = case_of(stack, plan.engines[0].cases[0])
    effort = plan.section_effort
    sections: dict[str, Callable[[], Any]] = {
        "overhead": lambda: measure_overhead(stack, effort, say=say),
        "durability": lambda: measure_durability_cost(stack, effort, say=say),
        "reuse": lambda: measure_reuse(stack, engine, case, images=plan.reuse_images, say=say),
        "soak": lambda: measure_soak(stack, images=plan.soak_images, say=say),
        "labels": lambda: measure_label_cost(
            stack, engine, case, effort, many=plan.many_labels, say=say
        ),
        "workers": lambda: measure_workers(stack, engine, case, effort, say=say),
        "answers": lambda: check_exact_answers(stack, engine, case),
    }
    for name, run in sections.items():
        if name in plan.sections and clock.has(SECTION_S[name], for_what=name):
            say(name)
            try:
                results[name] = run()
            except Exception as error:  # noqa: BLE001 - the other sections must be measured
                results[name] = {"failed": f"{type(error).__name__}: {error}"}
                say(f"  failed: {error}")
