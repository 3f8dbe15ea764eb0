"""Scrapes of a worker's metrics, as Prometheus reads them."""

import urllib.request
from collections.abc import Mapping
from typing import Any

from prometheus_client.parser import text_string_to_metric_families

Sample = tuple[str, tuple[tuple[str, str], ...]]


class Scrape(dict[Sample, float]):
    """The samples of one scrape, by name and labels."""

    def value(self, name: str, **labels: str) -> float:
        """Sum the samples of a name that have these labels; 0 without one."""
        wanted = set(labels.items())
        return sum(
            value for (one, pairs), value in self.items() if one == name and wanted <= set(pairs)
        )

    def names(self) -> set[str]:
        """Return the names of all samples."""
        return {name for name, _ in self}


def scrape(url: str) -> Scrape:
    """Scrape ``/metrics`` of the worker whose probes are at *url*."""
    with urllib.request.urlopen(f"{url}/metrics", timeout=10) as answer:
        return parse(answer.read().decode())


def parse(text: str) -> Scrape:
    """Parse an exposition; a malformed one raises."""
    return Scrape(
        {
            (sample.name, tuple(sorted(sample.labels.items()))): sample.value
            for family in text_string_to_metric_families(text)
            for sample in family.samples
        }
    )


def parts_of(collected: Any) -> Mapping[str, Mapping[tuple[str, ...], float]]:
    """Return the values of collected gauges by name, and by the values of their labels."""
    return {
        family.name: {tuple(sample.labels.values()): sample.value for sample in family.samples}
        for family in collected
    }
