"""Score a run's old embeddings against other labels, beside fresh runs over the pictures.

    python -m benchmarks.runs.rescore_run --images 3000

Servers of its own on 127.0.0.1 and one real worker with the lite checkpoint. The pictures are run
twice: with old labels, which keeps the embeddings, and with new ones. Then all pictures are deleted
from storage, and the embeddings are scored against the new labels. Exit status 1 if that is less
than 20 times as fast, or a score differs from the fresh run's by more than 0.001.
"""

import argparse
import faulthandler
import json
import os
import signal
import statistics
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import duckdb

from benchmarks.checkpoints import LITE, ensure_checkpoint
from benchmarks.label_names import labels
from benchmarks.machine import load_before, usable_cores
from benchmarks.pictures import ensure_pictures
from benchmarks.runs.rig import check, say, upload_to, wait_until
from benchmarks.stack import BUCKET, Stack, isolate, running_stack
from benchmarks.systems.labelyard import LabelyardWorker
from benchmarks.systems.system import Engine
from labelyard.runs.client import RunHandle
from labelyard.runs.record import RunRecord

MEGAPIXELS: Final = 0.3
N_LABELS: Final = 20
AT_ONCE: Final = 1_000
TIMES_AS_FAST: Final = 20
LARGEST_MOVE: Final = 1e-3
POLL_EVERY_S: Final = 0.05
SETTINGS: Final = {"result_buckets": BUCKET, "image_cache_bytes": "0"}


class Rig:
    """One worker, and pictures under keys of their own."""

    def __init__(self, stack: Stack, images: int, minutes: float) -> None:
        """Upload the pictures and their manifest, and start the worker."""
        self._stack, self._timeout_s = stack, minutes * 60
        bodies = [one.path.read_bytes() for one in ensure_pictures(MEGAPIXELS)]
        self._keys = [f"pictures/{n:06d}.jpg" for n in range(images)]
        numbered = enumerate(self._keys)
        upload_to(stack.seaweed, BUCKET, ((key, bodies[n % len(bodies)]) for n, key in numbered))
        lines = [
            json.dumps({"custom_id": key, "uri": f"s3://{BUCKET}/{key}"}) + "\n"
            for key in self._keys
        ]
        stack.put("manifest.jsonl", "".join(lines).encode())
        self.worker = LabelyardWorker(
            stack, Engine(ensure_checkpoint(LITE)), title="lite", settings=SETTINGS
        )
        say(f"uploaded {images} pictures; the worker was ready after {self.worker.start():.0f} s")

    def run(self, names: list[str], out: str, *, embeddings: bool) -> tuple[RunRecord, float]:
        """Run the pictures, and return the record and the seconds."""
        return self._time(
            lambda: self.worker.client.runs.start(
                f"s3://{BUCKET}/manifest.jsonl",
                names,
                out=f"s3://{BUCKET}/{out}",
                embeddings=embeddings,
                top_k=N_LABELS,
                output_format="parquet",
            )
        )

    def rescore(self, old: RunRecord, names: list[str], out: str) -> tuple[RunRecord, float]:
        """Score the embeddings of a run, and return the record and the seconds."""
        return self._time(
            lambda: self.worker.client.runs.rescore(
                old.run_id,
                names,
                out=f"s3://{BUCKET}/{out}",
                top_k=N_LABELS,
                output_format="parquet",
            )
        )

    def _time(self, start: "Any") -> tuple[RunRecord, float]:
        began = time.monotonic()
        handle: RunHandle = start()
        runs = self.worker.client.runs
        wait_until(
            lambda: runs.get(handle.id).is_final,
            within_s=self._timeout_s,
            what="a run",
            every_s=POLL_EVERY_S,
        )
        return runs.get(handle.id), time.monotonic() - began

    def delete_pictures(self) -> None:
        """Delete all pictures from storage."""
        for first in range(0, len(self._keys), AT_ONCE):
            some = [{"Key": key} for key in self._keys[first : first + AT_ONCE]]
            self._stack.s3.delete_objects(Bucket=BUCKET, Delete={"Objects": some})
        left = self._stack.s3.list_objects_v2(Bucket=BUCKET, Prefix="pictures/")["KeyCount"]
        if left:
            raise RuntimeError(f"{left} pictures are still there")

    def download(self, out: str, folder: Path) -> str:
        """Download the results of a run, and return a pattern of their names."""
        (folder / out).mkdir(parents=True)
        listing = self._stack.s3.list_objects_v2(Bucket=BUCKET, Prefix=f"{out}results-")
        for entry in listing["Contents"]:
            self._stack.s3.download_file(BUCKET, entry["Key"], str(folder / entry["Key"]))
        return f"{folder}/{out}results-*.parquet"


def compare(fresh: str, rescored: str) -> dict[str, Any]:
    """Compare two runs' results line by line with DuckDB."""
    with duckdb.connect() as db:
        scores = "SELECT line, unnest(labels, recursive := true) FROM read_parquet('{}')"
        [row] = db.execute(
            f"WITH a AS ({scores.format(fresh)}), b AS ({scores.format(rescored)}) "
            "SELECT count(*), count(*) FILTER (a.score IS NULL OR b.score IS NULL), "
            "max(abs(a.score - b.score)) FROM a FULL JOIN b USING (line, name)"
        ).fetchall()
        [[lines, same]] = db.execute(
            "SELECT count(*), count(*) FILTER (a.top_label = b.top_label) "
            f"FROM read_parquet('{fresh}') AS a JOIN read_parquet('{rescored}') AS b USING (line)"
        ).fetchall()
    return {
        "lines": lines,
        "same_top_label": same,
        "scores": row[0],
        "without_partner": row[1],
        "largest_move": row[2],
    }


@dataclass(frozen=True)
class Seconds:
    """Seconds of the runs: the first, the fresh one, and those over embeddings."""

    first: float
    fresh: float
    again: list[float]

    @property
    def median(self) -> float:
        """The median of the runs over embeddings."""
        return statistics.median(self.again)


def measure(images: int, rounds: int, minutes: float) -> dict[str, Any]:
    """Run, delete the pictures, score again, compare."""
    load = load_before()
    old_labels, new_labels = list(labels(N_LABELS)), list(labels(2 * N_LABELS)[N_LABELS:])
    with running_stack() as stack, tempfile.TemporaryDirectory() as name:
        rig = Rig(stack, images, minutes)
        try:
            old, old_s = rig.run(old_labels, "old/", embeddings=True)
            say(f"the first run took {old_s:.1f} s")
            fresh, fresh_s = rig.run(new_labels, "fresh/", embeddings=False)
            say(f"the fresh run took {fresh_s:.1f} s")
            rig.delete_pictures()
            again = [rig.rescore(old, new_labels, f"again-{n}/") for n in range(rounds)]
        finally:
            rig.worker.stop()
        found = compare(rig.download("fresh/", Path(name)), rig.download("again-0/", Path(name)))
    seconds = Seconds(old_s, fresh_s, [each for _, each in again])
    counts = [run.succeeded for run in (old, fresh, *(run for run, _ in again))]
    return {
        "images": images,
        "cores": usable_cores(),
        "load_before": round(load, 2),
        "first_run_s": round(seconds.first, 2),
        "fresh_run_s": round(seconds.fresh, 2),
        "rescored_s": [round(each, 2) for each in seconds.again],
        "times_as_fast": round(seconds.first / seconds.median, 1),
        "rescored_images_per_s": round(images / seconds.median),
        "comparison": found,
        "problems": problems_of(images, counts, seconds, found),
    }


def problems_of(
    images: int, counts: list[int], seconds: Seconds, found: dict[str, Any]
) -> list[str]:
    """Check the claims, and return those that do not hold."""
    problems: list[str] = []
    check(set(counts) == {images}, f"every run has {images} results: {counts}", problems)
    ratios = [each / seconds.median for each in (seconds.first, seconds.fresh)]
    check(
        ratios[0] >= TIMES_AS_FAST,
        f"{ratios[0]:.1f} times as fast as the first run, {ratios[1]:.1f} times as the fresh one",
        problems,
    )
    check(
        found["without_partner"] == 0
        and found["lines"] == images
        and found["largest_move"] <= LARGEST_MOVE,
        f"the same as a fresh run: {found}",
        problems,
    )
    return problems


def main() -> int:
    """Read the command line, measure, and print the figures as JSON; 1 if a claim fails."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.runs.rescore_run",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--images", type=int, default=3_000)
    parser.add_argument("--rounds", type=int, default=3, help="how often the embeddings are scored")
    parser.add_argument("--minutes", type=float, default=30.0, help="longest time of each run")
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # clean up, as after Ctrl-C
    isolate(os.environ)
    faulthandler.dump_traceback_later(options.minutes * 120 + 600, exit=True)
    report = measure(options.images, options.rounds, options.minutes)
    print(json.dumps(report, indent=1))
    return 1 if report["problems"] else 0


if __name__ == "__main__":
    sys.exit(main())
