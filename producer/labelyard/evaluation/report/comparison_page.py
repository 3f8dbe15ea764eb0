"""Page of a comparison: both sets side by side, the flips with their pictures, each label's change."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Final

from labelyard.evaluation.report.details import frame, origin
from labelyard.evaluation.report.page import Section, whole_page
from labelyard.evaluation.report.pictures import thumbnails_of
from labelyard.evaluation.report.sections import name_of, number, share
from labelyard.markup import Child, Markup, foreign, join, tag
from labelyard.runs.report.sections import missing_pictures
from labelyard.runs.report.thumbnails import Thumbnails
from labelyard.runs.report.wording import count, plural
from labelyard.version import __version__

if TYPE_CHECKING:
    from labelyard.evaluation.comparison import Comparison, Flip, FlipKind, LabelChange
    from labelyard.evaluation.evaluation import Evaluation

#: Flips of each kind that the page shows.
SHOWN_FLIPS: Final = 24
MAX_ROWS: Final = 300
#: Difference that is no chance at the usual level.
LEVEL: Final = 0.05
#: Words for the two sets.
SIDES: Final = ("first", "second")
LEADS: "Final[Mapping[FlipKind, tuple[str, str]]]" = {
    "broken": ("Broken", "Only the first set has these right."),
    "fixed": ("Fixed", "Only the second set has these right."),
    "changed": ("Changed", "Both answers are wrong, or both are right."),
}


def comparison_page(comparison: "Comparison", *, has_thumbnails: bool = True) -> str:
    """Return the page of a comparison.

    Args:
        has_thumbnails: Whether the flipped pictures are read and shown.
    """
    shown = {kind: comparison.flipped(kind)[:SHOWN_FLIPS] for kind in LEADS}
    pictures = Thumbnails()
    if has_thumbnails:
        pictures = thumbnails_of([flip.scored for flips in shown.values() for flip in flips])
    parts: list[Section] = [("sets", "Both sets", _sets(comparison))]
    for kind, flips in shown.items():
        title, lead = LEADS[kind]
        total = len(comparison.flipped(kind))
        parts.append((kind, title, _flips(flips, lead, total, pictures.by_uri)))
    parts.append(("labels", "Labels", _labels(comparison.labels)))
    top = (
        _head(comparison),
        _tiles(comparison),
        missing_pictures(len(pictures.by_uri), pictures.missing),
    )
    return whole_page("Comparison of two label sets", top, parts)


def _head(comparison: "Comparison") -> Markup:
    is_clear = comparison.mcnemar_p < LEVEL
    difference = comparison.difference or 0.0
    words = "no clear difference"
    kind = "notice"
    if is_clear and difference:
        words, kind = ("better", "fine") if difference > 0 else ("worse", "problem")
    return tag(
        "header",
        tag("p", "Comparison of two label sets", class_="over"),
        tag(
            "h1",
            _name(comparison.second),
            " against ",
            _name(comparison.first),
            " ",
            tag("span", words, class_=f"state {kind}"),
        ),
    )


def _name(evaluation: "Evaluation") -> Markup:
    subject = evaluation.subject
    digest = (subject.digest or "").removeprefix("sha256:")[:8]
    return foreign(f"{(subject.reference or 'label set').partition('@')[0]} {digest}")


def _tiles(comparison: "Comparison") -> Markup:
    _, only_first, only_second, _ = comparison.right
    difference = comparison.difference
    cards = (
        ("Accuracy", "–" if difference is None else f"{100 * difference:+.1f}", "points"),
        ("Fixed", count(only_second), None),
        ("Broken", count(only_first), None),
        ("McNemar's p", f"{comparison.mcnemar_p:.2g}", "exact"),
        ("Pictures", count(comparison.n), None),
    )
    items = [
        tag("div", tag("dt", title), tag("dd", value, note and tag("small", note)))
        for title, value, note in cards
    ]
    return tag("dl", items, class_="figures")


def _sets(comparison: "Comparison") -> Markup:
    sides = comparison.first, comparison.second
    rows: Sequence[tuple[str, Sequence[Child]]] = (
        ("Accuracy", [share(one.accuracy) for one in sides]),
        ("Interval", [_interval(one) for one in sides]),
        ("Calibration error", [share(one.figures.ece) for one in sides]),
        ("Negative log-likelihood", [number(one.figures.nll) for one in sides]),
        ("Given a label", [share(one.figures.coverage) for one in sides]),
        ("Labels", [count(one.cost.labels) for one in sides]),
        ("Seconds", [f"{one.cost.seconds:.1f}" for one in sides]),
    )
    cells = [tag("th", text, scope="col", class_="number") for text in SIDES]
    body = [
        tag(
            "tr",
            tag("th", name, scope="row"),
            [tag("td", value, class_="number pair") for value in values],
        )
        for name, values in rows
    ]
    references = [
        tag(
            "div",
            tag("dt", name),
            tag("dd", foreign(one.subject.reference or one.subject.digest or ""), class_="uri"),
        )
        for name, one in zip(SIDES, sides, strict=True)
    ]
    table = tag(
        "table",
        tag("caption", "Figures of both sets", class_="hidden"),
        tag("thead", tag("tr", tag("td", ""), cells)),
        tag("tbody", body),
    )
    made = tag("p", f"Made by labelyard {__version__}; flips.jsonl has every flip.", class_="note")
    return join(table, tag("dl", references, class_="details references"), made)


def _interval(evaluation: "Evaluation") -> str:
    low, high = evaluation.figures.interval
    return f"{100 * low:.1f} to\N{NO-BREAK SPACE}{100 * high:.1f}\N{NO-BREAK SPACE}%"


def _flips(flips: "Sequence[Flip]", lead: str, total: int, thumbnails: Mapping[str, str]) -> Markup:
    if not flips:
        return tag("p", "There is none.")
    more = (
        f" The {plural(len(flips), 'picture')} with the highest scores:"
        if total > len(flips)
        else ""
    )
    cards = [_card(flip, thumbnails) for flip in flips]
    return join(
        tag("p", f"{plural(total, 'picture')}. {lead}{more}"), tag("ul", cards, class_="grid")
    )


def _card(flip: "Flip", thumbnails: Mapping[str, str]) -> Markup:
    image = flip.scored.image
    truth = ", ".join(image.labels)
    lines = [
        tag("p", f"{which}: ", name_of(answer), f" {score:.2f}", class_="other")
        for which, answer, score in zip(SIDES, flip.answers, flip.scores, strict=True)
    ]
    return tag(
        "li",
        frame(thumbnails.get(flip.scored.uri), alt=f"{image.image[-120:]}: {truth}")
        if thumbnails
        else None,
        tag("p", name_of(truth or None)),
        lines,
        origin(image.line, image.image),
        class_="card",
    )


def _labels(changes: "Sequence[LabelChange]") -> Markup:
    """Draw the labels, those whose recall fell most first."""
    rows = [_row(change) for change in sorted(changes, key=_recall_change)[:MAX_ROWS]]
    columns = (
        ("Label", None),
        ("Pictures", "number wide"),
        ("Precision", "number"),
        ("Recall", "number"),
        ("Average precision", "number wide"),
    )
    cells = [tag("th", title, scope="col", class_=kind) for title, kind in columns]
    return tag(
        "table",
        tag("caption", "Labels, those whose recall fell most first", class_="hidden"),
        tag("thead", tag("tr", cells)),
        tag("tbody", rows),
    )


def _recall_change(change: "LabelChange") -> float:
    before, after = change.fields()["recall"]
    return (after or 0.0) - (before or 0.0)


def _row(change: "LabelChange") -> Markup:
    fields = change.fields()
    values = [
        (count(fields["n"]), "number wide"),
        (_pair(fields["precision"]), "number pair"),
        (_pair(fields["recall"]), "number pair"),
        (_pair(fields["average_precision"]), "number wide"),
    ]
    head = tag("th", name_of(change.name), scope="row")
    return tag("tr", head, [tag("td", value, class_=kind) for value, kind in values])


def _pair(values: Sequence[float | None]) -> str:
    """Write two figures, between which a narrow screen may begin a new line."""
    return f"{share(values[0])}\N{NO-BREAK SPACE}→ {share(values[1])}"
