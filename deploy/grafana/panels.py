"""Panels of the dashboard: what each one asks Prometheus, its unit, and one sentence on it."""

from dataclasses import dataclass
from typing import Final, Literal

# Prometheus instances may scrape several installations: each query keeps to the chosen ones.
FLEET: Final = 'job=~"$job"'
WORKER: Final = f'{FLEET}, instance=~"$instance"'
TENANT: Final = f'{WORKER}, tenant=~"$tenant"'
WINDOW: Final = "$__rate_interval"

Unit = Literal["short", "percentunit", "s", "bytes", "images/s", "jobs/s", "1/s"]


@dataclass(frozen=True, slots=True)
class Query:
    """One query, and the name of its series in the legend."""

    expression: str
    legend: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Panel:
    """One panel.

    Attributes:
        description: One sentence for an operator: what it shows, and when to look closer.
        kind: ``timeseries``, or ``stat`` for one present number.
        is_stacked: Whether the series add up to something.
        may_be_empty: Whether a healthy fleet can have no series at all: a GPU's memory on a
            CPU, or errors that did not happen.
    """

    title: str
    description: str
    unit: Unit
    queries: tuple[Query, ...]
    kind: Literal["timeseries", "stat"] = "timeseries"
    is_stacked: bool = False
    may_be_empty: bool = False


def rate(metric: str, by: str, *, where: str = WORKER) -> str:
    """Return the rate of a counter in 1/s, by some labels."""
    return f"sum by ({by}) (rate({metric}{{{where}}}[{WINDOW}]))"


def mean(histogram: str, by: str = "") -> str:
    """Return the mean of the observations of a histogram."""
    group = f"sum by ({by})" if by else "sum"
    total, count = (
        f"{group} (rate({histogram}_{part}{{{WORKER}}}[{WINDOW}]))" for part in ("sum", "count")
    )
    return f"{total} / {count}"


def quantile(share: float, histogram: str, by: str = "", *, where: str = WORKER) -> str:
    """Return a quantile of a histogram, by some labels."""
    labels = f"le, {by}" if by else "le"
    buckets = f"rate({histogram}_bucket{{{where}}}[{WINDOW}])"
    return f"histogram_quantile({share:g}, sum by ({labels}) ({buckets}))"


def quantiles(histogram: str, by: str = "", *, where: str = WORKER) -> tuple[Query, Query]:
    """Return the median and the 95th percentile of a histogram."""
    name = " ".join(f"{{{{{label.strip()}}}}}" for label in by.split(",") if label) or "all"
    return (
        Query(quantile(0.5, histogram, by, where=where), f"{name} p50"),
        Query(quantile(0.95, histogram, by, where=where), f"{name} p95"),
    )


def fleet(gauge: str, by: str = "", *, where: str = FLEET) -> str:
    """Return a figure of the whole fleet: two workers may both lead for a moment."""
    labels = f"job, {by}" if by else "job"
    group = f"sum by ({by})" if by else "sum"
    return f"{group} (max by ({labels}) ({gauge}{{{where}}}))"


def backlog(by: str) -> str:
    """Return the images of jobs that are not final."""
    figure = f'labelyard_fleet_backlog_images{{{FLEET}, tenant=~"$tenant", queue=~"$queue"}}'
    group = f"sum by ({by})" if by else "sum"
    return f"{group} (max by (job, tenant, queue) ({figure}))"


def share(metric: str, *, of: str, label: str = "result") -> str:
    """Return the part of a counter's events whose label matches the pattern *of*."""
    part = rate(metric, "job", where=f'{WORKER}, {label}=~"{of}"')
    return f"sum({part}) / sum({rate(metric, 'job')})"
