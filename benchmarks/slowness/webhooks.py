"""Measure the cost of dead and dripping webhook receivers to their jobs and to other tenants.

    python -m benchmarks.slowness.webhooks [--jobs 1000] [--rounds 3]

Each round runs the same jobs without a webhook and with each kind of receiver, in another
order, on one worker whose model answers at once.
"""

import argparse
import json
import os
import random
import statistics
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager

import numpy as np

from benchmarks.pictures import ensure_pictures
from benchmarks.slowness.receivers import refusing_receiver, running_receiver
from benchmarks.stack import BUCKET, Stack, isolate, running_stack
from labelyard import Client
from labelyard.messages import Deliver, Job
from labelyard_worker.cli import CELERY_FLAGS
from labelyard_worker.local.worker_process import WorkerProcess

NAMESPACE = "slowness"
APP = "benchmarks.systems.instant_worker"
COMMAND = (sys.executable, "-m", "celery", "-A", APP, "worker", *CELERY_FLAGS)
SETTINGS = {
    "LABELYARD_NAMESPACE": NAMESPACE,
    "LABELYARD_WEBHOOK_HOSTS": "127.0.0.1",
    "LABELYARD_WEBHOOK_SECRET": "whsec_bGFiZWx5YXJkLXRlc3Qta2V5LTAwMDAwMDAw",
}
LABELS = ["a cat", "a dog"]
TINY_MEGAPIXELS = 0.02
TIMEOUT_S = 300.0
PROBES = 38
PROBE_EVERY_S = 0.25
SLOW_JOBS = 100


@contextmanager
def running_client() -> Iterator[tuple[Client, list[str]]]:
    """Run servers and a worker while the block runs; yields a producer and pictures."""
    isolate(os.environ)
    with ExitStack() as exits:
        stack: Stack = exits.enter_context(running_stack())
        pictures = ensure_pictures(TINY_MEGAPIXELS)
        stack.upload(pictures)
        folder = stack.folder / "worker"
        worker = WorkerProcess(folder, variables={**stack.variables, **SETTINGS}, command=COMMAND)
        exits.enter_context(worker.start(within_s=120))
        client = exits.enter_context(Client(stack.client_settings(NAMESPACE)))
        yield client, [f"s3://{BUCKET}/{picture.key}" for picture in pictures]


def prepare(client: Client, uris: list[str], count: int, webhook: str | None) -> list[Job]:
    """Make jobs of one picture each."""
    deliver = Deliver(webhook=webhook)
    return [
        client.prepare([uris[number % len(uris)]], LABELS, tenant="a", deliver=deliver)
        for number in range(count)
    ]


def jobs_per_s(client: Client, uris: list[str], count: int, webhook: str | None) -> float:
    """Run jobs, and return how many become final in a second."""
    jobs = prepare(client, uris, count, webhook)
    started_at = time.monotonic()
    records = client.wait(client.submit_many(jobs), timeout_s=TIMEOUT_S)
    seconds = time.monotonic() - started_at
    failed = [record.job_id for record in records if record.state != "succeeded"]
    if failed:
        raise SystemExit(f"{len(failed)} jobs did not succeed")
    return count / seconds


def latencies_s(client: Client, uris: list[str]) -> list[float]:
    """Run interactive jobs of another tenant one after the other, and time each."""
    found = []
    for number in range(PROBES):
        started_at = time.monotonic()
        client.classify([uris[number % len(uris)]], labels=LABELS, tenant="b", timeout_s=TIMEOUT_S)
        found.append(time.monotonic() - started_at)
        time.sleep(PROBE_EVERY_S)
    return found


def measure_rates(
    client: Client, uris: list[str], receivers: Mapping[str, str | None], *, jobs: int, rounds: int
) -> dict[str, dict[str, float]]:
    """Compare the rates of the same jobs with each receiver."""
    rates: dict[str, list[float]] = {name: [] for name in receivers}
    jobs_per_s(client, uris, jobs, None)  # warms everything up
    for _ in range(rounds):
        for name in random.sample(sorted(receivers), len(receivers)):
            rates[name].append(jobs_per_s(client, uris, jobs, receivers[name]))
    medians = {name: statistics.median(values) for name, values in rates.items()}
    return {
        name: {
            "jobs_per_s": round(median, 1),
            "to_none": round(median / medians["none"], 3),
            "least": round(min(rates[name]), 1),
            "most": round(max(rates[name]), 1),
        }
        for name, median in medians.items()
    }


def measure_latency(client: Client, uris: list[str], webhook: str) -> dict[str, float]:
    """Compare another tenant's latency while jobs with dripping webhooks come and not."""
    idle = latencies_s(client, uris)
    client.submit_many(prepare(client, uris, SLOW_JOBS, webhook), queue="interactive")
    slow = latencies_s(client, uris)
    return {
        "idle_p50_s": round(float(np.percentile(idle, 50)), 4),
        "idle_p95_s": round(float(np.percentile(idle, 95)), 4),
        "slow_p50_s": round(float(np.percentile(slow, 50)), 4),
        "slow_p95_s": round(float(np.percentile(slow, 95)), 4),
    }


def main() -> None:
    """Measure, and print JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--jobs", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    with ExitStack() as exits:
        client, uris = exits.enter_context(running_client())
        receivers = {
            "none": None,
            "refusing": exits.enter_context(refusing_receiver()),
            "silent": exits.enter_context(running_receiver(is_dripping=False)),
            "dripping": exits.enter_context(running_receiver(is_dripping=True)),
        }
        latency_receiver = exits.enter_context(running_receiver(is_dripping=True))
        latency = measure_latency(client, uris, latency_receiver)
        rates = measure_rates(client, uris, receivers, jobs=options.jobs, rounds=options.rounds)
        print(json.dumps({"latency": latency, "rates": rates, "deliveries": client.deliveries()}))


if __name__ == "__main__":
    main()
