"""Section of an evaluation's page: pictures that the texts beside them speak against."""

from collections.abc import Mapping, Sequence
from typing import Final

from labelyard.evaluation.report.details import ID_CHARS, frame, origin
from labelyard.evaluation.scored_images import ScoredImage
from labelyard.html_page import bar
from labelyard.markup import Markup, foreign, join, tag
from labelyard.messages import TitleFinding
from labelyard.runs.report.titles import SILENT, agreement_lead

MAX_SHOWN: Final = 25


def doubtful(scored: Sequence[ScoredImage]) -> list[ScoredImage]:
    """Return the pictures to show: those that texts speak against, the lowest agreement first."""
    found = [
        (one.title.agreement, one) for one in scored if one.title and one.title.agreement < SILENT
    ]
    return [one for _, one in sorted(found, key=lambda pair: pair[0])[:MAX_SHOWN]]


def titles(scored: Sequence[ScoredImage], thumbnails: Mapping[str, str]) -> Markup | None:
    """Draw how many texts contradict their pictures, and the pictures of the lowest agreement.

    Returns:
        ``None`` if no text was compared.
    """
    compared = sum(one.title is not None for one in scored)
    if not compared:
        return None
    disagreeing = sum(one.title is not None and not one.title.agrees for one in scored)
    cards = [_card(one, one.title, thumbnails) for one in doubtful(scored) if one.title]
    lead = agreement_lead(disagreeing, compared, has_examples=bool(cards))
    note = tag("p", "The label is that by the text alone.", class_="note")
    return join(tag("p", lead), join(note, tag("ul", cards, class_="grid")) if cards else None)


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
