"""Card of one picture: its thumbnail, its scores, and where it comes from."""

from collections.abc import Mapping, Sequence

from labelyard.html_page import bar
from labelyard.markup import Child, Markup, foreign, join, tag
from labelyard.runs.report.examples import PictureExample
from labelyard.runs.report.wording import count

ID_CHARS = 120


def picture_grid(
    pictures: Sequence[PictureExample],
    thumbnails: Mapping[str, str],
    *,
    of_label: str | None = None,
    notes: Sequence[Child] = (),
) -> Markup:
    """Draw pictures as a grid of cards.

    Args:
        thumbnails: ``data:`` addresses by the pictures' addresses; if there are none at all, the
            cards have no frames.
        of_label: Label that the pictures are examples of.
        notes: A line for each picture in place of its scores.
    """
    cards = [
        _card(
            picture,
            _frame(picture, thumbnails.get(picture.uri)) if thumbnails else None,
            _note(notes[place]) if notes else _scores(picture, of_label),
        )
        for place, picture in enumerate(pictures)
    ]
    return tag("ul", cards, class_="grid")


def _card(picture: PictureExample, frame: Markup | None, caption: Markup) -> Markup:
    return tag("li", frame, caption, _origin(picture), class_="card")


def _frame(picture: PictureExample, thumbnail: str | None) -> Markup:
    shown = (
        tag("img", src=thumbnail, alt=_alt(picture), loading="lazy", decoding="async")
        if thumbnail
        else tag("span", "no picture", class_="missing")
    )
    return tag("div", shown, class_="frame")


def _alt(picture: PictureExample) -> str:
    name = picture.custom_id[:ID_CHARS]
    if picture.is_abstained or not picture.best:
        return f"{name}: no label fits"
    label, score = picture.best[0]
    return f"{name}: {label[:ID_CHARS]}, {score:.2f}"


def _scores(picture: PictureExample, of_label: str | None) -> Markup:
    """Write the score of the label in question, then the strongest other label."""
    lines = []
    if of_label is not None and picture.score is not None:
        number = tag("b", f"{picture.score:.3f}")
        lines.append(tag("p", number, bar(picture.score), class_="score"))
        others = [one for one in picture.best if one[0] != of_label][:1]
        is_first = bool(picture.best) and picture.best[0][0] == of_label
        word = "then" if is_first else "best is"
    else:
        others, word = list(picture.best[:2]), ""
    lines += [_other(word, name, score) for name, score in others]
    return join(lines)


def _other(word: str, name: str, score: float) -> Markup:
    lead = (word, " ") if word else ()
    return tag("p", lead, foreign(name, limit=60), f" {score:.2f}", class_="other")


def _note(note: Child) -> Markup:
    return tag("p", tag("b", note), class_="score")


def _origin(picture: PictureExample) -> Markup:
    size = f", {picture.width} × {picture.height} px" if picture.width else ""
    return tag(
        "details",
        tag("summary", foreign(picture.custom_id, limit=ID_CHARS)),
        tag("p", f"Line {count(picture.line)}{size}"),
        tag("p", foreign(picture.uri, limit=2048), class_="uri"),
        class_="origin",
    )
