"""Write the demo's report: the results as JSON, and one self-contained page."""

import base64
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from labelyard.html_page import bar, html_page
from labelyard.markup import Markup, tag
from labelyard.messages import Result, ScoredLabel


class ReportEntry(Protocol):
    """One photograph of the report."""

    @property
    def name(self) -> str:
        """Name of the photograph's file."""

    @property
    def picture(self) -> bytes:
        """Bytes of the photograph's file."""

    @property
    def result(self) -> Result:
        """Result of the photograph as stored."""

    @property
    def seconds(self) -> float:
        """From submit to result."""


STYLE = """main { max-width: 70rem; margin: 0 auto; padding: 2.5rem 1.25rem }
h1 { margin: 0; font-size: 1.9rem; letter-spacing: -.02em }
.lead { margin: .25rem 0 2rem; color: var(--dim) }
.cards { display: grid; gap: 1.25rem; grid-template-columns: repeat(auto-fill, minmax(20rem, 1fr)) }
article { background: var(--card); border: 1px solid var(--line); border-radius: .75rem;
  overflow: hidden }
article img { display: block; width: 100%; aspect-ratio: 3 / 2; object-fit: cover;
  object-position: 50% 20% }
.body { padding: 1rem 1.1rem 1.1rem }
h2 { margin: 0; font-size: 1.15rem }
.meta { color: var(--dim); font-size: .85rem; margin: 0 0 .75rem }
.label { display: grid; grid-template-columns: 8.5rem 1fr 3rem; gap: .6rem; align-items: center;
  font-size: .9rem; margin: .3rem 0 }
.bar { display: block; width: 100%; height: .6rem; border-radius: .3rem; background: var(--rest) }
.bar rect { fill: var(--bar) }
.score { text-align: right; font-variant-numeric: tabular-nums; color: var(--dim) }
footer { margin-top: 2rem; color: var(--dim); font-size: .85rem; overflow-wrap: anywhere }
"""


def write_report(folder: Path, entries: Sequence[ReportEntry], *, credits_line: str = "") -> None:
    """Write ``results.json`` and ``index.html`` into *folder*.

    Args:
        credits_line: Credits of the photographs, which some licences require.
    """
    folder.mkdir(parents=True, exist_ok=True)
    results = [entry.result.model_dump(mode="json") for entry in entries]
    (folder / "results.json").write_text(json.dumps(results, indent=2) + "\n")
    (folder / "index.html").write_text(make_page(entries, credits_line=credits_line))


def make_page(entries: Sequence[ReportEntry], *, credits_line: str = "") -> str:
    """Return the HTML of the page."""
    model = entries[0].result.model
    about = (
        f"Model: {model.checkpoint}, {model.dtype} on {model.device}, {model.fingerprint}"
        if model
        else ""
    )
    lead = (
        f"{len(entries)} photographs, each scored against one set of everyday labels. "
        "Nobody trained a model for them: the labels are plain words."
    )
    body = tag(
        "main",
        tag("h1", "What is on the pictures"),
        tag("p", lead, class_="lead"),
        tag("div", map(make_card, entries), class_="cards"),
        tag("footer", tag("p", about), tag("p", credits_line)),
    )
    return html_page(title="labelyard: what is on the pictures", style=STYLE, body=body)


def make_card(entry: ReportEntry) -> Markup:
    """Return the HTML of one photograph's card."""
    image = entry.result.images[0]
    headline = image.labels[0].name if image.labels else str(image.error and image.error.message)
    kind = "png" if entry.picture.startswith(b"\x89PNG") else "jpeg"
    source = f"data:image/{kind};base64,{base64.b64encode(entry.picture).decode()}"
    meta = (
        f"{entry.name} · {image.width} × {image.height} px · "
        f"{entry.seconds * 1000:.0f} ms from submit to result"
    )
    words = tag(
        "div",
        tag("h2", headline),
        tag("p", meta, class_="meta"),
        map(make_bar, image.labels),
        class_="body",
    )
    return tag("article", tag("img", src=source, alt=entry.name), words)


def make_bar(label: ScoredLabel) -> Markup:
    """Return the HTML of one label's bar."""
    score = tag("span", f"{label.score:.2f}", class_="score")
    return tag("div", tag("span", label.name), bar(label.score), score, class_="label")
