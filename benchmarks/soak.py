"""Memory over very many images, and the time from start to ready."""

from typing import Any

from benchmarks.checkpoints import LITE, ensure_checkpoint
from benchmarks.label_names import labels
from benchmarks.measure import OWN_STAGES, Say
from benchmarks.pictures import ensure_pictures
from benchmarks.processes import rss_bytes
from benchmarks.stack import Stack
from benchmarks.systems.labelyard import Labelyard, LabelyardWorker
from benchmarks.systems.system import Case, Engine

JOB_SIZE = 64
IMAGES_IN_A_ROUND = 20 * JOB_SIZE
TIMEOUT_S = 600.0
SETTLED_AFTER = 5_000
MEGAPIXELS = 0.02


def measure_soak(stack: Stack, *, images: int, say: Say) -> dict[str, Any]:
    """Send *images* small pictures through one worker on the lite checkpoint."""
    case = Case(labels(20), tuple(ensure_pictures(MEGAPIXELS)))
    stack.upload(case.pictures)
    worker = LabelyardWorker(stack, Engine(ensure_checkpoint(LITE)), title="soak")
    system = Labelyard(worker, job_size=JOB_SIZE)
    curve: list[tuple[int, int]] = []
    done = 0
    try:
        ready_s = worker.start()
        say(f"  start to ready on the lite checkpoint: {ready_s:.1f} s")
        while done < images:
            outcome = system.run(case, min(images, IMAGES_IN_A_ROUND), timeout_s=TIMEOUT_S)
            if outcome.errors:
                raise RuntimeError(f"{outcome.errors} images failed: {outcome.problems}")
            done += outcome.images
            stages = worker.stages()
            own = [pid for name in OWN_STAGES for pid in stages[name]]
            curve.append((done, rss_bytes(own)))
    finally:
        worker.stop()
    end = curve[-1][1]
    settled = next((rss for count, rss in curve if count >= SETTLED_AFTER), None)
    growth = None if settled is None else round(end / settled - 1, 4)
    if growth is not None:
        say(f"  memory after {done} images: {growth:+.1%} of that after {SETTLED_AFTER}")
    return {
        "start_to_ready_s": round(ready_s, 2),
        "images": done,
        "rss_bytes_settled": settled,
        "rss_bytes_end": end,
        "growth": growth,
        "curve": curve,
    }
