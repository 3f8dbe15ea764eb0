"""Cost of being scraped each second: throughput in alternating windows, and CPU of one scrape."""

import statistics
import threading
import time
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import count
from typing import Any, Final

from benchmarks.observed_load.scene import SCRAPE_EVERY_S, Scene
from benchmarks.processes import cpu_s
from labelyard import Client
from labelyard.queues import Queue

PRODUCERS: Final = 6
JOBS_AT_ONCE: Final = 3
IMAGES_IN_A_JOB: Final = 8
SETTLE_S: Final = 4.0
SCRAPES_FOR_CPU: Final = 200
LABELS: Final = ("a cat", "a dog", "a cup of coffee", "a rocket")
TIMEOUT_S: Final = 120.0


@dataclass(frozen=True)
class Pair:
    """Two windows side by side: images/s while scraped, and while not."""

    scraped: float
    alone: float

    @property
    def ratio(self) -> float:
        """Throughput while scraped, divided by that of the window beside it."""
        return self.scraped / self.alone


class ClosedLoop:
    """Producers that keep the workers busy, and count finished images with their times."""

    def __init__(self, scene: Scene, pictures: Sequence[str]) -> None:
        self._scene = scene
        self._pictures = pictures
        self._numbers = count()
        self._finished: list[float] = []
        self._ended = threading.Event()

    @contextmanager
    def running(self) -> Iterator[None]:
        """Run the producers while the block runs."""
        threads = [threading.Thread(target=self._produce) for _ in range(PRODUCERS)]
        for thread in threads:
            thread.start()
        try:
            yield
        finally:
            self._ended.set()
            for thread in threads:
                thread.join()

    def count_finished(self, *, start: float, end: float) -> int:
        """Count the images that were finished between two instants."""
        return sum(IMAGES_IN_A_JOB for at in list(self._finished) if start <= at < end)

    def _produce(self) -> None:
        with self._scene.client() as client:
            while not self._ended.is_set():
                self._submit_and_wait(client)

    def _submit_and_wait(self, client: Client) -> None:
        jobs = [
            client.prepare(
                [
                    self._pictures[next(self._numbers) % len(self._pictures)]
                    for _ in range(IMAGES_IN_A_JOB)
                ],
                LABELS,
                tenant="cost",
            )
            for _ in range(JOBS_AT_ONCE)
        ]
        handles = client.submit_many(jobs, queue=Queue.BULK)
        for _ in client.as_completed(handles, timeout_s=TIMEOUT_S):
            self._finished.append(time.monotonic())


def measure_cost(
    scene: Scene, pictures: Sequence[str], *, seconds: float, window_s: float
) -> dict[str, Any]:
    """Measure throughput in pairs of windows, the order turned round in each second pair.

    Prometheus is stopped meanwhile: its own CPU is not a cost of being scraped.
    """
    scene.prometheus.set_targets([])
    loop = ClosedLoop(scene, pictures)
    pairs: list[Pair] = []
    with loop.running():
        time.sleep(SETTLE_S)
        until = time.monotonic() + seconds
        for number in count():
            if time.monotonic() + 2 * window_s > until:
                break
            order = (True, False) if number % 2 else (False, True)
            rates = {
                is_scraped: measure_window(scene, loop, is_scraped=is_scraped, seconds=window_s)
                for is_scraped in order
            }
            pairs.append(Pair(scraped=rates[True], alone=rates[False]))
    return {**summary(pairs), "cpu": measure_cpu(scene), "window_s": window_s}


def measure_window(scene: Scene, loop: ClosedLoop, *, is_scraped: bool, seconds: float) -> float:
    """Return the images/s of one window."""
    start = time.monotonic()
    due = start
    while (now := time.monotonic()) < start + seconds:
        if is_scraped and now >= due:
            for url in scene.metrics_urls():
                scrape(url)
            due += SCRAPE_EVERY_S
        time.sleep(0.02)
    end = time.monotonic()
    return loop.count_finished(start=start, end=end) / (end - start)


def scrape(url: str) -> int:
    """Read the metrics of a worker; return their bytes."""
    with urllib.request.urlopen(url, timeout=10) as answer:
        return len(answer.read())


def measure_cpu(scene: Scene) -> dict[str, float]:
    """Return what one scrape costs an idle worker in CPU, beyond what it uses anyway."""
    worker = scene.workers[0]
    url = f"{worker.health_url}/metrics"
    began_at, before = time.monotonic(), cpu_s([worker.pid])
    size = 0
    for _ in range(SCRAPES_FOR_CPU):
        size = scrape(url)
    taken_s, used_s = time.monotonic() - began_at, cpu_s([worker.pid]) - before
    before = cpu_s([worker.pid])
    time.sleep(taken_s)
    idle_s = cpu_s([worker.pid]) - before
    each_s = (used_s - idle_s) / SCRAPES_FOR_CPU
    return {
        "bytes": size,
        "cpu_s_of_a_scrape": round(each_s, 5),
        "share_of_a_core_if_scraped_each_second": round(each_s / SCRAPE_EVERY_S, 5),
        "share_of_a_core_if_scraped_each_15_s": round(each_s / 15, 6),
    }


def summary(pairs: Sequence[Pair]) -> dict[str, Any]:
    """Describe the pairs: the median ratio, and its spread."""
    ratios = sorted(pair.ratio for pair in pairs if pair.alone)
    if len(ratios) < 2:
        return {"pairs": len(ratios), "why": "too short: give it more minutes"}
    lower, middle, upper = statistics.quantiles(ratios, n=4)
    error = statistics.stdev(ratios) / len(ratios) ** 0.5
    return {
        "pairs": len(ratios),
        "images_per_s_alone": round(statistics.median(pair.alone for pair in pairs), 2),
        "images_per_s_scraped": round(statistics.median(pair.scraped for pair in pairs), 2),
        "median_ratio": round(middle, 4),
        "quartiles": [round(lower, 4), round(upper, 4)],
        "mean_ratio": round(statistics.mean(ratios), 4),
        "standard_error": round(error, 4),
    }
