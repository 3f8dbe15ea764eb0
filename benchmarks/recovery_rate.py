"""Measure how fast an emptied broker is filled again from the ledger.

    python -m benchmarks.recovery_rate --jobs 100000 --labels 10

Two Valkeys of its own: one holds the records of bulk jobs and, behind them, of a few interactive
ones; the other is the broker, and empty. One reconciler publishes. Printed are the jobs published
each second, and each second of this process's CPU time, the seconds until the interactive ones are back, and how many were published twice.
"""

import argparse
import json
import tempfile
import time
from contextlib import ExitStack, closing
from pathlib import Path

import redis

from labelyard.ledger import Ledger, connect
from labelyard.messages import Job, Label, LabelSet
from labelyard.publisher import Publisher
from labelyard.queues import Queue
from labelyard.testing import sample_job
from labelyard_worker.local.servers import ValkeyServer
from labelyard_worker.maintenance.broker_view import RedisBrokerView
from labelyard_worker.maintenance.leader import LeaderElection
from labelyard_worker.maintenance.reconciler import Reconciler
from labelyard_worker.settings import WorkerSettings

NAMESPACE = "recovery"
INTERACTIVE = 10
AFTER_S = 30.0
BATCH = 5000


def open_jobs(ledger: Ledger, *, count: int, labels: LabelSet) -> None:
    """Write the records of *count* bulk jobs, and of some interactive ones after them."""
    for first in range(0, count, BATCH):
        jobs = [new_job(labels) for _ in range(min(BATCH, count - first))]
        ledger.open_many(jobs, queue=Queue.BULK)
    ledger.open_many([new_job(labels) for _ in range(INTERACTIVE)], queue=Queue.INTERACTIVE)


def make_old(ledger: Ledger) -> None:
    """Age all jobs, as if nothing had changed in them for a while."""
    key = ledger.keys.open
    job_ids = [str(job_id) for job_id in ledger.client.zrange(key, 0, -1)]
    old = ledger.now() - 10 * AFTER_S
    for first in range(0, len(job_ids), BATCH):
        with ledger.client.pipeline(transaction=False) as pipeline:
            for place, job_id in enumerate(job_ids[first : first + BATCH], start=first):
                at = old + place / 1_000_000
                pipeline.zadd(key, {job_id: at})
                pipeline.hset(ledger.keys.job(job_id), "published_at", f"{at:.6f}")
            pipeline.execute()


def new_job(labels: LabelSet) -> Job:
    """Make a job of two images."""
    return sample_job().model_copy(update={"label_set": labels})


def wait_for(queues: redis.Redis, queue: str, count: int) -> float:
    """Wait until *queue* has *count* messages, and return when, by the monotonic clock."""
    while int(queues.llen(f"{NAMESPACE}.{queue}")) < count:
        time.sleep(0.05)
    return time.monotonic()


def main() -> None:
    """Run the measurement and print it as JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--jobs", type=int, default=100_000)
    parser.add_argument("--labels", type=int, default=10)
    arguments = parser.parse_args()
    names = tuple(Label(name=f"label {number}") for number in range(arguments.labels))
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        broker = stack.enter_context(ValkeyServer(folder / "broker"))
        truth = stack.enter_context(ValkeyServer(folder / "ledger"))
        settings = WorkerSettings(broker_url=broker.url, ledger_url=truth.url, namespace=NAMESPACE)
        ledger = Ledger(stack.enter_context(closing(connect(settings))), settings)
        open_jobs(ledger, count=arguments.jobs, labels=LabelSet(labels=names))
        make_old(ledger)
        queues = stack.enter_context(redis.Redis.from_url(broker.url))
        reconciler = Reconciler(
            leader=LeaderElection(ledger, worker="measured"),
            ledger=ledger,
            publisher=stack.enter_context(closing(Publisher(settings))),
            broker=stack.enter_context(closing(RedisBrokerView(settings))),
            every_s=0.1,
            after_s=AFTER_S,
        )
        began_at, cpu_began_s = time.monotonic(), time.process_time()
        reconciler.start()
        stack.callback(reconciler.close)
        interactive_s = wait_for(queues, "interactive", INTERACTIVE) - began_at
        seconds = wait_for(queues, "bulk", arguments.jobs) - began_at
        cpu_s = time.process_time() - cpu_began_s
        time.sleep(1.0)  # a further round would publish twice
        published = int(queues.llen(f"{NAMESPACE}.bulk"))
        print(
            json.dumps(
                {
                    "jobs": arguments.jobs,
                    "seconds": round(seconds, 1),
                    "jobs_per_s": round(arguments.jobs / seconds),
                    "jobs_per_cpu_s": round(arguments.jobs / cpu_s),
                    "interactive_after_s": round(interactive_s, 2),
                    "published_twice": published - arguments.jobs,
                }
            )
        )


if __name__ == "__main__":
    main()
