"""Prove that poisonous pictures cost a run one line each, and need no person.

    python -m benchmarks.runs.poison --images 5000

Servers of its own on 127.0.0.1 and two workers whose model answers at once, under a supervisor
that starts a dead one again. Three of the pictures are poisonous: one kills the worker that embeds
it, one crashes the decoder, one hangs in it. Exit status 1 if a claim fails.
"""

import argparse
import faulthandler
import json
import os
import signal
import sys
import tempfile
from pathlib import Path
from typing import Any, Final

from PIL import Image
from tests.support import pictures
from tests.support.apps.instant_model import LETHAL
from tests.support.poison import CRASH, HANG

from benchmarks.runs.recount import Recount, differences
from benchmarks.runs.rig import (
    Rig,
    check,
    joined,
    running_rig,
    say,
    small_pictures,
    upload,
    wait_until,
)
from benchmarks.stack import isolate
from labelyard import Client

OUT: Final = "poisoned/"
SETTINGS: Final = {"image_timeout_s": "5"}
EXPECTED: Final = {
    "kills": "image_killed_worker",
    "crashes": "image_crashed_decoder",
    "hangs": "image_timed_out",
}


def poison() -> dict[str, bytes]:
    """Return the files that kill, crash and hang."""
    lethal = pictures.encode(Image.new("RGB", (32, 32), tuple(LETHAL)), "PNG")
    return {"kills": lethal, "crashes": CRASH, "hangs": HANG}


def places(images: int) -> dict[int, str]:
    """Return which lines are poisonous: one early, one in the middle, one near the end."""
    return {images // 7: "kills", images // 2: "crashes", images - images // 9: "hangs"}


def store(rig: Rig, images: int) -> tuple[str, dict[str, int]]:
    """Upload pictures, poison and the manifest; returns its address and the poison's lines."""
    bodies, bad, at = small_pictures(), poison(), places(images)
    ids = [at.get(n, f"picture-{n:07d}") for n in range(images)]
    numbered = enumerate(ids)
    upload(
        rig.service, ((f"p/{one}", bad.get(one, bodies[n % len(bodies)])) for n, one in numbered)
    )
    bucket = rig.service.pictures
    lines = [json.dumps({"custom_id": one, "uri": bucket.uri(f"p/{one}")}) for one in ids]
    say(f"uploaded {images} pictures, {len(bad)} poisonous ones")
    return bucket.put("poisoned.jsonl", joined(lines)), {ids[n]: n + 1 for n in at}


def prove(images: int, minutes: float) -> dict[str, Any]:
    """Run everything, and return the figures."""
    with (
        running_rig(workers=2, settings=SETTINGS, misbehaves=True) as rig,
        rig.client() as client,
    ):
        source, lines = store(rig, images)
        with rig.supervised():
            run = client.runs.start(source, ["a cat", "a dog"], out=rig.service.results.uri(OUT))
            wait_until(
                lambda: client.runs.get(run.id).is_final,
                within_s=minutes * 60,
                what="the run's end",
            )
        return verify(rig, client, run.id, images, lines)


def verify(
    rig: Rig, client: Client, run_id: str, images: int, lines: dict[str, int]
) -> dict[str, Any]:
    """Compare results, errors and summary with what they must be."""
    problems: list[str] = []
    record, errors = client.runs.get(run_id), list(client.runs.errors(run_id))
    summary = json.loads(rig.service.results.get(f"{OUT}summary.json"))
    with tempfile.TemporaryDirectory() as name:
        client.runs.download(run_id, name)
        recount = Recount(Path(name))
        counted, wrong = recount.lines(), differences(summary, recount.summary())
    check(
        counted["results"] == counted["distinct_lines"] == images
        and record.succeeded == images - len(lines),
        f"{record.succeeded} results, each line once",
        problems,
    )
    codes = {error.custom_id: error.code for error in errors}
    check(codes == EXPECTED, f"three precise errors: {codes}", problems)
    named = {error.custom_id: error.line for error in errors}
    check(named == lines, f"each names its line: {named}", problems)
    check(not wrong, f"summary.json agrees with DuckDB {'; '.join(wrong)}", problems)
    scored = sum(count for _, count, _ in rig.scored())
    return {
        "images": images,
        "succeeded": record.succeeded,
        "errors": {error.line: error.code for error in errors},
        "seconds": summary["seconds"],
        "worker_restarts": rig.restarts,
        "shards": summary["shards"],
        "scored_twice": max(0, scored - images + 1),  # the deadly one was never scored
        "computed_again_in_summary": summary["computed_again"],
        "problems": problems,
    }


def main() -> int:
    """Read the command line, run, and print the figures as JSON; 1 if a claim fails."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.runs.poison",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--images", type=int, default=5_000)
    parser.add_argument("--minutes", type=float, default=30.0, help="longest time of the run")
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # clean up, as after Ctrl-C
    isolate(os.environ)
    faulthandler.dump_traceback_later(options.minutes * 60 + 600, exit=True)
    report = prove(options.images, options.minutes)
    print(json.dumps(report, indent=1))
    return 1 if report["problems"] else 0


if __name__ == "__main__":
    sys.exit(main())
