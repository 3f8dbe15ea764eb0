"""Plan a manifest of millions of lines through a real worker, from the embedded object storage.

    python -m benchmarks.runs.planner --lines 5e6

Servers of its own on 127.0.0.1 and one worker whose model answers at once. The lines name a few
pictures again and again. The run is paused once its first shard is scored, so that the lines a
second are the planner's own; memory is read four times a second, and pages that processes share
count for each of them. Exit status 1 if the memory or the first shard is over its limit.
"""

import argparse
import faulthandler
import json
import os
import signal
import sys
import tempfile
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from benchmarks.processes import descendants, rss_bytes
from benchmarks.runs.planning import write_lines
from benchmarks.runs.rig import Rig, check, running_rig, say, small_pictures, upload, wait_until
from benchmarks.stack import isolate
from labelyard import Client

PICTURES: Final = 200
LOOK_EVERY_S: Final = 0.25
MOST_MB: Final = 300
FIRST_WITHIN_S: Final = 10.0
SETTLE_S: Final = 3.0


class MemoryWatch:
    """Reads the memory of a worker and of its children until it is told to end.

    Attributes:
        worker: Most bytes of the worker itself.
        children: Most bytes of each child that was seen, by its process id.
    """

    def __init__(self, pid: int) -> None:
        """Begin with the worker as it is."""
        self.idle = rss_bytes([pid])
        self.idle_children = set(descendants(pid))
        self.worker = self.idle
        self.children: dict[int, int] = {}
        self._pid = pid
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._look, name="memory")

    def __enter__(self) -> "MemoryWatch":
        """Begin to read."""
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        """End."""
        self._over.set()
        self._thread.join()

    def _look(self) -> None:
        while not self._over.wait(LOOK_EVERY_S):
            self.worker = max(self.worker, rss_bytes([self._pid]))
            for child in descendants(self._pid):
                self.children[child] = max(self.children.get(child, 0), rss_bytes([child]))

    def readers(self) -> int:
        """Return the most bytes of a child that was started to read the source."""
        new = [most for pid, most in self.children.items() if pid not in self.idle_children]
        return max(new, default=0)


def store_manifest(rig: Rig, lines: int) -> str:
    """Upload the pictures and a manifest of JSON lines."""
    bodies = small_pictures(PICTURES)
    upload(rig.service, ((f"p/{n:04d}.jpg", body) for n, body in enumerate(bodies)))
    bucket = rig.service.pictures
    uris = [bucket.uri(f"p/{n:04d}.jpg") for n in range(len(bodies))]

    def line(n: int) -> str:
        uri = uris[n % len(uris)]
        return f'{{"custom_id": "product-{n:09d}", "uri": "{uri}", "sku": {n}, "kind": "shoes"}}\n'

    with tempfile.TemporaryDirectory(prefix="labelyard-manifest-") as name:
        path = Path(name) / "manifest.jsonl"
        with path.open("wb") as file:
            write_lines(file, lines, line=line)
        say(f"the manifest has {path.stat().st_size / 1e6:.0f} MB")
        rig.service.s3.upload_file(str(path), bucket.name, "manifest.jsonl")
    return bucket.uri("manifest.jsonl")


@dataclass(frozen=True)
class PlanTimes:
    """Times of one plan, in seconds from the start of the run.

    Attributes:
        first_s: When the first shard was scored.
        at_first: Lines that were planned by then.
        paused_s: When the run was paused.
        at_pause: Lines that were planned by then.
        planned_s: When all lines were planned.
    """

    first_s: float
    at_first: int
    paused_s: float
    at_pause: int
    planned_s: float


def plan(client: Client, source: str, out: str, minutes: float) -> tuple[str, PlanTimes]:
    """Start a run, pause it after its first shard, and wait for the end of its plan."""
    began = time.monotonic()
    run_id = client.runs.start(source, ["a cat", "a dog"], out=out).id
    wait_until(lambda: client.runs.get(run_id).shards_done, within_s=600, what="a shard")
    first_s, at_first = time.monotonic() - began, client.runs.get(run_id).lines
    say(f"the first shard is scored after {first_s:.1f} s, {at_first} lines planned")
    client.runs.pause(run_id)
    paused_s, at_pause = time.monotonic() - began, client.runs.get(run_id).lines
    wait_until(
        lambda: client.runs.get(run_id).is_planned,
        within_s=minutes * 60,
        what="the end of the plan",
    )
    return run_id, PlanTimes(first_s, at_first, paused_s, at_pause, time.monotonic() - began)


def measure(lines: int, minutes: float) -> dict[str, Any]:
    """Plan the manifest, and return the figures."""
    problems: list[str] = []
    with running_rig(workers=1) as rig, rig.client() as client:
        source = store_manifest(rig, lines)
        time.sleep(SETTLE_S)
        with MemoryWatch(rig.workers[0].pid) as memory:
            run_id, times = plan(client, source, rig.service.results.uri("planned/"), minutes)
        run = client.runs.get(run_id)
        client.runs.cancel(run_id)
        wait_until(lambda: client.runs.get(run_id).is_final, within_s=300, what="the run's end")
    idle, worker, reader = (each / 2**20 for each in (memory.idle, memory.worker, memory.readers()))
    check(run.lines == run.images == lines, f"all {run.lines} lines are planned", problems)
    check(
        max(worker, reader) < MOST_MB,
        f"worker {worker:.0f} MB ({idle:.0f} MB before), reader {reader:.0f} MB",
        problems,
    )
    check(
        times.first_s <= FIRST_WITHIN_S,
        f"the first shard was scored in {times.first_s:.1f} s",
        problems,
    )
    alone_s = times.planned_s - times.paused_s
    return {
        "lines": run.lines,
        "shards": run.shards_planned,
        "first_shard_scored_s": round(times.first_s, 1),
        "lines_planned_by_then": times.at_first,
        "planned_s": round(times.planned_s, 1),
        "lines_per_s": round(lines / times.planned_s),
        "lines_per_s_while_paused": round((lines - times.at_pause) / alone_s),
        "worker_idle_mb": round(idle, 1),
        "worker_peak_mb": round(worker, 1),
        "reader_peak_mb": round(reader, 1),
        "problems": problems,
    }


def main() -> int:
    """Read the command line, measure, and print the figures as JSON; 1 if a claim fails."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.runs.planner",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--lines", type=float, default=5e6)
    parser.add_argument("--minutes", type=float, default=30.0, help="longest time of the plan")
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # clean up, as after Ctrl-C
    isolate(os.environ)
    faulthandler.dump_traceback_later(options.minutes * 60 + 900, exit=True)
    report = measure(int(options.lines), options.minutes)
    print(json.dumps(report, indent=1))
    return 1 if report["problems"] else 0


if __name__ == "__main__":
    sys.exit(main())
