"""Measure how a flood of one tenant delays another one.

    python -m benchmarks.fairness            # about 6 minutes
    python -m benchmarks.fairness --quick    # about 2

Servers of its own, and one worker with an instant model and pictures that it knows, so that jobs
cost as little as they can and the queue is all that is left. Tenant b submits one interactive job a
second: first alone, then while tenant a has thousands of interactive and bulk jobs queued. Before,
claims of the broker's script alone: rates beside the plain claim, weights, many tenants.
"""

import argparse
import json
import os
import statistics
import time
from collections.abc import Iterator
from typing import Any, NamedTuple

import redis

from benchmarks.checkpoints import Checkpoint
from benchmarks.claims import (
    claims_until_served,
    compare_rates,
    measure_weights,
    measure_zipf,
)
from benchmarks.folders import REPOSITORY, cache_dir
from benchmarks.label_names import labels
from benchmarks.latency import quantile
from benchmarks.machine import describe, load_before
from benchmarks.overhead import instant_worker
from benchmarks.pictures import ensure_pictures
from benchmarks.stack import BUCKET, Stack, isolate, running_stack
from benchmarks.systems.labelyard import LabelyardWorker
from benchmarks.systems.system import Case, Engine
from labelyard import Client
from labelyard.label_sets import as_label_set
from labelyard.messages import Job, LabelSet

RESULTS = REPOSITORY / "benchmarks" / "results" / "fairness.json"
CACHE_BYTES = 64 * 1024 * 1024
MEGAPIXELS = 0.02
EVERY_S = 1.0
TIMEOUT_S = 300.0
FLOODER, OTHER = "a", "b"


class Latency(NamedTuple):
    """Seconds that one job took: in all, until a worker began it, and in the intake."""

    total_s: float
    queued_s: float
    intake_s: float


class Rig:
    """A worker that knows its pictures, and the jobs of two tenants."""

    def __init__(self, stack: Stack, settings: dict[str, str]) -> None:
        self.case = Case(labels(5), tuple(ensure_pictures(MEGAPIXELS)))
        stack.upload(self.case.pictures)
        self.label_set: LabelSet = as_label_set(self.case.labels)
        self.worker: LabelyardWorker = instant_worker(
            stack,
            Engine(Checkpoint("instant", cache_dir())),
            name="fairness",
            cache_bytes=CACHE_BYTES,
            settings=settings,
        )
        self.client: Client = self.worker.client

    def jobs(self, count: int, *, tenant: str) -> Iterator[Job]:
        """Prepare jobs of one picture each."""
        for picture in self.case.take(count):
            uri = f"s3://{BUCKET}/{picture.key}"
            yield self.client.prepare([uri], self.label_set, tenant=tenant)

    def warm(self) -> float:
        """Run each picture once, then some more; return the jobs per second of the latter."""
        self.run(len(self.case.pictures))
        started_at = time.monotonic()
        self.run(1000)
        return 1000 / (time.monotonic() - started_at)

    def run(self, count: int) -> None:
        """Run jobs to their end."""
        handles = self.client.submit_many(self.jobs(count, tenant=OTHER))
        for record in self.client.as_completed(handles, timeout_s=TIMEOUT_S):
            if record.state != "succeeded":
                raise RuntimeError(f"a job {record.state}")

    def latencies(self, count: int, *, every_s: float) -> list[Latency]:
        """Submit jobs of the other tenant, one at a time, and return how long each took."""
        handles = []
        due = time.monotonic()
        for job in self.jobs(count, tenant=OTHER):
            time.sleep(max(0.0, due - time.monotonic()))
            handles.append(self.client.submit_job(job, queue="interactive"))
            due += every_s
        records = self.client.wait(handles, timeout_s=TIMEOUT_S)
        return [
            Latency(
                record.finished_at - record.submitted_at,
                queued_s=record.result.timing.queued_s,
                intake_s=record.result.timing.intake_s,
            )
            for record in records
            if record.finished_at is not None and record.result is not None
        ]


def measure_flood(
    stack: Stack, *, jobs: int, samples: int, settings: dict[str, str]
) -> dict[str, Any]:
    """Measure the latency of one tenant's jobs without and with another tenant's flood.

    Args:
        jobs: Number of the flood's jobs in each of the two queues.
        samples: Number of jobs of the other tenant, one a second.
    """
    rig = Rig(stack, settings)
    try:
        rig.worker.start()
        jobs_per_s = rig.warm()
        idle = rig.latencies(max(30, samples // 2), every_s=EVERY_S / 2)
        submitted_at = time.monotonic()
        for queue in ("bulk", "interactive"):
            rig.client.submit_many(rig.jobs(jobs, tenant=FLOODER), queue=queue)
        submitting_s = time.monotonic() - submitted_at
        before, began_at = rig.client.totals().get("succeeded", 0), time.monotonic()
        flooded = rig.latencies(samples, every_s=EVERY_S)
        done, took_s = rig.client.totals().get("succeeded", 0) - before, time.monotonic() - began_at
        lengths = rig.client.queue_lengths()
    finally:
        rig.worker.stop()
    alone, beside = _summary(idle), _summary(flooded)
    return {
        "flood_jobs": 2 * jobs,
        "submitting_s": round(submitting_s, 1),
        "still_queued": lengths,
        "jobs_per_s_alone": round(jobs_per_s, 1),
        "jobs_per_s_in_flood": round(done / took_s, 1),
        "idle": alone,
        "flood": beside,
        "p50_ratio": round(beside["p50_s"] / alone["p50_s"], 2),
        "p99_difference_s": round(beside["p99_s"] - alone["p99_s"], 3),
    }


def _summary(latencies: list[Latency]) -> dict[str, float]:
    ascending = sorted(one.total_s for one in latencies)
    return {
        "queued_p50_s": round(statistics.median(one.queued_s for one in latencies), 4),
        "intake_p50_s": round(statistics.median(one.intake_s for one in latencies), 4),
        "jobs": len(ascending),
        "p50_s": round(quantile(ascending, 0.5), 4),
        "p90_s": round(quantile(ascending, 0.9), 4),
        "p99_s": round(quantile(ascending, 0.99), 4),
        "max_s": round(ascending[-1], 4),
    }


def measure_claims(stack: Stack, *, is_quick: bool) -> dict[str, Any]:
    """Measure the broker's script alone."""

    def connect(number: int) -> redis.Redis:
        return redis.Redis.from_url(stack.valkey.url_of(10 + number))

    count = 4_000 if is_quick else 20_000
    client = connect(2)
    return {
        "one_tenant": compare_rates(connect, claims=count, tenants=1),
        "thousand_tenants": compare_rates(connect, claims=count, tenants=1000),
        "claims_until_served_behind_20000": claims_until_served(client, flood=20_000),
        "weights_3_to_1": measure_weights(client, claims=1000),
        "zipf": measure_zipf(client, tenants=1000, messages=count),
    }


def main() -> None:
    """Run the measurement, print it, and write it to benchmarks/results/fairness.json."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="fewer jobs and samples")
    parser.add_argument("--jobs", type=int, help="of the flood, in each of the two queues")
    parser.add_argument("--samples", type=int, help="jobs of the other tenant")
    parser.add_argument("--only", choices=["claims", "flood"], help="one part; writes no file")
    parser.add_argument("--set", nargs="*", default=[], metavar="NAME=VALUE", help="of the worker")
    arguments = parser.parse_args()
    settings = dict(pair.split("=", 1) for pair in arguments.set)
    isolate(os.environ)
    found: dict[str, Any] = {"machine": describe(), "load_before": load_before()}
    jobs = arguments.jobs or (6_000 if arguments.quick else 20_000)
    samples = arguments.samples or (30 if arguments.quick else 100)
    with running_stack() as stack:
        if arguments.only != "flood":
            found["claims"] = measure_claims(stack, is_quick=arguments.quick)
        if arguments.only != "claims":
            found["flood"] = measure_flood(stack, jobs=jobs, samples=samples, settings=settings)
    text = json.dumps(found, indent=2)
    print(text)
    if not (arguments.quick or arguments.only or arguments.jobs or arguments.samples):
        RESULTS.write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
