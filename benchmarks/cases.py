"""Run the cases of each engine on systems that are started once."""

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

from benchmarks.clock import Clock
from benchmarks.label_names import labels
from benchmarks.latency import measure_latency
from benchmarks.machine import usable_cores
from benchmarks.measure import (
    FIRST_RUN_WITHIN_S,
    Effort,
    Measured,
    Say,
    agreement,
    measure,
    start_all,
    stop_all,
    warm_up,
)
from benchmarks.pictures import ensure_pictures
from benchmarks.plans import CasePlan, EnginePlan, Plan
from benchmarks.stack import Stack
from benchmarks.systems.batches_environment import ensure_environment
from benchmarks.systems.celery_workers import CelerySystem
from benchmarks.systems.labelyard import Labelyard, LabelyardWorker, exact_settings
from benchmarks.systems.limit import Limit
from benchmarks.systems.limit_candidates import Candidate, candidates
from benchmarks.systems.system import Case, Engine, System

CASE_S = 30.0
TRIAL = Effort(rounds=1, seconds=3.0)
ANSWERS_WITHIN_S = 300.0
# Random weights put pictures nearer to each other than trained ones do.
SAME_AS_FLOAT32 = 0.85


@dataclass
class Field:
    """The systems of one engine that stand side by side."""

    worker: LabelyardWorker
    tutorials: list[CelerySystem]
    batches: CelerySystem | None
    limit: Limit

    def systems(self, plan: CasePlan) -> list[System]:
        """List the systems that a case measures."""
        systems: list[System] = [Labelyard(self.worker, job_size=n) for n in plan.job_sizes]
        systems += self.tutorials
        if self.batches is not None and plan.has_batches:
            systems.append(self.batches)
        return [*systems, self.limit] if plan.has_limit else systems

    def stop(self) -> None:
        """Stop all systems at the same time."""
        batches = [self.batches] if self.batches else []
        stop_all([self.worker, self.limit, *self.tutorials, *batches])


def case_of(stack: Stack, plan: CasePlan) -> Case:
    """Make the pictures of a case and put them into the bucket."""
    case = Case(labels(plan.labels), tuple(ensure_pictures(plan.megapixels)))
    stack.upload(case.pictures)
    return case


class EngineRun:
    """Measures all cases of one engine.

    Attributes:
        cases: What came out, as ``latest.json`` has it.
        latency: The latency section, if it was asked for.
    """

    def __init__(self, stack: Stack, engine: Engine, plan: Plan, clock: Clock, *, say: Say) -> None:
        self.cases: list[dict[str, Any]] = []
        self.latency: dict[str, Any] | None = None
        self._stack = stack
        self._engine = engine
        self._plan = plan
        self._clock = clock
        self._say = say

    def run(self, engine_plan: EnginePlan, *, with_latency: bool) -> None:
        """Measure every case; the first one also chooses the best of the candidates."""
        with ExitStack() as exits:
            field = self._set_up(case_of(self._stack, engine_plan.cases[0]), exits)
            for number, case_plan in enumerate(engine_plan.cases):
                if number and not self._clock.has(
                    CASE_S, for_what=f"{self._engine.title}, {case_plan}"
                ):
                    return
                found = self._run_case(field, case_plan)
                if with_latency and number == 0 and self._clock.has(20, for_what="latency"):
                    self._measure_latency(field, case_of(self._stack, case_plan), found)

    def _set_up(self, case: Case, exits: ExitStack) -> Field:
        """Start all systems at once, and choose the best of those that have variants."""
        cores, is_quick = usable_cores(), self._plan.is_quick
        stack, engine = self._stack, self._engine
        counts = [cores] if is_quick or engine.device == "cuda" else sorted({1, cores})
        tutorials = [
            CelerySystem(
                stack, engine, title=f"tutorial_{count}", module="tutorial_worker", processes=count
            )
            for count in counts
        ]
        ways = candidates(engine, is_quick=is_quick)
        limit = Limit(stack, engine, ways[0])
        field = Field(LabelyardWorker(stack, engine), tutorials, None, limit)
        exits.callback(field.stop)
        field.batches = self._batches(case, is_quick=is_quick)
        others = [*tutorials, *([field.batches] if field.batches else []), limit]
        start_all([Labelyard(field.worker, job_size=16), *others], case, say=self._say)
        if len(ways) > 1:
            self._choose_limit(limit, ways, case)
        return field

    def _batches(self, case: Case, *, is_quick: bool) -> CelerySystem | None:
        """Start celery-batches with its best batch size and number of processes."""
        try:
            python = ensure_environment()
        except RuntimeError as error:
            self._say(f"  celery_batches is left out: {error}")
            return None
        cores = usable_cores()
        variants = [(1, 16)] if is_quick else [(1, 16), (1, 32), (cores, 8), (cores, 16)]
        systems = [
            CelerySystem(
                self._stack,
                self._engine,
                title=f"celery_batches_{processes}x{size}",
                module="batches_worker",
                processes=processes,
                batch_size=size,
                python=python,
            )
            for processes, size in dict.fromkeys(variants)
        ]
        return systems[0] if len(systems) == 1 else self._fastest(systems, case)

    def _fastest(self, systems: Sequence[CelerySystem], case: Case) -> CelerySystem:
        """Try one after the other, and start the best again."""
        rates = {}
        for system in systems:
            found = measure([system], case, TRIAL, say=self._say)
            rates[system.name] = found[system.name].images_per_s
            system.stop()
        return max(systems, key=lambda system: rates[system.name])

    def _choose_limit(self, limit: Limit, ways: Sequence[Candidate], case: Case) -> None:
        """Try every hand-written way for a moment, and keep the fastest whose answers are right.

        Raises:
            RuntimeError: None of them works.
        """
        exact = self._exact(limit, case)
        rates: dict[Candidate, float] = {}
        for way in ways:
            limit.candidate = way
            try:
                share = warm_up(limit, case, seconds=1.5 if self._plan.is_quick else TRIAL.seconds)
                outcome = limit.run(case, share.images, timeout_s=FIRST_RUN_WITHIN_S)
            except RuntimeError as error:
                self._say(f"  limit: {way}: {error}")
                continue
            same, rate = agreement(outcome.top, exact) or 0.0, outcome.images / outcome.seconds
            self._say(f"  limit: {way}: {rate:.1f} images/s, {same:.0%} as in float32")
            if same >= SAME_AS_FLOAT32:
                rates[way] = rate
        if not rates:
            raise RuntimeError("no hand-written loop gives right answers")
        limit.candidate = max(rates, key=lambda way: rates[way])

    def _run_case(self, field: Field, plan: CasePlan) -> dict[str, Measured]:
        self._say(f"{self._engine.title}, {plan.labels} labels, {plan.megapixels:g} megapixels")
        case = case_of(self._stack, plan)
        found = measure(field.systems(plan), case, self._plan.effort, say=self._say)
        answers = self._answers(field, case, found)
        self.cases.append(
            {
                "checkpoint": self._engine.checkpoint.name,
                "device": self._engine.device,
                "dtype": self._engine.dtype,
                "compile": self._engine.is_compiled,
                "labels": plan.labels,
                "megapixels": plan.megapixels,
                "systems": {name: one.as_json() for name, one in found.items()},
                "limit_way": str(field.limit.candidate),
                "ratios": ratios(found),
                "answers_like_float32": answers,
            }
        )
        return found

    def _answers(
        self, field: Field, case: Case, found: dict[str, Measured]
    ) -> dict[str, float | None]:
        """Compare best labels with exact float32, outside of every queue."""
        exact = self._exact(field.limit, case)
        return {name: agreement(one.top, exact) for name, one in found.items()}

    def _exact(self, limit: Limit, case: Case) -> dict[str, str]:
        images = 16 if self._plan.is_quick else len(case.pictures)
        return limit.best_labels(case, images, timeout_s=ANSWERS_WITHIN_S)

    def _measure_latency(self, field: Field, case: Case, found: dict[str, Measured]) -> None:
        single = found.get("labelyard_1")
        if single is not None and single.images_per_s:
            self.latency = measure_latency(
                field.worker,
                field.limit,
                case,
                images_per_s=single.images_per_s,
                seconds=self._plan.latency_s,
                say=self._say,
            )


def ratios(found: dict[str, Measured]) -> dict[str, float | None]:
    """Compare labelyard with the best of each kind of system.

    ``vs_…`` takes the best of the job sizes from 16 up, ``…_jobs_of_1`` single images.
    """

    def best(prefix: str) -> float:
        rates = [one.images_per_s for name, one in found.items() if name.startswith(prefix)]
        return max(rates, default=0.0)

    ours = max(best("labelyard_16"), best("labelyard_64"))
    single = found["labelyard_1"].images_per_s if "labelyard_1" in found else 0.0
    result: dict[str, float | None] = {}
    for prefix in ("tutorial", "celery_batches", "limit"):
        theirs = best(prefix)
        result[f"vs_{prefix}"] = round(ours / theirs, 3) if theirs and ours else None
        if single:
            result[f"vs_{prefix}_jobs_of_1"] = round(single / theirs, 3) if theirs else None
    return result


def check_exact_answers(stack: Stack, engine: Engine, case: Case) -> dict[str, Any]:
    """Compare a labelyard worker in float32 with exact decoding with the bare model."""
    worker = LabelyardWorker(stack, engine, title="exact", settings=exact_settings())
    limit = Limit(stack, engine, candidates(engine, is_quick=True)[0], title="exact-limit")
    try:
        worker.start()
        limit.start()
        images = len(case.pictures)
        ours = Labelyard(worker, job_size=16).run(case, images, timeout_s=ANSWERS_WITHIN_S)
        exact = limit.best_labels(case, images, timeout_s=ANSWERS_WITHIN_S)
    finally:
        worker.stop()
        limit.stop()
    return {
        "images": images,
        "errors": ours.errors,
        "same_best_label": agreement(ours.top, exact),
        "different_labels_seen": len(set(exact.values())),
    }
