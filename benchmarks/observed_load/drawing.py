"""Drawing of one panel as SVG: lines or areas over time, axes and a legend."""

import html
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from deploy.grafana.dashboard import OWN_UNITS

from benchmarks.observed_load.figures import PanelData, Series

COLOURS: Final = (
    *("#3b6fb6", "#d9822b", "#4a9b5e", "#b5495b", "#7c63ad", "#8a6d4f", "#c66ba8", "#6b7280"),
    *("#a3a635", "#35a3b5", "#1f3d66", "#8c4f14"),
)
# Of one column of the dashboard's grid, in which a panel has a third of 24 at most.
COLUMN, HEIGHT = 58.0, 150.0
LEFT, RIGHT, TOP, BOTTOM = 52.0, 6.0, 6.0, 18.0
MOST_IN_LEGEND: Final = 10
PREFIXES: Final = ((1e9, "G"), (1e6, "M"), (1e3, "k"))


def draw_panel(data: PanelData, *, seconds: float) -> str:
    """Return a panel as HTML with an SVG inside."""
    panel = data.panel
    defaults = panel["fieldConfig"]["defaults"]
    unit = defaults["unit"].removeprefix("suffix: ")
    title = html.escape(panel["title"])
    width = COLUMN * panel["gridPos"]["w"]
    if panel["type"] == "stat":
        value = data.series[0].points[-1][1] if data.series else math.nan
        return f'<h3>{title}</h3><p class="stat">{written(value, unit)}</p>'
    if not data.series:
        return f'<h3>{title}</h3><p class="empty">No data</p>'
    is_stacked = defaults["custom"]["stacking"]["mode"] == "normal"
    series = sorted(data.series, key=lambda one: -max(value for _, value in one.points))
    if unit in OWN_UNITS:
        title, unit = f"{title} ({unit})", "short"
    chart = Chart(width, seconds, unit).draw(series, is_stacked=is_stacked)
    return f"<h3>{title}</h3>{chart}{legend(series)}"


@dataclass(frozen=True)
class Chart:
    """Axes and lines over time.

    Attributes:
        width: Of the whole chart, in pixels.
        seconds: Time from its left to its right end.
    """

    width: float
    seconds: float
    unit: str

    def draw(self, series: Sequence[Series], *, is_stacked: bool) -> str:
        """Return the SVG."""
        lines = stacked(series) if is_stacked else [dict(one.points) for one in series]
        top = rounded_up(max((max(line.values()) for line in lines if line), default=1.0) or 1.0)
        parts = [self._grid(top)]
        below: dict[float, float] = {}
        for number, line in enumerate(lines):
            colour = COLOURS[number % len(COLOURS)]
            path = self._path(line, top, sorted(line))
            if is_stacked:
                back = self._path(below, top, sorted(line, reverse=True))
                parts.append(f'<polygon points="{path} {back}" fill="{colour}" opacity=".75"/>')
                below = line
            else:
                parts.append(f'<polyline points="{path}" fill="none" stroke="{colour}"/>')
        return f'<svg viewBox="0 0 {self.width:g} {HEIGHT:g}">{"".join(parts)}</svg>'

    def _path(self, line: Mapping[float, float], top: float, times: Sequence[float]) -> str:
        points = ((self._x(at), y_of(line.get(at, 0.0), top)) for at in times)
        return " ".join(f"{x:.1f},{y:.1f}" for x, y in points)

    def _grid(self, top: float) -> str:
        """Return the lines behind the data, and their figures."""
        parts = []
        for value in (0.0, top / 2, top):
            y = y_of(value, top)
            parts.append(
                f'<line x1="{LEFT}" x2="{self.width - RIGHT}" y1="{y}" y2="{y}" class="grid"/>'
                f'<text x="{LEFT - 5}" y="{y + 3.5}" text-anchor="end">'
                f"{written(value, self.unit)}</text>"
            )
        step = max(1, math.ceil(self.seconds / 60 / 5))
        for minute in range(0, int(self.seconds // 60) + 1, step):
            x = self._x(minute * 60)
            anchor = "end" if x > self.width - 3 * RIGHT else "middle"
            parts.append(
                f'<text x="{x:.1f}" y="{HEIGHT - 4}" text-anchor="{anchor}">{minute} min</text>'
            )
        return "".join(parts)

    def _x(self, at_s: float) -> float:
        return LEFT + (self.width - LEFT - RIGHT) * at_s / self.seconds


def stacked(series: Sequence[Series]) -> list[dict[float, float]]:
    """Return each series on top of those before it; one without a value then counts as 0."""
    times = sorted({at for one in series for at, _ in one.points})
    sums = dict.fromkeys(times, 0.0)
    found = []
    for one in series:
        values = dict(one.points)
        sums = {at: sums[at] + values.get(at, 0.0) for at in times}
        found.append(sums)
    return found


def legend(series: Sequence[Series]) -> str:
    """Return the names of the first series with their colours."""
    names = [
        f'<span><i style="background:{COLOURS[number % len(COLOURS)]}"></i>'
        f"{html.escape(one.name or 'all')}</span>"
        for number, one in enumerate(series[:MOST_IN_LEGEND])
    ]
    if len(series) > MOST_IN_LEGEND:
        names.append(f"<span>and {len(series) - MOST_IN_LEGEND} more</span>")
    return f'<p class="legend">{"".join(names)}</p>'


def y_of(value: float, top: float) -> float:
    """Return the height of a value."""
    return HEIGHT - BOTTOM - (HEIGHT - TOP - BOTTOM) * value / top


def rounded_up(value: float) -> float:
    """Return the next 1, 2 or 5 times a power of ten."""
    power: float = 10.0 ** math.floor(math.log10(value))
    return next(step * power for step in (1, 2, 5, 10) if step * power >= value)


def written(value: float, unit: str) -> str:
    """Write a value with its unit, shortly."""
    if math.isnan(value):
        return "–"
    if unit == "percentunit":
        return f"{value * 100:.3g} %"
    if unit == "s" and value and value < 1:
        return f"{value * 1000:.3g} ms"
    factor, prefix = next((pair for pair in PREFIXES if abs(value) >= pair[0]), (1.0, ""))
    suffix = {"short": "", "bytes": "B"}.get(unit, unit)
    return f"{value / factor:.3g} {prefix}{suffix}".strip()
