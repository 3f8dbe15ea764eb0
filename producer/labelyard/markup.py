"""HTML that is built from elements: every text is escaped, unless it is markup itself."""

import html
import re
from collections.abc import Iterable
from typing import Final

# Characters that a browser drops, acts on or cannot encode: controls, and lone surrogates.
_UNPRINTABLE: Final = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ud800-\udfff\ufffe\uffff]")
# Characters that turn the direction of the text behind them.
_TURNING: Final = re.compile(r"[\u200e\u200f\u202a-\u202e\u2066-\u2069]")
_VOID: Final = frozenset({"br", "img", "meta", "rect", "line", "path", "circle"})
# No element with code of its own can be made: such markup has no use here.
_REFUSED: Final = frozenset({"script", "iframe", "object", "embed", "base", "form"})
# An address leads to a place of the page, or is a picture within it.
_TARGETS: Final = {"href": "#", "src": "data:image/"}
_NAME: Final = re.compile(r"[a-zA-Z][a-zA-Z0-9-]*")

Attribute = str | int | float | bool | None


class Markup(str):
    """A text that is HTML already, and is not escaped again."""

    __slots__ = ()


Child = str | int | Iterable["Child"] | None


def printable(text: str, *, limit: int | None = None) -> str:
    """Replace the characters that a page must not contain, and cut a long text.

    Args:
        limit: Most characters to keep; the last one becomes an ellipsis.
    """
    if limit is not None and len(text) > limit:
        text = f"{text[: limit - 1]}…"
    return _UNPRINTABLE.sub("\ufffd", _TURNING.sub("\ufffd", text))


def join(*children: Child) -> Markup:
    """Join children into markup: texts are escaped, nested sequences are flattened."""
    return Markup("".join(_pieces(children)))


def _pieces(children: Iterable[Child]) -> Iterable[str]:
    for child in children:
        if isinstance(child, Markup):
            yield child
        elif isinstance(child, str):
            yield html.escape(printable(child))
        elif isinstance(child, int):
            yield str(child)
        elif child is not None:
            yield from _pieces(child)


def tag(name: str, /, *children: Child, **attributes: Attribute) -> Markup:
    """Make an element.

    Args:
        name: Name of the element.
        children: Its content; texts are escaped.
        attributes: Their names; a trailing underscore is dropped, others become hyphens
            (``class_``, ``aria_label``). ``None`` and ``False`` leave the attribute out.

    Raises:
        ValueError: The element or an attribute could run code.
    """
    if name in _REFUSED or not _NAME.fullmatch(name):
        raise ValueError(f"<{name}> has no use in a page that runs no code")
    start = f"<{name}{''.join(map(_attribute, attributes.items()))}>"
    if name in _VOID:
        return Markup(f"{start[:-1]}/>")  # elements of SVG need the slash
    return Markup(f"{start}{join(*children)}</{name}>")


def _attribute(item: tuple[str, Attribute]) -> str:
    name, value = item
    if value is None or value is False:
        return ""
    name = name.rstrip("_").replace("_", "-")
    if name.startswith("on") or name == "style" or not _NAME.fullmatch(name):
        raise ValueError(f"the attribute {name} has no use in a page that runs no code")
    if value is True:
        return f" {name}"
    shown = f"{value:g}" if isinstance(value, float) else str(value)
    if not shown.startswith(_TARGETS.get(name, "")):
        raise ValueError(f"the attribute {name} leads out of the page")
    return f' {name}="{html.escape(printable(shown))}"'


def foreign(text: str, *, limit: int = 200) -> Markup:
    """Write a text of unknown origin: cut, escaped, and kept from turning the text around it."""
    return tag("bdi", printable(text, limit=limit))
