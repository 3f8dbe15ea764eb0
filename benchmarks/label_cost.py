"""What many labels cost: for each image once the set is known, and for the next worker."""

import time
from typing import Any

from benchmarks.label_names import labels
from benchmarks.measure import Effort, Say, measure
from benchmarks.stack import Stack
from benchmarks.systems.labelyard import Labelyard, LabelyardWorker
from benchmarks.systems.system import Case, Engine
from labelyard.label_sets import as_label_set

FEW = 10
JOB_SIZE = 16
ENCODE_WITHIN_S = 300.0


def measure_label_cost(
    stack: Stack, engine: Engine, pictures: Case, effort: Effort, *, many: int, say: Say
) -> dict[str, Any]:
    """Compare *many* labels with few, and a second worker with the first that met the set."""
    settings = {"inference_timeout_s": str(ENCODE_WITHIN_S), "job_timeout_s": "600"}
    sets = {count: Case(labels(count), pictures.pictures) for count in (FEW, many)}
    worker = LabelyardWorker(stack, engine, title="labels-first", settings=settings)
    try:
        worker.start()
        references = {
            count: worker.client.label_sets.register(f"set{count}", as_label_set(case.labels))
            for count, case in sets.items()
        }
        systems = {
            count: Labelyard(worker, job_size=JOB_SIZE, label_set=reference, name=f"labels_{count}")
            for count, reference in references.items()
        }
        systems[FEW].run(sets[FEW], JOB_SIZE, timeout_s=ENCODE_WITHIN_S)
        first_s = _one_job_s(systems[many], sets[many])
        say(f"  {many} labels met for the first time: {first_s:.2f} s")
        found = {count: measure([systems[count]], sets[count], effort, say=say) for count in sets}
    finally:
        worker.stop()
    second = LabelyardWorker(stack, engine, title="labels-second", settings=settings)
    try:
        second.start()
        few = Labelyard(second, job_size=JOB_SIZE, label_set=references[FEW])
        few.run(sets[FEW], JOB_SIZE, timeout_s=ENCODE_WITHIN_S)
        again = Labelyard(second, job_size=JOB_SIZE, label_set=references[many])
        second_s = _one_job_s(again, sets[many])
    finally:
        second.stop()
    say(f"  and by a second worker: {second_s:.2f} s")
    rates = {count: next(iter(one.values())).images_per_s for count, one in found.items()}
    return {
        "few": FEW,
        "many": many,
        "images_per_s": {str(count): round(rate, 2) for count, rate in rates.items()},
        "cost_many_to_few": round(rates[FEW] / rates[many], 3) if rates[many] else None,
        "first_worker_first_job_s": round(first_s, 3),
        "second_worker_first_job_s": round(second_s, 3),
    }


def _one_job_s(system: Labelyard, case: Case) -> float:
    started_at = time.monotonic()
    outcome = system.run(case, JOB_SIZE, timeout_s=ENCODE_WITHIN_S)
    if outcome.errors:
        raise RuntimeError(f"{outcome.errors} images failed: {outcome.problems}")
    return time.monotonic() - started_at
