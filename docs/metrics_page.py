"""Text of ``docs/metrics.md``, from the metrics of ``labelyard_worker/metrics.py``."""

from collections.abc import Iterator, Sequence
from typing import Final, NamedTuple

from prometheus_client import Counter, Histogram

from labelyard_worker import metrics
from labelyard_worker.metrics import ScrapedGauge

HEAD: Final = """\
# Metrics

<!-- Generated from worker/labelyard_worker/metrics.py and docs/metrics_page.py: change these, then run make docs. -->

A worker serves its metrics to Prometheus at `/metrics`, on the port of its probes: `LABELYARD_HEALTH_PORT`, 9464 by default, on 127.0.0.1 unless `LABELYARD_HEALTH_HOST` names another address. For the local stack, `labelyard-worker env` and `labelyard-worker status` print the address.

```bash
curl -s http://127.0.0.1:9464/metrics | grep labelyard_jobs_total
```

The format is Prometheus' text, or OpenMetrics if the scraper asks for it. Scrapers cannot starve the probes, and a slow or hostile one holds no thread of the worker.

## Scrape

```yaml
scrape_configs:
  - job_name: labelyard
    scrape_interval: 15s
    static_configs:
      - targets: ["gpu-1:9464", "gpu-2:9464"]
```

A worker must listen on an address that Prometheus can reach: set `LABELYARD_HEALTH_HOST=0.0.0.0` in a container, and let nothing but Prometheus and the probes reach the port: it has neither TLS nor a password, and its labels name your tenants. `labelyard-worker start --devices all` runs one worker process for each device, each with a port of its own, counted up from `LABELYARD_HEALTH_PORT`: a machine with four GPUs has the targets `gpu-1:9464` to `gpu-1:9467`. With port 0 each picks a free one, which its log names (`health_listens`) and no scraper can know.

## The figures of the fleet

Each worker counts what it did itself: `sum` over the workers gives the total. The `labelyard_fleet_` gauges are facts of the ledger and the broker, which are the same wherever they are read: the worker that leads the maintenance exports them, and no other does. While the lead changes, for some seconds none or two workers may export them. So take the maximum over the workers, never the sum:

```promql
max by (tenant, queue) (labelyard_fleet_backlog_images)
max(labelyard_fleet_oldest_job_seconds)
```

They are read at the scrape, at most every 2 s and for at most 1 s. If the ledger does not answer, `labelyard_fleet_up` is 0 and the others are absent, so that no graph shows an old figure as a new one. If no worker runs, or none has reached the ledger since it started, `labelyard_fleet_up` is absent too: alert on `absent(labelyard_fleet_up) or max(labelyard_fleet_up) == 0`.

**Scale on the backlog, not on the length of a queue.** A list's length counts messages, and a message carries 1 to 64 images. It leaves out messages that workers hold without having begun them, jobs that run, and retries that wait for their time; on a broker that lost its data it is 0 while the ledger still knows every job. And a worker that is added takes messages before it does any work: the list is empty, and the images wait all the same. `labelyard_fleet_backlog_images` counts the images of all jobs that are not final, in the unit in which a GPU's speed is measured.

## Bounds

The number of time series is bounded, whatever clients send. The label `tenant` takes at most `LABELYARD_METRICS_MAX_TENANTS` values (100 by default): counters name the first tenants that a worker sees, the backlog names the largest; all others are summed as `other`, and so are messages of which no tenant can be read. `outcome` and `code` take labelyard's [error codes](errors.md) only. Buckets, hosts, job ids, label sets and addresses are never labels; the log has them.

`python -m benchmarks.metrics_cost` measures what metrics cost. On two busy cores of a virtual machine, all observations of a job of one image took 29 µs of CPU, 0.6 % of the 5 ms that such a job takes; one scrape of the leader took 7 ms with 10 tenants and 14 ms with 100, which is under 0.1 % of a core at a scrape every 15 s.

A worker whose counters are young starts at 0: use `rate` and `increase`, which know restarts. `process_*` describes the worker's own process, without its intake children.
"""
COLUMNS: Final = "| name | type | labels | unit | meaning |\n|---|---|---|---|---|"
UNITS: Final = ("seconds", "bytes", "ratio", "images", "jobs", "messages")


class MetricEntry(NamedTuple):
    """One metric as the page lists it."""

    name: str
    kind: str
    labels: Sequence[str]
    documentation: str


def counted() -> Iterator[MetricEntry]:
    """Yield the counters and histograms, in the order of their file."""
    for metric in vars(metrics).values():
        if isinstance(metric, Counter | Histogram):
            (family,) = metric.describe()
            name = f"{family.name}_total" if family.type == "counter" else family.name
            yield MetricEntry(name, family.type, metric._labelnames, family.documentation)  # noqa: SLF001


def scraped(gauges: Sequence[ScrapedGauge]) -> Iterator[MetricEntry]:
    """Yield the gauges that are read at the scrape."""
    for gauge in gauges:
        yield MetricEntry(gauge.name, "gauge", gauge.labels, gauge.documentation)


def unit_of(name: str) -> str:
    """Read the unit off a metric's name, as Prometheus' conventions have it."""
    words = name.removesuffix("_total").split("_")
    return next((unit for unit in UNITS if unit in words), "number")


def section(heading: str, entries: Iterator[MetricEntry]) -> str:
    """Write the table of one exporter's metrics."""
    rows = [
        f"| `{entry.name}` | {entry.kind} | {', '.join(f'`{each}`' for each in entry.labels)} "
        f"| {unit_of(entry.name)} | {entry.documentation} |"
        for entry in entries
    ]
    return "\n".join([f"## {heading}\n", COLUMNS, *rows]) + "\n"


def metrics_page() -> str:
    """Write docs/metrics.md."""
    return "\n".join(
        [
            HEAD,
            section("Each worker: counters and histograms", counted()),
            section("Each worker: gauges", scraped(metrics.WORKER_GAUGES)),
            section("The leader: the whole fleet", scraped(metrics.FLEET_GAUGES)),
        ]
    )
