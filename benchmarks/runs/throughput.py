"""Compare a run with the same pictures as jobs of 64, and an interactive job during a run.

    python -m benchmarks.runs.throughput --model lite --images 1920

Servers of its own on 127.0.0.1 and one worker. Runs and jobs take turns on the same pictures, and
another one begins each round. No two pictures have equal bytes, which are scored once. CPU seconds are those of the worker and its children: they hold on a
machine with other load, too. Then lone interactive jobs are timed, in turns on the idle worker and
while a run is at work. ``--model instant`` measures what the queue and the files cost alone.
"""

import argparse
import faulthandler
import json
import os
import signal
import statistics
import sys
import time
from contextlib import suppress
from functools import partial
from typing import Any, Final, NamedTuple

from benchmarks.checkpoints import LITE, Checkpoint, ensure_checkpoint
from benchmarks.folders import cache_dir
from benchmarks.label_names import labels
from benchmarks.machine import load_before, usable_cores
from benchmarks.overhead import instant_worker
from benchmarks.pictures import ensure_pictures
from benchmarks.processes import cpu_s, descendants
from benchmarks.runs.rig import say, upload_to, wait_until
from benchmarks.stack import BUCKET, Stack, isolate, running_stack
from benchmarks.systems.labelyard import LabelyardWorker
from benchmarks.systems.system import Engine
from labelyard import Client
from labelyard.errors import RunStateError

JOB_SIZE: Final = 64
N_LABELS: Final = 20
TOP_K: Final = 5
TIMEOUT_S: Final = 1_800.0
MEGAPIXELS: Final = {"lite": 0.3, "instant": 0.02}
SETTINGS: Final = {"result_buckets": BUCKET, "image_cache_bytes": "0"}


class Rig:
    """One worker, and the pictures under keys of their own."""

    def __init__(self, stack: Stack, model: str, images: int) -> None:
        """Upload the pictures and their manifest, and start the worker."""
        bodies = [one.path.read_bytes() for one in ensure_pictures(MEGAPIXELS[model])]
        keys = [f"run/{n:06d}.jpg" for n in range(images)]
        upload_to(
            stack.seaweed,
            BUCKET,
            ((key, bodies[n % len(bodies)] + b"%d" % n) for n, key in enumerate(keys)),
        )
        self.uris = [f"s3://{BUCKET}/{key}" for key in keys]
        lines = [json.dumps({"custom_id": uri, "uri": uri}) + "\n" for uri in self.uris]
        stack.put("manifest.jsonl", "".join(lines).encode())
        self.worker = worker_of(stack, model)
        self.client: Client = self.worker.client
        self.labels = list(labels(N_LABELS))
        self._runs = 0
        self.worker.start()

    def start_run(self) -> str:
        """Start a run over all pictures."""
        self._runs += 1
        out = f"s3://{BUCKET}/out-{self._runs}/"
        source = f"s3://{BUCKET}/manifest.jsonl"
        return self.client.runs.start(source, self.labels, out=out, top_k=TOP_K).id

    def time_run(self) -> float:
        """Return the images a second of a run, from its start to its summary."""
        began = time.monotonic()
        run_id = self.start_run()
        wait_until(lambda: self.client.runs.get(run_id).is_final, within_s=TIMEOUT_S, what="a run")
        seconds = time.monotonic() - began
        if (run := self.client.runs.get(run_id)).succeeded != len(self.uris):
            raise RuntimeError(f"a run {run.state}: {dict(run.errors)}, {run.failure}")
        return len(self.uris) / seconds

    def time_jobs(self) -> float:
        """Return the images a second of jobs, from the first submit to the last result."""
        began = time.monotonic()
        jobs = (
            self.client.prepare(self.uris[first : first + JOB_SIZE], self.labels, top_k=TOP_K)
            for first in range(0, len(self.uris), JOB_SIZE)
        )
        handles = self.client.submit_many(jobs, queue="bulk")
        for record in self.client.as_completed(handles, timeout_s=TIMEOUT_S):
            if record.state != "succeeded":
                raise RuntimeError(f"a job {record.state}")
        return len(self.uris) / (time.monotonic() - began)

    def cpu_s(self) -> float:
        """Return the CPU seconds of the worker and its children so far."""
        pid = self.worker.process.pid
        return cpu_s([pid, *descendants(pid)])

    def latencies(self, count: int, *, every_s: float) -> list[float]:
        """Return the seconds of lone interactive jobs, one after the other."""
        found = []
        for number in range(count):
            began = time.monotonic()
            uri = self.uris[number % len(self.uris)]
            result = self.client.classify([uri], self.labels, timeout_s=TIMEOUT_S)
            if result.status != "succeeded":
                raise RuntimeError(f"a lone image {result.status}")
            found.append(time.monotonic() - began)
            time.sleep(max(0.0, every_s - found[-1]))
        return found

    def _has_results(self, run_id: str) -> bool:
        return self.client.runs.progress(run_id).done >= JOB_SIZE

    def _is_final(self, run_id: str) -> bool:
        return self.client.runs.get(run_id).is_final

    def latencies_in_run(self, count: int, *, every_s: float) -> list[float]:
        """Return the same while a run is at work, from its first results on."""
        found: list[float] = []
        while len(found) < count:
            run_id = self.start_run()
            wait_until(
                partial(self._has_results, run_id),
                within_s=TIMEOUT_S,
                what="the first shard",
            )
            while len(found) < count:
                [seconds] = self.latencies(1, every_s=every_s)
                if self._is_final(run_id):
                    break
                found.append(seconds)
            with suppress(RunStateError):
                self.client.runs.cancel(run_id)
            wait_until(
                partial(self._is_final, run_id),
                within_s=TIMEOUT_S,
                what="the run's end",
            )
        return found


def worker_of(stack: Stack, model: str) -> LabelyardWorker:
    """Describe the worker of a model."""
    if model == "lite":
        return LabelyardWorker(
            stack, Engine(ensure_checkpoint(LITE)), title="lite", settings=SETTINGS
        )
    engine = Engine(Checkpoint("instant", cache_dir()))
    return instant_worker(stack, engine, name="instant", cache_bytes=0, settings=SETTINGS)


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """Measure the rounds, then the interactive jobs."""
    load = load_before()
    with running_stack() as stack:
        rig = Rig(stack, options.model, options.images)
        try:
            rounds = measure_rounds(rig, options.rounds)
            blocks = measure_latencies(rig, options.jobs, options.blocks)
        finally:
            rig.worker.stop()
    idle, busy = (statistics.median(blocks[name]) for name in ("idle", "in_run"))
    return {
        "model": options.model,
        "images": options.images,
        "cores": usable_cores(),
        "load_before": round(load, 2),
        **describe(rounds, options.images),
        "interactive_idle_median_s": round(idle, 4),
        "interactive_in_run_median_s": round(busy, 4),
        "interactive_in_run_over_idle": round(busy / idle, 2),
        "interactive_jobs": {name: len(found) for name, found in blocks.items()},
    }


class Round(NamedTuple):
    """Images a second, and CPU seconds of the worker, of one run or the same pictures as jobs."""

    images_per_s: float
    cpu_s: float


def describe(rounds: dict[str, list[Round]], images: int) -> dict[str, Any]:
    """Return the rates, the CPU time of an image, and what a run has of each over jobs."""
    found: dict[str, Any] = {}
    for name, each in rounds.items():
        found[f"{name}_images_per_s"] = [round(one.images_per_s, 1) for one in each]
        found[f"{name}_cpu_ms_per_image"] = [round(1000 * one.cpu_s / images, 2) for one in each]
    pairs = list(zip(rounds["run"], rounds["jobs"], strict=True))
    rates = [run.images_per_s / jobs.images_per_s for run, jobs in pairs]
    cpu = [jobs.cpu_s / run.cpu_s for run, jobs in pairs]
    return {
        **found,
        "run_over_jobs": round(statistics.median(rates), 3),
        "run_over_jobs_by_cpu": round(statistics.median(cpu), 3),
    }


def measure_rounds(rig: Rig, count: int) -> dict[str, list[Round]]:
    """Let runs and jobs take turns."""
    found: dict[str, list[Round]] = {"run": [], "jobs": []}
    time_one = {"run": rig.time_run, "jobs": rig.time_jobs}
    for number in range(count):
        for name in ["run", "jobs"] if number % 2 else ["jobs", "run"]:
            before = rig.cpu_s()
            rate = time_one[name]()
            found[name].append(Round(rate, rig.cpu_s() - before))
            say(f"round {number}, {name}: {rate:.1f} images/s, {found[name][-1].cpu_s:.1f} CPU s")
    return found


def measure_latencies(rig: Rig, jobs: int, blocks: int) -> dict[str, list[float]]:
    """Let blocks of interactive jobs take turns, on the idle worker and in a run."""
    found: dict[str, list[float]] = {"idle": [], "in_run": []}
    rig.latencies(3, every_s=0)
    for number in range(blocks):
        found["idle"] += rig.latencies(jobs // blocks, every_s=0.2)
        found["in_run"] += rig.latencies_in_run(jobs // blocks, every_s=0.2)
        idle, busy = (statistics.median(one) for one in found.values())
        say(f"block {number}: idle {1000 * idle:.0f} ms, in a run {1000 * busy:.0f} ms")
    return found


def main() -> int:
    """Read the command line, measure, and print the figures as JSON."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.runs.throughput",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--model", choices=MEGAPIXELS, default="lite")
    parser.add_argument("--images", type=int, default=1_920, help="pictures of a round")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--jobs", type=int, default=60, help="interactive jobs of each kind")
    parser.add_argument("--blocks", type=int, default=3, help="turns of interactive jobs")
    parser.add_argument("--minutes", type=float, default=60.0, help="end after this time")
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # clean up, as after Ctrl-C
    isolate(os.environ)
    faulthandler.dump_traceback_later(options.minutes * 60, exit=True)
    print(json.dumps(measure(options), indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main())
