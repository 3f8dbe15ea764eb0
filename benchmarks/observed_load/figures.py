"""Data of every panel of the dashboard over a run, and whether it moved."""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from deploy.grafana import dashboard
from tests.support.prometheus import PrometheusServer

STEPS: Final = 240
WINDOW_S: Final = 20


@dataclass(frozen=True)
class Series:
    """One line of a panel: its name, and its values by seconds since the start."""

    name: str
    points: tuple[tuple[float, float], ...]

    @property
    def is_moving(self) -> bool:
        """Whether it has more than one value."""
        return len({value for _, value in self.points}) > 1


@dataclass(frozen=True)
class PanelData:
    """A panel of the dashboard's JSON, and its series."""

    panel: Mapping[str, Any]
    series: tuple[Series, ...]

    @property
    def verdict(self) -> str:
        """``moves``, ``constant`` or ``empty``."""
        if not self.series:
            return "empty"
        return "moves" if any(one.is_moving for one in self.series) else "constant"


def read_panels(
    prometheus: PrometheusServer, *, start_s: float, end_s: float
) -> list[PanelData | Mapping[str, Any]]:
    """Evaluate every query of the dashboard; rows are returned as they are in the JSON.

    Args:
        start_s: Start of the time, in seconds since the epoch.
    """
    step_s = max(1.0, (end_s - start_s) / STEPS)
    found: list[PanelData | Mapping[str, Any]] = []
    for panel in dashboard.dashboard()["panels"]:
        if panel["type"] == "row":
            found.append(panel)
            continue
        series: list[Series] = []
        for target in panel["targets"]:
            expression = filled_in(target["expr"])
            answer = prometheus.query_range(expression, start_s=start_s, end_s=end_s, step_s=step_s)
            series += [to_series(one, target["legendFormat"], start_s) for one in answer]
        found.append(PanelData(panel, tuple(one for one in series if one.points)))
    return found


def filled_in(expression: str) -> str:
    """Replace Grafana's variables in a query: each choice by all its values, the window by one."""
    return re.sub(
        r"\$(\w+)",
        lambda found: f"{WINDOW_S}s" if found[1] == "__rate_interval" else ".*",
        expression,
    )


def to_series(answer: Mapping[str, Any], legend: str, start_s: float) -> Series:
    """Name a series as its legend says, without values that are not numbers."""
    labels = answer["metric"]
    name = re.sub(r"{{(\w+)}}", lambda found: labels.get(found[1], ""), legend).strip()
    points = ((float(at) - start_s, float(value)) for at, value in answer["values"])
    return Series(name, tuple(point for point in points if math.isfinite(point[1])))
