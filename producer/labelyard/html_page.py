"""Frame of a self-contained HTML page: its head, its colours, and a policy against foreign code."""

import base64
import hashlib
from typing import Final

from labelyard.markup import Child, Markup, tag

#: Colours of every page, light and dark; each text colour has a contrast of 4.5 or more.
PALETTE: Final = """:root { color-scheme: light dark; --ink: #17202a; --dim: #566473;
  --paper: #f4f6f8; --card: #fff; --line: #e0e5ea; --bar: #2476b3; --rest: #d4e6f1;
  --link: #1b5f94; --good: #1a7a4c; --warn: #8a5a00; --bad: #b3261e; --hush: #eef2f5 }
@media (prefers-color-scheme: dark) { :root { --ink: #e8ecef; --dim: #9ba8b4;
  --paper: #10151a; --card: #1a2129; --line: #2b3640; --bar: #5dade2; --rest: #2c3e50;
  --link: #7cc0ee; --good: #63c795; --warn: #e6b450; --bad: #ff8a80; --hush: #222b34 } }
* { box-sizing: border-box }
html { -webkit-text-size-adjust: 100%; text-size-adjust: 100% }
body { margin: 0; background: var(--paper); color: var(--ink);
  font: 16px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, sans-serif }
"""


def content_policy(style: str) -> str:
    """Write the policy under which a page may use its own style and embedded pictures alone.

    Source: W3C Content Security Policy Level 3, section 2.3.1 (hash-source).
    """
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    return f"default-src 'none'; img-src data:; style-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'"


def html_page(*, title: str, style: str, body: Child) -> str:
    """Return a whole page.

    Args:
        style: CSS; it is trusted, and written after the palette.
        body: Content of ``<body>``.
    """
    css = PALETTE + style
    head = (
        tag("meta", charset="utf-8"),
        tag("meta", http_equiv="Content-Security-Policy", content=content_policy(css)),
        tag("meta", name="viewport", content="width=device-width, initial-scale=1"),
        tag("meta", name="color-scheme", content="light dark"),
        tag("meta", name="referrer", content="no-referrer"),
        tag("meta", name="robots", content="noindex"),
        tag("title", title),
        Markup(f"<style>{css}</style>"),
    )
    page = tag("html", tag("head", head), "\n", tag("body", body), lang="en")
    return f"<!doctype html>\n{page}\n"


def bar(share: float, *, class_: str = "bar") -> Markup:
    """Draw a horizontal bar without text; *share* is 0 to 1."""
    width = round(100 * min(1.0, max(0.0, share)), 1)
    return tag(
        "svg",
        tag("rect", width=width, height=8, rx=0),
        class_=class_,
        viewBox="0 0 100 8",
        preserveAspectRatio="none",
        aria_hidden="true",
    )
