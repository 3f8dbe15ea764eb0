"""A result as an HTML table, as notebooks show it; every text in it is foreign and is escaped."""

from html import escape
from typing import Any, Final

from labelyard.messages.short_forms import cut

MAX_NAME_CHARS: Final = 80
MAX_MESSAGE_CHARS: Final = 200
LABELS_SHOWN: Final = 3
HEAD: Final = "<thead><tr><th>image</th><th>label</th><th>score</th><th>then</th></tr></thead>"


def result_html(result: Any) -> str:
    """Write a ``Result`` as a heading and a table with a line for each image."""
    heading = f"{result.job_id}: {result.status}"
    if result.error is not None:
        heading += f", {result.error.message}"
    lines = "".join(map(_line, result.images))
    caption = f"<p>{_text(heading, MAX_MESSAGE_CHARS)}</p>"
    return f"<div>{caption}<table>{HEAD}<tbody>{lines}</tbody></table></div>"


def _line(image: Any) -> str:
    name = f'<td title="{_text(image.uri, MAX_MESSAGE_CHARS)}">{_text(image.id)}</td>'
    if image.error is not None:
        return (
            f'<tr>{name}<td colspan="3">{_text(image.error.message, MAX_MESSAGE_CHARS)}</td></tr>'
        )
    shown = image.labels[:LABELS_SHOWN]
    best = shown[0] if shown else None
    label = "none of these" if image.abstained or best is None else best.name
    score = "" if image.abstained or best is None else f"{best.score:.3f}"
    rest = shown if image.abstained else shown[1:]
    then = ", ".join(f"{_text(one.name)} {one.score:.3f}" for one in rest)
    return f"<tr>{name}<td><b>{_text(label)}</b></td><td>{score}</td><td>{then}</td></tr>"


def _text(text: str, limit: int = MAX_NAME_CHARS) -> str:
    return escape(cut(text, limit))
