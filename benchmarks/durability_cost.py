"""Measure the cost of durability: jobs per second with all of it, and with Celery's defaults."""

from contextlib import ExitStack
from typing import Any, Final

from benchmarks.checkpoints import Checkpoint
from benchmarks.folders import cache_dir
from benchmarks.label_names import labels
from benchmarks.measure import Effort, Say, measure, start_all
from benchmarks.overhead import CACHE_BYTES, TINY_MEGAPIXELS, instant_worker
from benchmarks.pictures import ensure_pictures
from benchmarks.stack import Stack
from benchmarks.systems.labelyard import Labelyard
from benchmarks.systems.system import Case, Engine

# kombu's own transport and acknowledgements, Celery's own pool of threads, and none of the
# guards of broker/, jobs/ and maintenance/.
STOCK: Final = {"atomic_claim": "0", "stock_celery": "1"}


def measure_durability_cost(stack: Stack, effort: Effort, *, say: Say) -> dict[str, Any]:
    """Compare two workers on single-image jobs of known pictures: the queue, and a HEAD of each."""
    case = Case(labels(5), tuple(ensure_pictures(TINY_MEGAPIXELS)))
    stack.upload(case.pictures)
    engine = Engine(Checkpoint("instant", cache_dir()))
    with ExitStack() as exits:
        systems = []
        for name, settings in (("durable", {}), ("stock", STOCK)):
            worker = instant_worker(
                stack, engine, name=name, cache_bytes=CACHE_BYTES, settings=settings
            )
            exits.callback(worker.stop)
            teach = Labelyard(worker, job_size=len(case.pictures), name=f"{name}_teach")
            start_all([teach], case, say=say)
            systems.append(Labelyard(worker, job_size=1, name=name, is_rescoring=True))
        found = measure(systems, case, effort, say=say)
    rates = {name: one.images_per_s for name, one in found.items()}
    return {
        "jobs_per_s": {name: round(rate, 1) for name, rate in rates.items()},
        "durable_to_stock": round(rates["durable"] / rates["stock"], 3) if rates["stock"] else None,
        "systems": {name: one.as_json() for name, one in found.items()},
    }
