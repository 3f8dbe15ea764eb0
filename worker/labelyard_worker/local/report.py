"""Write the demo's report: the results as JSON, and one self-contained page."""

import base64
import html
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

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


STYLE = """
:root { color-scheme: light dark; --ink: #17202a; --dim: #5d6d7e; --paper: #f4f6f8;
  --card: #fff; --bar: #2e86c1; --rest: #d4e6f1; --line: #e5e8eb }
@media (prefers-color-scheme: dark) { :root { --ink: #eaecee; --dim: #99a3ad;
  --paper: #11161b; --card: #1b232b; --bar: #5dade2; --rest: #2c3e50; --line: #2a343d } }
* { box-sizing: border-box }
body { margin: 0; background: var(--paper); color: var(--ink);
  font: 16px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, sans-serif }
main { max-width: 70rem; margin: 0 auto; padding: 2.5rem 1.25rem }
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
.track { background: var(--rest); border-radius: .3rem; height: .6rem; overflow: hidden }
.track span { display: block; height: 100%; background: var(--bar); border-radius: .3rem }
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
        f"Model: {html.escape(model.checkpoint)}, {model.dtype} on {model.device}, "
        f"{model.fingerprint}"
        if model
        else ""
    )
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>labelyard: what is on the pictures</title>
<style>{STYLE}</style>
</head>
<body>
<main>
<h1>What is on the pictures</h1>
<p class="lead">{len(entries)} photographs, each scored against one set of everyday labels.
Nobody trained a model for them: the labels are plain words.</p>
<div class="cards">
{"".join(make_card(entry) for entry in entries)}
</div>
<footer><p>{about}</p><p>{html.escape(credits_line)}</p></footer>
</main>
</body>
</html>
"""


def make_card(entry: ReportEntry) -> str:
    """Return the HTML of one photograph's card."""
    image = entry.result.images[0]
    headline = image.labels[0].name if image.labels else str(image.error and image.error.message)
    kind = "png" if entry.picture.startswith(b"\x89PNG") else "jpeg"
    source = f"data:image/{kind};base64,{base64.b64encode(entry.picture).decode()}"
    return f"""<article>
<img src="{source}" alt="{html.escape(entry.name)}">
<div class="body">
<h2>{html.escape(headline)}</h2>
<p class="meta">{html.escape(entry.name)} · {image.width} × {image.height} px ·
{entry.seconds * 1000:.0f} ms from submit to result</p>
{"".join(make_bar(label) for label in image.labels)}
</div>
</article>
"""


def make_bar(label: ScoredLabel) -> str:
    """Return the HTML of one label's bar."""
    return (
        f'<div class="label"><span>{html.escape(label.name)}</span>'
        f'<span class="track"><span style="width:{label.score * 100:.1f}%"></span></span>'
        f'<span class="score">{label.score:.2f}</span></div>\n'
    )
