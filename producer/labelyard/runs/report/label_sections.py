"""Sections of the labels: the table of all, and each with its histogram and pictures."""

from collections.abc import Mapping, Sequence
from typing import Final

from labelyard.html_page import bar
from labelyard.markup import Markup, foreign, join, tag
from labelyard.runs.report.charts import double_histogram, sparkline
from labelyard.runs.report.gallery import MEANINGS, NEAR, LabelSection, PairRow
from labelyard.runs.report.label_tally import LabelTally
from labelyard.runs.report.picture_card import picture_grid
from labelyard.runs.report.tally import CLOSE, RunTally
from labelyard.runs.report.wording import count, percent, plural

MAX_TABLE_ROWS: Final = 60
#: Rows that are shown at once; the others are folded.
OPEN_ROWS: Final = 20
OPEN_SECTIONS: Final = 3


def label_table(tally: RunTally, sections: Sequence[LabelSection]) -> Markup:
    """Draw the table of the labels, the most frequent first."""
    labels = tally.ranked_labels()
    places = {section.tally.name: place for place, section in enumerate(sections)}
    labelled = sum(one.first for one in labels)
    most = max((one.first for one in labels), default=0)
    names = ("Label", "Best for", "", "Share", "Median", "Scores", "Matched")
    classes = (None, "number", "wide bars", "number", "number", "wide", "number wide")
    head = [
        tag("th", name, scope="col", class_=kind) for name, kind in zip(names, classes, strict=True)
    ]
    rows = [
        _row(one, places.get(one.name), labelled=labelled, most=most)
        for one in labels[:MAX_TABLE_ROWS]
    ]
    table = _table(head, rows[:OPEN_ROWS], caption="Labels, those with the most pictures first")
    if len(rows) > OPEN_ROWS:
        more = _table(head, rows[OPEN_ROWS:], caption="Labels with fewer pictures")
        summary = tag("summary", plural(len(rows) - OPEN_ROWS, "more label"))
        table = join(table, tag("details", summary, more, class_="more"))
    left_out = labels[MAX_TABLE_ROWS:]
    pooled = tally.pooled_labels + len(left_out)
    note = None
    if pooled:
        pictures = (
            tally.succeeded - tally.abstained - sum(one.first for one in labels[:MAX_TABLE_ROWS])
        )
        note = tag(
            "p",
            f"{plural(pooled, 'more label')} not shown, best for {plural(pictures, 'picture')}.",
            class_="note",
        )
    return join(table, note)


def _table(head: Sequence[Markup], rows: Sequence[Markup], *, caption: str) -> Markup:
    return tag(
        "table",
        tag("caption", caption, class_="hidden"),
        tag("thead", tag("tr", head)),
        tag("tbody", rows),
        class_="labels",
    )


def _row(label: LabelTally, place: int | None, *, labelled: int, most: int) -> Markup:
    name = foreign(label.name, limit=80)
    link = name if place is None else tag("a", name, href=f"#label-{place}")
    median = "" if label.median is None else f"{label.median:.2f}"
    cells = (
        (count(label.first), "number"),
        (bar(label.first / most if most else 0.0), "wide bars"),
        (percent(label.first, labelled), "number"),
        (median, "number"),
        (sparkline(label.best_bins) if label.first else None, "wide"),
        (count(label.matched), "number wide"),
    )
    head = tag("th", link, scope="row")
    return tag("tr", head, [tag("td", value, class_=kind) for value, kind in cells])


def label_sections(
    sections: Sequence[LabelSection], thumbnails: Mapping[str, str], *, labelled: int
) -> Markup:
    """Draw the labels one below the other; all but the first are folded."""
    return join(
        _label(section, place, thumbnails, labelled) for place, section in enumerate(sections)
    )


def _label(
    section: LabelSection, place: int, thumbnails: Mapping[str, str], labelled: int
) -> Markup:
    label = section.tally
    meta = f"best for {plural(label.first, 'picture')}, {percent(label.first, labelled)}"
    summary = tag(
        "summary",
        tag("h3", foreign(label.name, limit=200)),
        tag("span", meta, class_="meta"),
    )
    strips = [
        tag(
            "section",
            tag("h4", strip.reason),
            tag("p", _meaning(strip.reason, label), class_="note"),
            picture_grid(strip.pictures, thumbnails, of_label=label.name),
            class_="strip",
        )
        for strip in section.strips
    ]
    body = tag(
        "div",
        _scores(label),
        tag("div", strips, class_="strips"),
        id=f"label-{place}",
        class_="label-body",
    )
    return tag("details", summary, body, class_="label", open=place < OPEN_SECTIONS)


def _meaning(reason: str, label: LabelTally) -> str:
    if reason == NEAR and label.threshold is not None:
        return f"Scores on both sides of the threshold, {label.threshold:.2f}."
    return MEANINGS[reason]


def _scores(label: LabelTally) -> Markup:
    others = sum(label.other_bins)
    median = "none" if label.median is None else f"{label.median:.2f}"
    words = (
        f"Scores from 0 to 1. Best for {plural(label.first, 'picture')}, median {median}; "
        f"named on {plural(others, 'other picture')}."
    )
    chart = double_histogram(
        label.best_bins, label.other_bins, threshold=label.threshold, label=words
    )
    keys = [
        tag(
            "li",
            tag("i", class_="best"),
            f"best label: {plural(label.first, 'picture')}, median {median}",
        ),
        tag("li", tag("i", class_="other"), f"another label is better: {plural(others, 'picture')}")
        if others
        else None,
        tag(
            "li",
            tag("i", class_="threshold"),
            f"threshold {label.threshold:.2f}, matched by {count(label.matched)}",
        )
        if label.threshold is not None
        else None,
    ]
    return tag(
        "figure",
        chart,
        score_axis(),
        tag("figcaption", tag("ul", keys, class_="keys")),
        class_="scores",
    )


def score_axis() -> Markup:
    """Write the numbers below a histogram of scores."""
    return tag(
        "p",
        [tag("span", text) for text in ("0", "score 0.5", "1")],
        class_="axis-text",
        aria_hidden="true",
    )


def pair_section(pairs: Sequence[PairRow], thumbnails: Mapping[str, str], *, close: int) -> Markup:
    """Draw the pairs of labels that compete for the same pictures."""
    if not pairs:
        return tag(
            "p", f"No two labels come within {CLOSE:g} of each other on more than one picture."
        )
    lead = (
        f"On {plural(close, 'picture')} the two best scores are less than {CLOSE:g} apart. "
        "If the pictures show the same thing, merge the labels; if not, word them further apart."
    )
    rows = [
        tag(
            "section",
            tag(
                "h3",
                foreign(pair.names[0], limit=80),
                " or ",
                foreign(pair.names[1], limit=80),
                tag("span", plural(pair.count, "picture"), class_="meta"),
            ),
            picture_grid(pair.pictures, thumbnails),
            class_="strip",
        )
        for pair in pairs
    ]
    return join(tag("p", lead), tag("div", rows, class_="strips"))
