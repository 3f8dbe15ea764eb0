"""Curves of an evaluation as SVG: reliability, and risk over coverage."""

from collections.abc import Sequence
from typing import Final

from labelyard.evaluation.figures import ReliabilityBin, RiskPoint
from labelyard.markup import Child, Markup, join, tag

SIDE: Final = 100.0
TICKS: Final = (0.25, 0.5, 0.75)
#: Points that a line is drawn through.
DRAWN_POINTS: Final = 300


def reliability_chart(curve: Sequence[ReliabilityBin], *, label: str) -> Markup:
    """Draw accuracy over confidence, with an interval for each bin; the diagonal is ideal.

    Args:
        label: For those who do not see it.
    """
    spans = [
        tag(
            "line",
            class_="interval",
            x1=_x(one.confidence),
            x2=_x(one.confidence),
            y1=_y(one.interval[0]),
            y2=_y(one.interval[1]),
        )
        for one in curve
    ]
    line = tag("path", class_="curve", d=_path([(one.confidence, one.accuracy) for one in curve]))
    dots = [
        tag("circle", class_="dot", cx=_x(one.confidence), cy=_y(one.accuracy), r=1.7)
        for one in curve
    ]
    ideal = tag("line", class_="ideal", x1=0, y1=SIDE, x2=SIDE, y2=0)
    return _chart(ideal, spans, line, dots, label=label)


def risk_chart(curve: Sequence[RiskPoint], *, highest: float, label: str) -> Markup:
    """Draw the share of errors over the share of the pictures that are kept.

    Args:
        highest: Share of errors at the upper edge.
        label: For those who do not see it.
    """
    step = max(1, len(curve) // DRAWN_POINTS)
    points = [*curve[:-1:step], curve[-1]]
    drawn = _path([(one.coverage, one.risk / highest) for one in points])
    return _chart(tag("path", class_="curve", d=drawn), label=label)


def plot(chart: Markup, *, top: str, below: Sequence[str], caption: Child) -> Markup:
    """Put a chart between the words of its axes.

    Args:
        top: Name of the upward axis with its largest value.
        below: Words below the other axis, from left to right.
    """
    ends = [tag("span", text) for text in below]
    return tag(
        "figure",
        tag("p", top, class_="axis-top", aria_hidden="true"),
        chart,
        tag("p", ends, class_="axis-text", aria_hidden="true"),
        tag("figcaption", caption),
        class_="scores plot",
    )


def _chart(*drawn: Child, label: str) -> Markup:
    grid = [
        join(
            tag("line", class_="grid-line", x1=_x(at), x2=_x(at), y1=0, y2=SIDE),
            tag("line", class_="grid-line", x1=0, x2=SIDE, y1=_y(at), y2=_y(at)),
        )
        for at in TICKS
    ]
    frame = tag("rect", class_="plot-frame", x=0, y=0, width=SIDE, height=SIDE)
    return tag(
        "svg",
        frame,
        grid,
        *drawn,
        class_="square",
        viewBox="-2 -2 104 104",
        role="img",
        aria_label=label,
    )


def _x(value: float) -> float:
    return round(SIDE * value, 2)


def _y(value: float) -> float:
    return round(SIDE * (1 - value), 2)


def _path(points: Sequence[tuple[float, float]]) -> str:
    return "M" + "L".join(f"{_x(x):g} {_y(min(1.0, y)):g}" for x, y in points)
