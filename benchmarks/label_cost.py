"""Measure the cost of many labels: per image once the set is known, and for the next worker."""

import time
from contextlib import ExitStack
from typing import Any

from benchmarks.label_names import labels
from benchmarks.measure import Effort, Say, measure, start_all
from benchmarks.stack import Stack
from benchmarks.systems.labelyard import Labelyard, LabelyardWorker
from benchmarks.systems.system import Case, Engine, Outcome
from labelyard.label_sets import as_label_set

FEW = 10
JOB_SIZE = 16
ENCODE_WITHIN_S = 300.0


class WithLabels(Labelyard):
    """Jobs of one registered label set, so that two sets can take turns."""

    def __init__(self, worker: LabelyardWorker, reference: str, case: Case) -> None:
        name = f"labels_{len(case.labels)}"
        super().__init__(worker, job_size=JOB_SIZE, label_set=reference, name=name)
        self.own_case = case

    def run(self, case: Case, images: int, *, timeout_s: float) -> Outcome:
        del case
        return super().run(self.own_case, images, timeout_s=timeout_s)


def measure_label_cost(
    stack: Stack, engine: Engine, pictures: Case, effort: Effort, *, many: int, say: Say
) -> dict[str, Any]:
    """Compare *many* labels with few, and a second worker with the first that met the set."""
    sets = [Case(labels(count), pictures.pictures) for count in (FEW, many)]
    with ExitStack() as exits:
        first, second = (_worker(stack, engine, name, exits) for name in ("first", "second"))
        references = [
            first.client.label_sets.register(f"set{number}", as_label_set(case.labels))
            for number, case in enumerate(sets)
        ]
        few, known = (WithLabels(first, *each) for each in zip(references, sets, strict=True))
        again = [WithLabels(second, *each) for each in zip(references, sets, strict=True)]
        start_all([few], pictures, say=say)
        first_s = _one_job_s(known)
        say(f"  {many} labels met for the first time: {first_s:.2f} s")
        found = measure([few, known], pictures, effort, say=say)
        first.process.stop()  # or it would take the other's jobs
        start_all(again[:1], pictures, say=say)
        second_s = _one_job_s(again[1])
    say(f"  and by a second worker: {second_s:.2f} s")
    rates = {name: one.images_per_s for name, one in found.items()}
    return {
        "few": FEW,
        "many": many,
        "images_per_s": {name: round(rate, 2) for name, rate in rates.items()},
        "cost_many_to_few": _ratio(rates[few.name], rates[known.name]),
        "first_worker_first_job_s": round(first_s, 3),
        "second_worker_first_job_s": round(second_s, 3),
    }


def _worker(stack: Stack, engine: Engine, name: str, exits: ExitStack) -> LabelyardWorker:
    settings = {"inference_timeout_s": str(ENCODE_WITHIN_S), "job_timeout_s": "600"}
    worker = LabelyardWorker(stack, engine, title=f"labels-{name}", settings=settings)
    exits.callback(worker.stop)
    return worker


def _ratio(few: float, many: float) -> float | None:
    return round(few / many, 3) if many else None


def _one_job_s(system: WithLabels) -> float:
    started_at = time.monotonic()
    outcome = system.run(system.own_case, JOB_SIZE, timeout_s=ENCODE_WITHIN_S)
    if outcome.errors:
        raise RuntimeError(f"{outcome.errors} images failed: {outcome.problems}")
    return time.monotonic() - started_at
