"""Run mixed load on two workers, watch it, and report.

    python -m benchmarks.observed_load --minutes 10 --out observed-load

Two thirds of the time are the mixed load: every panel of the dashboard should move, and the
backlog at /metrics is compared with the ledger at 20 random moments. One third measures the
cost of being scraped. Written are report.json, dashboard.html and dashboard.png. It needs
Debian's package prometheus, and chromium for the picture.
"""

import argparse
import dataclasses
import faulthandler
import json
import os
import shutil
import signal
import sys
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from tests.support.prometheus import NOT_INSTALLED, is_installed
from tests.support.service import READY_WITHIN_S

from benchmarks.observed_load import picture
from benchmarks.observed_load.comparison import BacklogComparison
from benchmarks.observed_load.figures import PanelData, read_panels
from benchmarks.observed_load.scene import Scene, running_scene
from benchmarks.observed_load.scrape_cost import measure_cost
from benchmarks.observed_load.traffic import NAMESPACE, Traffic
from benchmarks.stack import isolate
from labelyard.ledger import Ledger, connect

LOAD_SHARE: Final = 2 / 3
MOMENTS: Final = 20
LONGEST_WINDOW_S: Final = 5.0
GRACE_S: Final = 300.0


def main() -> int:
    """Read the command line, run, and report; 1 if a panel is still or a moment disagrees."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.observed_load",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--minutes", type=float, default=10.0, help="length of the whole run")
    parser.add_argument("--out", type=Path, default=Path("observed-load"), help="folder to write")
    parser.add_argument("--scale", type=float, default=1.0, help="amount of bulk load")
    options = parser.parse_args()
    if not is_installed():
        print(NOT_INSTALLED, file=sys.stderr)
        return 2
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # clean up, as after Ctrl-C
    isolate(os.environ)
    faulthandler.dump_traceback_later(options.minutes * 60 + GRACE_S, exit=True)
    options.out.mkdir(parents=True, exist_ok=True)
    report = run(options)
    (options.out / "report.json").write_text(json.dumps(report, indent=2) + "\n")
    print_summary(report)
    return 0 if report["is_whole"] else 1


def run(options: argparse.Namespace) -> dict[str, Any]:
    """Run the load, then the measurement of the cost, then draw the picture."""
    load_s = options.minutes * 60 * LOAD_SHARE
    cost_s = options.minutes * 60 - load_s
    say("starting the servers and two workers")
    with running_scene() as scene:
        traffic = Traffic(scene, scale=options.scale)
        panels, comparison = watch(scene, traffic, seconds=load_s)
        (options.out / "dashboard.html").write_text(picture.page(panels, seconds=load_s))
        for worker in scene.workers:
            shutil.copy(worker.log_path, options.out / f"{worker.data_dir.name}.log")
        say(f"measuring the cost of a scrape each second for {cost_s:.0f} s")
        settle(scene)
        cost = measure_cost(
            scene,
            traffic.pictures,
            seconds=cost_s,
            window_s=min(LONGEST_WINDOW_S, cost_s / 8),
        )
    return {
        **verdicts(panels, comparison),
        "load_s": round(load_s, 1),
        "scraping": cost,
        "problems": Counter(traffic.problems),
        "picture": draw(options.out),
    }


def watch(
    scene: Scene, traffic: Traffic, *, seconds: float
) -> tuple[Sequence[PanelData | Mapping[str, Any]], BacklogComparison]:
    """Run the load for some seconds, and read what the dashboard shows of it."""
    settings = scene.service.client_settings(namespace=NAMESPACE)
    connection = connect(settings)
    comparison = BacklogComparison(scene, Ledger(connection, settings))
    say(f"load for {seconds:.0f} s")
    began_at = time.time()
    with traffic.running(), comparison.running(seconds=seconds - 3, moments=MOMENTS):
        time.sleep(seconds)
        ended_at = time.time()
    connection.close()
    return read_panels(scene.prometheus, start_s=began_at, end_s=ended_at), comparison


def settle(scene: Scene) -> None:
    """End all faults, start workers that are down, and cancel what is left of the load."""
    scene.faults.dripping, scene.faults.failing = set(), set()
    with scene.client(namespace=NAMESPACE) as client:
        client.cancel_all()
    for worker in scene.workers:
        if not worker.is_running():
            worker.kill()
            worker.start(within_s=READY_WITHIN_S)


def verdicts(
    panels: Sequence[PanelData | Mapping[str, Any]], comparison: BacklogComparison
) -> dict[str, Any]:
    """Return the panels that moved, and the number of moments at which the backlog agreed."""
    by_verdict: dict[str, list[str]] = {"moves": [], "constant": [], "empty": []}
    for one in panels:
        if isinstance(one, PanelData):
            by_verdict[one.verdict].append(one.panel["title"])
    agreed = sum(moment.is_agreed for moment in comparison.moments)
    is_moving = not by_verdict["constant"] and set(by_verdict["empty"]) <= {"Device memory"}
    return {
        "is_whole": is_moving and agreed == len(comparison.moments) == MOMENTS,
        "panels": by_verdict,
        "backlog": {
            "agreed": agreed,
            "moments": [dataclasses.asdict(moment) for moment in comparison.moments],
            "missed": comparison.missed,
        },
    }


def draw(folder: Path) -> str:
    """Draw the page as a picture, if there is a browser; say what became of it."""
    if picture.browser() is None:
        return "not drawn: chromium is not installed"
    path = folder / "dashboard.png"
    picture.photograph(folder / "dashboard.html", path, height_px=picture.height_px())
    return f"{path}, {path.stat().st_size} bytes"


def print_summary(report: Mapping[str, Any]) -> None:
    """Print the result in a few lines."""
    for verdict, titles in report["panels"].items():
        say(f"panels, {verdict}: {len(titles)}" + ("" if verdict == "moves" else f" {titles}"))
    backlog = report["backlog"]
    say(f"backlog agrees at {backlog['agreed']} of {len(backlog['moments'])} moments")
    say(f"scraping: {json.dumps(report['scraping'])}")
    say(f"problems of producers: {dict(report['problems'])}")
    say(f"picture: {report['picture']}")


def say(text: str) -> None:
    """Print a line at once."""
    print(text, flush=True)


if __name__ == "__main__":
    sys.exit(main())
