"""Picture of the dashboard: its panels with the data of a run, drawn as HTML, then as PNG.

Grafana draws the same queries with its own colours; it is not used here.
"""

import shutil
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from deploy.grafana import dashboard
from PIL import Image, ImageChops

from benchmarks.observed_load.drawing import draw_panel
from benchmarks.observed_load.figures import PanelData

BROWSERS: Final = ("chromium", "chromium-browser", "google-chrome")
WIDTH_PX: Final = 1480
COLOURS: Final = 96
DRAWN_WITHIN_S: Final = 120
NOTE: Final = (
    '<p class="note">{minutes} minutes of mixed load with faults on two workers. '
    "Drawn by benchmarks.observed_load from the dashboard's queries, not by Grafana.</p>"
)
STYLE: Final = """
body { margin: 0; padding: 14px; background: #f3f4f6; color: #1f2937;
  font: 12px/1.35 "DejaVu Sans", sans-serif; }
h1 { font-size: 17px; margin: 0 0 2px; } h2 { font-size: 13px; margin: 12px 0 6px; }
h3 { font-size: 11.5px; margin: 0 0 4px; }
.note { margin: 0; color: #4b5563; }
.row { display: grid; gap: 8px; grid-template-columns: repeat(24, 1fr); }
.panel { background: #fff; border: 1px solid #d9dce1; border-radius: 3px; padding: 7px 9px; }
.stat { font-size: 23px; margin: 2px 0; text-align: center; }
.empty { color: #6b7280; text-align: center; padding: 50px 0; margin: 0; }
svg { width: 100%; display: block; } svg text { font-size: 9.5px; fill: #6b7280; }
.grid { stroke: #e5e7eb; stroke-width: 1; }
.legend { margin: 2px 0 0; font-size: 10px; } .legend span { margin-right: 9px; }
.legend i { display: inline-block; width: 9px; height: 3px; margin: 0 4px 3px 0; }
"""


def page(panels: Sequence[PanelData | Mapping[str, Any]], *, seconds: float) -> str:
    """Return the dashboard as a page of HTML."""
    parts = [
        f'<!doctype html><meta charset="utf-8"><title>labelyard</title><style>{STYLE}</style>',
        "<h1>labelyard</h1>",
        NOTE.format(minutes=f"{seconds / 60:.1f}"),
    ]
    is_open = False
    for one in panels:
        if not isinstance(one, PanelData):
            parts.append("</div>" if is_open else "")
            parts.append(f'<h2>{one["title"]}</h2><div class="row">')
            is_open = True
            continue
        width = one.panel["gridPos"]["w"]
        drawn = draw_panel(one, seconds=seconds)
        parts.append(f'<div class="panel" style="grid-column: span {width}">{drawn}</div>')
    return "".join([*parts, "</div>"])


def browser() -> str | None:
    """Find a browser that can draw a page without a screen."""
    return next((path for name in BROWSERS if (path := shutil.which(name))), None)


def photograph(page_path: Path, picture_path: Path, *, height_px: int) -> None:
    """Draw a page with a browser, and keep it as PNG of few colours.

    Raises:
        subprocess.SubprocessError: The browser failed.
    """
    program = browser()
    assert program is not None
    with tempfile.TemporaryDirectory() as profile:
        raw = Path(profile) / "raw.png"
        subprocess.run(
            [
                *(program, "--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars"),
                *(f"--user-data-dir={profile}", f"--screenshot={raw}"),
                *(f"--window-size={WIDTH_PX},{height_px}", page_path.absolute().as_uri()),
            ],
            check=True,
            capture_output=True,
            timeout=DRAWN_WITHIN_S,
        )
        with Image.open(raw) as drawn:
            few = trimmed(drawn.convert("RGB")).quantize(COLOURS, dither=Image.Dither.NONE)
            few.save(picture_path, optimize=True)


def trimmed(picture: Image.Image) -> Image.Image:
    """Cut the empty rows at the end off."""
    background = picture.getpixel((0, picture.height - 1))
    plain = Image.new("RGB", picture.size, background)
    box = ImageChops.difference(picture, plain).getbbox()
    bottom = picture.height if box is None else min(picture.height, box[3] + 14)
    return picture.crop((0, 0, picture.width, bottom))


def height_px() -> int:
    """Return a height that the whole dashboard fits into."""
    places = [panel["gridPos"] for panel in dashboard.dashboard()["panels"]]
    return int(max(place["y"] + place["h"] for place in places) * 36)
