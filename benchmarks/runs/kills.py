"""Prove that a run survives kills, a pause and a cancellation: each line once, nothing lost.

    python -m benchmarks.runs.kills --images 100000

Servers of its own on 127.0.0.1 and two workers whose model answers at once. On the way each worker
is killed twice and the broker, which also is the ledger, once; the run is paused, resumed,
cancelled and resumed. At the end the files are counted with DuckDB. Exit status 1 if a claim fails.
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
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from benchmarks.runs.recount import Recount, differences
from benchmarks.runs.rig import (
    Rig,
    check,
    joined,
    open_ledger,
    running_rig,
    say,
    small_pictures,
    upload,
    wait_until,
)
from benchmarks.stack import isolate
from labelyard import Client
from labelyard.errors import LedgerUnavailableError
from labelyard.messages import Label
from labelyard.runs.record import RunRecord

OUT: Final = "catalogue/"
LABELS: Final = [Label(name="a cat"), Label(name="a dog", threshold=0.3), Label(name="a bird")]
MISSING: Final = 20
BAD_LINES: Final = ("{nonsense", "", '["no object"]', '{"custom_id": "no-address"}')
SHARDS: Final = 60
STANDS_STILL_S: Final = 3.0
PROGRESS_LINES: Final = 20


@dataclass
class Proof:
    """A run with its faults, and what was seen on the way.

    Attributes:
        done_at: Time at which each shard was first seen as done.
        problems: Claims that do not hold.
    """

    rig: Rig
    client: Client
    images: int
    minutes: float
    run_id: str = ""
    done_at: dict[str, float] = field(default_factory=dict)
    faults: Counter[str] = field(default_factory=Counter)
    problems: list[str] = field(default_factory=list)

    def start(self) -> None:
        """Upload the pictures and the manifest, and start the run."""
        bodies = small_pictures()
        began = time.monotonic()
        keys = [f"catalogue/{n % 1000:03d}/{n:07d}.jpg" for n in range(self.images)]
        upload(
            self.rig.service,
            ((key, bodies[n % len(bodies)]) for n, key in enumerate(keys[:-MISSING])),
        )
        say(
            f"uploaded {self.images - MISSING} pictures, {len(bodies)} different ones, "
            f"in {time.monotonic() - began:.0f} s"
        )
        bucket = self.rig.service.pictures
        lines = [
            json.dumps({"custom_id": f"picture-{n:07d}", "uri": bucket.uri(key)})
            for n, key in enumerate(keys)
        ]
        source = bucket.put("catalogue.jsonl", joined([*lines, *BAD_LINES]))
        out = self.rig.service.results.uri(OUT)
        self.run_id = self.client.runs.start(source, LABELS, out=out).id

    def watch(self) -> None:
        """Print the progress as ``labelyard run watch`` reads it, until the run succeeds."""
        printed, last = -1, ""
        while True:
            try:
                for progress in self.client.runs.watch(self.run_id, every_s=0.5):
                    part = progress.done * PROGRESS_LINES // max(1, self.images)
                    if (part, progress.state) != (printed, last):
                        say(
                            f"{progress.state}: {progress.done} of "
                            f"{progress.total}{'' if progress.is_total_known else '+'}, "
                            f"{progress.images_per_s or 0:.0f} images/s, "
                            f"{progress.seconds_left or 0:.0f} s left, "
                            f"{progress.computed_again} computed again"
                        )
                    printed, last = part, progress.state
                if last != "cancelled":
                    return
            except LedgerUnavailableError:
                say("watch: the ledger is away")
            time.sleep(0.5)

    def at(self, part: float) -> None:
        """Wait until this part of the lines is done, then note which shards are."""
        wait_until(
            lambda: self.record().done >= part * self.images,
            within_s=self.minutes * 60,
            what=f"{part:.0%} of the run",
        )
        self.note_done()

    def record(self) -> RunRecord:
        """Read the run's record; wait for the ledger if it is away."""
        while True:
            with suppress(LedgerUnavailableError):
                return self.client.runs.get(self.run_id)
            time.sleep(0.2)

    def note_done(self) -> None:
        """Note the shards that are done, and how far the others are."""
        with open_ledger(self.rig) as ledger:
            done = ledger.done_shards(self.run_id)
            progress = ledger.progress(self.run_id)
            opened = len(ledger.opened(self.run_id))
        at = time.time()
        for name in done:
            self.done_at.setdefault(name, at)
        say(f"{len(done)} shards are done, {opened} open, {progress.done} lines")

    def fault(self, name: str, act: Callable[[], Any]) -> None:
        """Let something happen, and count it."""
        say(name)
        self.faults[name] += 1
        act()

    def kill(self, number: int) -> None:
        """Kill a worker, and start it again."""
        self.fault(f"SIGKILL to worker {number}", lambda: self.rig.kill_worker(number))

    def kill_broker(self) -> None:
        """Kill Valkey with the queues and the ledger, and start it on its append-only file."""
        valkey = self.rig.service.valkey
        self.fault("SIGKILL to the broker", valkey.kill)
        valkey.start()

    def pause(self) -> None:
        """Pause, see that nothing moves any more, and resume."""
        self.fault("pause", lambda: self.client.runs.pause(self.run_id))
        still_since, done = time.monotonic(), -1
        began = time.monotonic()

        def stands_still() -> bool:
            nonlocal still_since, done
            now = self.client.runs.progress(self.run_id).done
            if now != done:
                still_since, done = time.monotonic(), now
            return time.monotonic() - still_since > STANDS_STILL_S

        wait_until(stands_still, within_s=180, what="a run that stands still")
        say(f"stands still at {done} after {still_since - began:.1f} s")
        check(self.record().state == "paused", "the run is paused", self.problems)
        self.fault("resume", lambda: self.client.runs.resume(self.run_id))

    def cancel(self) -> None:
        """Cancel, read the summary of what was done, and resume."""
        self.fault("cancel", lambda: self.client.runs.cancel(self.run_id))
        wait_until(lambda: self.record().is_final, within_s=180, what="the run's end")
        summary = self.summary()
        done = self.record().done
        check(
            summary["state"] == "cancelled"
            and summary["images"]["total"] + summary["bad_lines"] == done < self.images,
            f"the cancelled run's summary counts the {done} lines that are done",
            self.problems,
        )
        self.note_done()
        self.fault("resume", lambda: self.client.runs.resume(self.run_id))

    def summary(self) -> Any:
        """Read summary.json."""
        return json.loads(self.rig.service.results.get(f"{OUT}summary.json"))

    def steer(self) -> None:
        """Do all that happens on the way."""
        self.at(0.10)
        self.kill(0)
        self.at(0.20)
        self.kill(1)
        self.at(0.30)
        self.kill_broker()
        self.at(0.42)
        self.kill(0)
        self.at(0.54)
        self.kill(1)
        self.at(0.62)
        self.pause()
        self.at(0.75)
        self.cancel()

    def verify(self) -> dict[str, Any]:
        """Compare the files, the summary and the workers' notes."""
        run, summary = self.record(), self.summary()
        with tempfile.TemporaryDirectory() as name:
            files = self.client.runs.download(self.run_id, name)
            recount = Recount(Path(name))
            lines, counted = recount.lines(), recount.summary()
        expected = {
            "results": self.images,
            "distinct_lines": self.images,
            "distinct_ids": self.images,
            "first": 1,
            "last": self.images,
            "bad_lines": len(BAD_LINES),
            "failed_in_errors": MISSING,
        }
        check(
            lines == expected,
            f"exactly one output line for each input line: {lines}",
            self.problems,
        )
        wrong = differences(summary, counted)
        check(not wrong, f"summary.json agrees with DuckDB {'; '.join(wrong)}", self.problems)
        check(
            (run.state, summary["state"]) == ("partial", "partial"),
            "the run is partial, because pictures are missing",
            self.problems,
        )
        again = [shard for shard, _, at in self.rig.scored() if at > self.done_at.get(shard, at)]
        check(not again, f"no finished shard was computed again {again[:5]}", self.problems)
        scored = sum(count for _, count, _ in self.rig.scored())
        return {
            "images": self.images,
            "files": len(files),
            "shards": summary["shards"],
            "faults": dict(self.faults),
            "seconds": summary["seconds"],
            "images_per_s": summary["images_per_s"],
            "scored_twice": scored - self.images,
            "computed_again_in_summary": summary["computed_again"],
            "largest_shard": max(Counter(self._sizes()).keys(), default=0),
            "problems": self.problems,
        }

    def _sizes(self) -> list[int]:
        by_shard: Counter[str] = Counter()
        for shard, count, _ in self.rig.scored():
            by_shard[shard] += count
        return list(by_shard.values())


def prove(images: int, minutes: float) -> dict[str, Any]:
    """Run everything, and return the figures."""
    shard_lines = str(min(1_000, max(50, images // SHARDS)))  # so that faults find some in work
    with (
        running_rig(workers=2, settings={"shard_lines": shard_lines}) as rig,
        rig.client() as client,
    ):
        proof = Proof(rig, client, images, minutes)
        proof.start()
        watcher = threading.Thread(target=proof.watch, name="watch")
        watcher.start()
        proof.steer()
        watcher.join(minutes * 60)
        return proof.verify()


def main() -> int:
    """Read the command line, run, and print the figures as JSON; 1 if a claim fails."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.runs.kills",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--images", type=int, default=100_000)
    parser.add_argument("--minutes", type=float, default=60.0, help="longest time of the run")
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # clean up, as after Ctrl-C
    isolate(os.environ)
    faulthandler.dump_traceback_later(options.minutes * 60 + 300, exit=True)
    report = prove(options.images, options.minutes)
    print(json.dumps(report, indent=1))
    return 1 if report["problems"] else 0


if __name__ == "__main__":
    sys.exit(main())
