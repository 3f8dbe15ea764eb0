"""Section of an evaluation's page: pictures that the texts beside them contradict."""

from collections.abc import Mapping, Sequence
from typing import Final

from labelyard.evaluation.report.details import ID_CHARS, frame, origin
from labelyard.evaluation.scored_images import ScoredImage
from labelyard.html_page import bar
from labelyard.markup import Markup, foreign, join, tag
from labelyard.messages import TitleFinding
from labelyard.runs.report.wording import percent, plural

MAX_SHOWN: Final = 25


def contradicted(scored: Sequence[ScoredImage]) -> list[ScoredImage]:
    """Return the pictures that their texts contradict, the lowest agreement first."""
    found = [(one.title.agreement, one) for one in scored if one.title and not one.title.agrees]
    return [one for _, one in sorted(found, key=lambda pair: pair[0])]


def titles(scored: Sequence[ScoredImage], thumbnails: Mapping[str, str]) -> Markup | None:
    """Draw how many texts contradict their pictures, and the clearest cases.

    Returns:
        ``None`` if no text was compared.
    """
    compared = sum(one.title is not None for one in scored)
    if not compared:
        return None
    found = contradicted(scored)
    texts = plural(compared, "text")
    if not found:
        return tag("p", f"None of {texts} contradicts its picture.")
    lead = (
        f"{plural(len(found), 'picture')} of {texts} ({percent(len(found), compared)}), those with "
        "the lowest agreement first. The label is that by the text alone."
    )
    cards = [_card(one, one.title, thumbnails) for one in found[:MAX_SHOWN] if one.title]
    return join(tag("p", lead), tag("ul", cards, class_="grid"))


def _card(one: ScoredImage, title: TitleFinding, thumbnails: Mapping[str, str]) -> Markup:
    image = one.image
    text = image.text or ""
    picture = frame(thumbnails.get(one.uri), alt=f"{image.image[-ID_CHARS:]}: {text[:ID_CHARS]}")
    return tag(
        "li",
        picture if thumbnails else None,
        tag("p", tag("b", f"{title.agreement:.3f}"), bar(title.agreement), class_="score"),
        tag("p", foreign(title.label, limit=60)),
        tag("p", foreign(text, limit=200), class_="other"),
        origin(image.line, image.image),
        class_="card",
    )
