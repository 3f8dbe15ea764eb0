"""Horizontal bars, as SVG text and as a PNG, without a plotting library."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from html import escape

from PIL import Image, ImageDraw, ImageFont

WIDTH_PX = 900
NAME_PX = 200
VALUE_PX = 90
BAR_PX = 18
GAP_PX = 6
TITLE_PX = 34
MARGIN_PX = 16
SCALE = 2  # of the PNG, for screens with small pixels
COLOURS = {"labelyard": "#1f6f8b", "limit": "#b0b7bd"}
OTHER_COLOUR = "#d98f4e"
INK = "#222222"


@dataclass(frozen=True, slots=True)
class Group:
    """One case of the chart, with its systems' figures."""

    title: str
    bars: tuple[tuple[str, float], ...]


@dataclass(frozen=True, slots=True)
class Mark:
    """Something to draw: a bar if it has a width, else words."""

    x: float
    y: float
    text: str = ""
    width: float = 0.0
    colour: str = INK
    is_title: bool = False


def as_svg(groups: Sequence[Group]) -> str:
    """Draw the groups below each other; each has a scale of its own."""
    marks, height = _lay_out(groups)
    body = "\n".join(_svg_mark(mark) for mark in marks)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH_PX} {height:.0f}" '
        'font-family="sans-serif" font-size="13">\n'
        "<title>Images per second</title>\n"
        f'<rect width="100%" height="100%" fill="white"/>\n{body}\n</svg>\n'
    )


def as_png(groups: Sequence[Group]) -> Image.Image:
    """Draw the groups as pixels of a PNG."""
    marks, height = _lay_out(groups)
    image = Image.new("RGB", (WIDTH_PX * SCALE, int(height) * SCALE), "white")
    draw = ImageDraw.Draw(image)
    font = ImageFont.load_default(13 * SCALE)
    for mark in marks:
        x, y = mark.x * SCALE, mark.y * SCALE
        if mark.text:
            draw.text((x, y), mark.text, fill=mark.colour, font=font, anchor="lm")
        else:
            half = BAR_PX * SCALE / 2
            draw.rectangle((x, y - half, x + mark.width * SCALE, y + half), fill=mark.colour)
    return image


def _lay_out(groups: Sequence[Group]) -> tuple[list[Mark], float]:
    marks: list[Mark] = []
    y = float(MARGIN_PX)
    for group in groups:
        marks.append(Mark(MARGIN_PX, y + TITLE_PX / 2, group.title + ", images/s", is_title=True))
        y += TITLE_PX
        marks += _bars(group, y)
        y += len(group.bars) * (BAR_PX + GAP_PX) + MARGIN_PX
    return marks, y + MARGIN_PX


def _bars(group: Group, top: float) -> Iterator[Mark]:
    longest = max((value for _, value in group.bars), default=0.0) or 1.0
    room = WIDTH_PX - NAME_PX - VALUE_PX - 2 * MARGIN_PX
    for row, (name, value) in enumerate(group.bars):
        y = top + row * (BAR_PX + GAP_PX) + BAR_PX / 2
        width = max(1.0, room * value / longest)
        left = MARGIN_PX + NAME_PX
        yield Mark(MARGIN_PX, y, name)
        yield Mark(left, y, width=width, colour=COLOURS.get(name.partition("_")[0], OTHER_COLOUR))
        yield Mark(left + width + 8, y, f"{value:.1f}")


def _svg_mark(mark: Mark) -> str:
    if not mark.text:
        return (
            f'<rect x="{mark.x:.1f}" y="{mark.y - BAR_PX / 2:.1f}" width="{mark.width:.1f}" '
            f'height="{BAR_PX}" fill="{mark.colour}"/>'
        )
    weight = ' font-weight="bold"' if mark.is_title else ""
    return (
        f'<text x="{mark.x:.1f}" y="{mark.y:.1f}" dominant-baseline="middle" '
        f'fill="{mark.colour}"{weight}>{escape(mark.text)}</text>'
    )
