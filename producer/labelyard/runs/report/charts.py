"""Charts as SVG paths, one path a chart: histograms of scores, and throughput."""

from collections.abc import Sequence
from typing import Final

from labelyard.html_page import bar
from labelyard.markup import Markup, tag

DRAWN_BINS: Final = 25
#: Heights of the two halves of a double histogram, and of the axis between them.
UPPER, AXIS, LOWER = 42.0, 3.0, 25.0

__all__ = ["area", "bar", "double_histogram", "histogram", "sparkline"]


def merged(counts: Sequence[int], bins: int = DRAWN_BINS) -> list[int]:
    """Merge bins into fewer; their number must be a divisor."""
    step = len(counts) // bins
    return [sum(counts[place * step : (place + 1) * step]) for place in range(bins)]


def _bars(counts: Sequence[int], *, base: float, height: float) -> str:
    """Return the path of bars from *base* upwards, or downwards if *height* is negative."""
    most, width = max(counts, default=0), 100 / max(1, len(counts))
    parts = []
    for place, number in enumerate(counts):
        if number:
            # A single picture among many thousands is still seen.
            tall = max(abs(height) * number / most, 0.8) * (1 if height > 0 else -1)
            left, wide = place * width + 0.06 * width, 0.88 * width
            parts.append(f"M{left:.2f} {base:.2f}v{-tall:.2f}h{wide:.2f}v{tall:.2f}z")
    return "".join(parts)


def _chart(*shapes: Markup | None, height: float, class_: str, label: str | None) -> Markup:
    return tag(
        "svg",
        *shapes,
        class_=f"chart {class_}",
        viewBox=f"0 0 100 {height:g}",
        preserveAspectRatio="none",
        role="img" if label else None,
        aria_label=label,
        aria_hidden=None if label else "true",
    )


def histogram(counts: Sequence[int], *, label: str) -> Markup:
    """Draw scores of 0 to 1 from left to right; *label* is for those who do not see it."""
    path = tag("path", class_="best", d=_bars(merged(counts), base=UPPER, height=UPPER))
    axis = tag("rect", class_="axis", x=0, y=UPPER, width=100, height=0.6)
    return _chart(path, axis, height=UPPER + 1, class_="single", label=label)


def double_histogram(
    best: Sequence[int], other: Sequence[int], *, threshold: float | None, label: str
) -> Markup:
    """Draw two histograms on one axis, each on a scale of its own: *best* up, *other* down."""
    line = None
    if threshold is not None:
        x, bottom = 100 * min(1.0, threshold), UPPER + AXIS + LOWER
        line = tag("line", class_="threshold", x1=x, x2=x, y1=0, y2=bottom)
    below = UPPER + AXIS
    return _chart(
        tag("path", class_="best", d=_bars(merged(best), base=UPPER, height=UPPER)),
        tag("rect", class_="axis", x=0, y=UPPER + AXIS / 2 - 0.3, width=100, height=0.6),
        tag("path", class_="other", d=_bars(merged(other), base=below, height=-LOWER)),
        line,
        height=below + LOWER,
        class_="double",
        label=label,
    )


def sparkline(counts: Sequence[int]) -> Markup:
    """Draw a small histogram beside a number that says the same in words."""
    path = tag("path", class_="best", d=_bars(merged(counts, 20), base=20, height=20))
    return _chart(path, height=20, class_="spark", label=None)


def area(values: Sequence[float], *, label: str) -> Markup:
    """Draw values over time as steps."""
    most, width = max(values, default=0.0) or 1.0, 100 / max(1, len(values))
    tops = [UPPER - UPPER * value / most for value in values]
    steps = "".join(
        f"L{place * width:.2f} {top:.2f}H{(place + 1) * width:.2f}"
        for place, top in enumerate(tops)
    )
    path = tag("path", class_="best soft", d=f"M0 {UPPER:g}{steps}L100 {UPPER:g}z")
    axis = tag("rect", class_="axis", x=0, y=UPPER, width=100, height=0.6)
    return _chart(path, axis, height=UPPER + 1, class_="single", label=label)
