"""Measure the cost of durable writes: submits and results a second, with and without them.

    python -m benchmarks.durable_writes_cost --seconds 5 --threads 64

One Valkey of its own is the ledger, with ``appendfsync everysec`` and then with ``always``. Threads
open a job, begin it and finish it, as producers and workers do; a pipeline opens 500 at once.
"""

import argparse
import json
import statistics
import tempfile
import threading
import time
from contextlib import closing
from pathlib import Path
from typing import Any, Literal

from labelyard.ledger import Ledger, connect
from labelyard.queues import Queue
from labelyard.settings import ClientSettings
from labelyard.testing import sample_job, sample_result
from labelyard_worker.local.servers import ValkeyServer

Mode = Literal["off", "fsync"]
PIPELINE = 500


def cycle(ledger: Ledger, *, until: float, submits_s: list[float], ends_s: list[float]) -> None:
    """Submit, begin and finish jobs, one after another, and note how long each took."""
    while time.monotonic() < until:
        job = sample_job()
        began_at = time.monotonic()
        ledger.open(job, queue=Queue.BULK)
        opened_at = time.monotonic()
        ledger.start(job.job_id, worker="w", quarantine_after=9, dead_after=9)
        started_at = time.monotonic()
        ledger.finish(job.job_id, sample_result(job=job))
        submits_s.append(opened_at - began_at)
        ends_s.append(time.monotonic() - started_at)


def measure(server: ValkeyServer, mode: Mode, *, seconds: float, threads: int) -> dict[str, Any]:
    """Run *threads* cycles at once."""
    settings = ClientSettings(ledger_url=server.url, namespace=f"cost-{mode}", durable_writes=mode)
    with closing(connect(settings)) as client:
        ledger = Ledger(client, settings)
        ledger.check_durability()
        submits_s: list[float] = []
        ends_s: list[float] = []
        until = time.monotonic() + seconds
        workers = [
            threading.Thread(
                target=cycle,
                args=(ledger,),
                kwargs={"until": until, "submits_s": submits_s, "ends_s": ends_s},
            )
            for _ in range(threads)
        ]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
        jobs = [sample_job() for _ in range(PIPELINE)]
        began_at = time.monotonic()
        ledger.open_many(jobs, queue=Queue.BULK)
        together_s = time.monotonic() - began_at
    return {
        "durable_writes": mode,
        "threads": threads,
        "jobs_per_s": round(len(ends_s) / seconds),
        "submit_median_ms": round(statistics.median(submits_s) * 1000, 1),
        "finish_median_ms": round(statistics.median(ends_s) * 1000, 1),
        "submit_500_together_ms": round(together_s * 1000),
    }


def main() -> None:
    """Print one line for each mode of the server and of the setting, alternating."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=5.0)
    parser.add_argument("--threads", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=2)
    arguments = parser.parse_args()
    for appendfsync in ("everysec", "always"):
        with (
            tempfile.TemporaryDirectory() as folder,
            ValkeyServer(Path(folder), options={"appendfsync": appendfsync}) as server,
        ):
            modes: tuple[Mode, ...] = ("off", "fsync")
            for mode in modes * arguments.rounds:
                for threads in (1, arguments.threads):
                    found = measure(server, mode, seconds=arguments.seconds, threads=threads)
                    print(json.dumps({"appendfsync": appendfsync, **found}), flush=True)


if __name__ == "__main__":
    main()
