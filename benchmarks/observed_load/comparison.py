"""Backlog at the endpoint beside the backlog in the ledger, at random moments."""

import random
import re
import threading
import time
import urllib.request
from collections import deque
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Final

from benchmarks.observed_load.scene import Scene
from labelyard.errors import LabelyardError
from labelyard.ledger import Ledger
from labelyard_worker import metrics
from labelyard_worker.operations.cached_read import FRESH_S

# The figures of a scrape may be as old as the leader's cache, and a scrape takes a moment.
SAMPLE_EVERY_S: Final = 0.02
#: Part of the time in which moments are drawn; the rest is for others in place of missed ones.
LATEST: Final = 0.95
LINE: Final = re.compile(rf"^{metrics.FLEET_BACKLOG.name}{{(.*)}} (\S+)$", re.MULTILINE)

Figures = Mapping[tuple[str, str], float]


@dataclass(frozen=True)
class Moment:
    """One comparison.

    Attributes:
        exported: Images at the endpoint, over all tenants and queues.
        lowest: Lowest sum in the ledger within the time that the scrape may be from.
        highest: Highest one.
        is_agreed: Whether each tenant's and queue's figure is one that the ledger had then.
    """

    at_s: float
    exported: float
    lowest: float
    highest: float
    is_agreed: bool


class BacklogComparison:
    """Reads the ledger all the time, and the endpoint at random moments."""

    def __init__(self, scene: Scene, ledger: Ledger) -> None:
        self._scene = scene
        self._ledger = ledger
        self._read: deque[tuple[float, Figures]] = deque(maxlen=int(10 / SAMPLE_EVERY_S))
        self._ended = threading.Event()
        self.moments: list[Moment] = []
        self.missed = 0

    @contextmanager
    def running(self, *, seconds: float, moments: int) -> Iterator[None]:
        """Compare *moments* times within *seconds*, while the block runs."""
        threads = [
            threading.Thread(target=self._sample),
            threading.Thread(target=self._compare_often, args=(seconds, moments)),
        ]
        for thread in threads:
            thread.start()
        try:
            yield
        finally:
            self._ended.set()
            for thread in threads:
                thread.join()

    def _sample(self) -> None:
        while not self._ended.wait(SAMPLE_EVERY_S):
            with suppress(LabelyardError):
                began_at = time.monotonic()
                backlog = self._ledger.backlog()
                figures = {
                    (key.tenant, key.queue): float(open_jobs.images)
                    for key, open_jobs in backlog.items()
                }
                self._read.append((began_at, figures))

    def _compare_often(self, seconds: float, moments: int) -> None:
        began_at = time.monotonic()
        due = sorted(random.uniform(FRESH_S + 1, LATEST * seconds) for _ in range(moments))
        for at_s in due:
            if self._ended.wait(max(0.0, began_at + at_s - time.monotonic())):
                return
            self._compare(at_s)
        while len(self.moments) < moments:  # in place of those that found no leader
            if self._ended.wait(random.uniform(0.5, 2.0)):
                return
            self._compare(time.monotonic() - began_at)

    def _compare(self, at_s: float) -> None:
        """Compare once; without a leader there is nothing to compare, so try again soon."""
        for _ in range(20):
            asked_at = time.monotonic()
            exported = self._scrape()
            if exported is not None:
                break
            if self._ended.wait(0.5):
                return
        else:
            self.missed += 1
            return
        self._ended.wait(3 * SAMPLE_EVERY_S)
        window = [
            figures
            for read_at, figures in list(self._read)
            if read_at > asked_at - FRESH_S - 2 * SAMPLE_EVERY_S
        ]
        sums = [sum(figures.values()) for figures in window]
        self.moments.append(
            Moment(
                round(at_s, 2),
                sum(exported.values()),
                min(sums),
                max(sums),
                is_within(exported, window),
            )
        )

    def _scrape(self) -> Figures | None:
        """Read the figures from the worker that leads; ``None`` if none does now."""
        for url in self._scene.metrics_urls():
            with suppress(OSError), urllib.request.urlopen(url, timeout=5) as answer:
                text = answer.read().decode()
                if f"{metrics.FLEET_UP.name} 1" in text:
                    return to_figures(text)
        return None


def to_figures(text: str) -> Figures:
    """Read the backlog out of the text of a scrape."""
    found: dict[tuple[str, str], float] = {}
    for labels, value in LINE.findall(text):
        named = dict(re.findall(r'(\w+)="([^"]*)"', labels))
        found[named["tenant"], named["queue"]] = float(value)
    return found


def is_within(exported: Figures, window: list[Figures]) -> bool:
    """Return whether each figure lies between the least and the most that the ledger had."""
    keys = {*exported, *(key for figures in window for key in figures)}
    return all(
        min(figures.get(key, 0.0) for figures in window)
        <= exported.get(key, 0.0)
        <= max(figures.get(key, 0.0) for figures in window)
        for key in keys
    )
