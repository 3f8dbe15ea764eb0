"""Metrics of a worker that has done a bit of everything, for queries to be tried on."""

import itertools
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Final

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Histogram,
    ProcessCollector,
    generate_latest,
)

from labelyard_worker import metrics, observations

# Values of the labels that queries look for; any other label gets one value of its own.
VALUES: Final = {
    "outcome": ("succeeded", "partial", "image_not_found", "delivered", "failed", "postponed"),
    "verdict": ("finish", "retry", "postpone", "count_death"),
    "code": ("", "storage_unavailable"),
    "stage": observations.STAGES,
    "priority": ("interactive", "bulk"),
    "queue": ("interactive", "bulk"),
    "tower": ("image", "text"),
    "result": ("memory", "shared", "miss", "hit"),
    "reason": ("retry", "lost", "died"),
    "state": ("open", "probing"),
}


class Fleet:
    """Every metric of ``metrics.py`` under its name and labels, in a registry of its own."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        ProcessCollector(registry=self._registry)
        self._metrics = [
            type(metric)(
                metric._name, metric._documentation, metric._labelnames, registry=self._registry
            )
            for metric in vars(metrics).values()
            if isinstance(metric, Counter | Histogram)
        ]
        self._gauges = [*metrics.WORKER_GAUGES, *metrics.FLEET_GAUGES]

    def move(self) -> None:
        """Have each counter and histogram grow."""
        for metric in self._metrics:
            for labels in combinations(metric._labelnames):
                child = metric.labels(*labels) if labels else metric
                child.inc() if isinstance(metric, Counter) else child.observe(0.2)

    def text(self) -> bytes:
        """Return the exposition that a scrape of a worker reads."""
        gauges = CollectorRegistry()
        for gauge in self._gauges:
            family = gauge.family(dict.fromkeys(combinations(gauge.labels), 1.0))
            gauges.register(_Collected(family))
        return bytes(generate_latest(self._registry) + generate_latest(gauges))


class _Collected:
    """Collector of one family that was read already."""

    def __init__(self, family: object) -> None:
        self._family = family

    def collect(self) -> Iterator[object]:
        """Yield the family."""
        yield self._family


def combinations(labels: tuple[str, ...]) -> Iterator[tuple[str, ...]]:
    """Yield every combination of values of some labels."""
    return itertools.product(*(VALUES.get(label, (f"a {label}",)) for label in labels))


@contextmanager
def served(fleet: Fleet) -> Iterator[str]:
    """Serve the metrics over HTTP while the block runs; yields ``host:port``."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            fleet.move()
            self.send_response(200)
            self.send_header("content-type", "text/plain; version=0.0.4; charset=utf-8")
            self.end_headers()
            self.wfile.write(fleet.text())

        def log_message(self, *_: object) -> None:
            """Keep silent."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
