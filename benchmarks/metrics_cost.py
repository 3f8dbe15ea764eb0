"""Measure the CPU time of metrics: the observations of a job, and a scrape.

    python -m benchmarks.metrics_cost --jobs 20000 --tenants 100

The observations are those of a job of one image that is fetched, decoded, embedded in a batch of
its own, scored and delivered: more than a usual image has, which shares its batch. The scrape is of
a worker that leads, has seen as many tenants as the limit allows, and whose every tenant has had
five outcomes of images. All figures are CPU time of one thread, the least or the median of some
rounds.
"""

import argparse
import json
import statistics
import time
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

from labelyard.queues import Priority
from labelyard_worker import metrics, observations
from labelyard_worker.metrics import FLEET_GAUGES, WORKER_GAUGES
from labelyard_worker.operations.exposition import Exposition

# CPU that a job of one small picture costs a worker of one core: docs/performance.md.
JOB_CPU_S = 0.005
OUTCOMES = ("succeeded", "image_not_found", "image_undecodable", "image_too_large")
ROUNDS = 5
SCRAPES = 30


def observe_job(tenant: str) -> None:
    """Observe all that one job of one image is observed for."""
    priority = Priority.INTERACTIVE
    observations.observe_stage("queued", 0.01, priority)
    metrics.LABEL_SETS.labels("hit").inc()
    observations.observe_stage("fetch", 0.004, priority)
    observations.observe_stage("decode", 0.002, priority)
    observations.IMAGE_CACHE_RESULTS["miss"].inc()
    observations.observe_stage("batch_wait", 0.001, priority)
    observations.observe_stage("model", 0.02, priority)
    observations.observe_batch("image", 1, 0.02, max_size=32)
    observations.observe_stage("score", 0.0002, priority)
    metrics.ATTEMPTS.labels("finish", "").inc()
    observations.count_job(tenant, "succeeded", ["succeeded"])
    metrics.DELIVERIES.labels("object", "delivered").inc()
    metrics.DELIVERY_SECONDS.labels("object").observe(0.01)


def exposition(tenants: int) -> Exposition:
    """Return the page of a leading worker with gauges of as many series as it can have."""

    def collect() -> list[Any]:
        queues = ("interactive", "bulk", "quarantine")
        backlog: dict[tuple[str, ...], float]
        backlog = {(f"tenant-{n}", queue): 1.0 for n in range(tenants) for queue in queues}
        return [
            gauge.family(backlog if gauge.labels == ("tenant", "queue") else one_value(gauge))
            for gauge in (*WORKER_GAUGES, *FLEET_GAUGES)
        ]

    return Exposition([SimpleNamespace(collect=collect)])


def one_value(gauge: metrics.ScrapedGauge) -> dict[tuple[str, ...], float]:
    """Return a value for one combination of a gauge's labels."""
    return {("x",) * len(gauge.labels): 1.0}


def cpu_s(call: Callable[[], object]) -> float:
    """Return the CPU seconds of this thread in a call."""
    started = time.thread_time()
    call()
    return time.thread_time() - started


def main() -> None:
    """Measure, and print the figures as JSON."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--jobs", type=int, default=20_000)
    parser.add_argument("--tenants", type=int, default=100)
    options = parser.parse_args()
    observations.TENANTS.limit = options.tenants
    for number in range(options.tenants):
        observations.count_job(f"tenant-{number}", "partial", OUTCOMES)

    def observe_all() -> None:
        for number in range(options.jobs):
            observe_job(f"tenant-{number % options.tenants}")

    observe_all()
    job_s = min(cpu_s(observe_all) for _ in range(ROUNDS)) / options.jobs
    page = exposition(options.tenants).page
    scrape_s = statistics.median(cpu_s(lambda: page("text/plain")) for _ in range(SCRAPES))
    figures = {
        "observations_of_a_job_us": round(job_s * 1e6, 1),
        "share_of_5_ms_of_cpu": round(job_s / JOB_CPU_S, 5),
        "scrape_ms": round(scrape_s * 1e3, 1),
        "scrape_bytes": len(page("text/plain")[1]),
        "share_of_a_core_scraped_each_second": round(scrape_s, 4),
        "share_of_a_core_scraped_each_15_s": round(scrape_s / 15, 5),
    }
    print(json.dumps(figures, indent=2))


if __name__ == "__main__":
    main()
