"""Sections of an evaluation's page: head, figures, requirements, labels, confusions, curves."""

from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

from labelyard.evaluation.figures import Figures, LabelFigures
from labelyard.evaluation.report.curves import plot, reliability_chart, risk_chart
from labelyard.evaluation.requirements import CheckedRequirement
from labelyard.html_page import bar
from labelyard.markup import Child, Markup, foreign, join, tag
from labelyard.runs.report.wording import count, percent, plural

if TYPE_CHECKING:
    from labelyard.evaluation.evaluation import Evaluation

NONE_NAME: Final = "none of these"
OPEN_ROWS: Final = 30
MAX_ROWS: Final = 300
MAX_MATRIX: Final = 40
MAX_PAIRS: Final = 25
HEAT_STEPS: Final = 9


def share(value: float | None) -> str:
    """Write a share of 0 to 1 in percent."""
    return "–" if value is None else f"{100 * value:.1f}\N{NO-BREAK SPACE}%"


def number(value: float | None, digits: int = 3) -> str:
    """Write a number that may be missing."""
    return "–" if value is None else f"{value:.{digits}f}"


def name_of(label: str | None) -> Markup:
    """Write a label's name; ``None`` is none of these."""
    return tag("i", NONE_NAME) if label is None else foreign(label, limit=80)


def head(evaluation: "Evaluation") -> Markup:
    """Draw the title, whether the requirements hold, and what was evaluated."""
    subject = evaluation.subject
    state = None
    if evaluation.requirements:
        words, kind = ("passed", "fine") if evaluation.passed else ("failed", "problem")
        state = tag("span", words, class_=f"state {kind}")
    name = (subject.reference or "Label set").partition("@")[0]
    return tag(
        "header",
        tag("p", "Evaluation of a label set", class_="over"),
        tag("h1", foreign(name), " ", state),
        tag("p", foreign(subject.reference or subject.digest or "", limit=400), class_="uri"),
    )


def tiles(figures: Figures) -> Markup:
    """Draw the numbers at the top."""
    low, high = figures.interval
    none = figures.none_of_these
    cards: list[tuple[str, str, str | None]] = [
        (
            "Accuracy",
            share(figures.accuracy),
            f"{100 * low:.1f} to {100 * high:.1f}\N{NO-BREAK SPACE}%",
        ),
        ("Pictures", count(figures.n), f"{count(figures.failed)} failed"),
        ("Calibration error", share(figures.ece), None),
        ("Negative log-likelihood", number(figures.nll), None),
        ("Given a label", share(figures.coverage), None),
    ]
    if none is not None:
        cards.append(
            ("None of these, kept out", percent(none.rejected, none.n), plural(none.n, "picture"))
        )
        by_fit = None if none.auroc_fit is None else f"{share(none.auroc_fit)} by fit"
        cards.append(("None of these, AUROC", share(none.auroc), by_fit))
    for one in figures.levels:
        nodes = f"{plural(one.nodes, 'node')}, {plural(one.n, 'picture')}"
        cards.append((f"Level {one.level}, accuracy", share(one.accuracy), nodes))
    items = [
        tag("div", tag("dt", title), tag("dd", value, note and tag("small", note)))
        for title, value, note in cards
    ]
    return tag("dl", items, class_="figures")


def requirements(checked: Sequence[CheckedRequirement]) -> Markup:
    """Draw each requirement with its figure."""
    items = [
        tag(
            "li",
            tag("span", "Passed" if one.passed else "Failed", class_="weight"),
            tag("h3", foreign(one.text)),
            tag("p", "no picture shows it" if one.value is None else f"it is {one.value:.4g}"),
            class_="fine" if one.passed else "problem",
        )
        for one in checked
    ]
    return tag("ul", items, class_="findings")


def labels(figures: Figures) -> Markup:
    """Draw the table of the labels, those with the lowest recall first."""
    ranked = sorted(
        (one for one in figures.labels if one.detection.n or one.detection.predicted),
        key=lambda one: (one.detection.recall is None, one.detection.recall or 0.0, one.name),
    )
    lead = (
        "A picture is given a label if the label is matched. Precision: how many of those that were "
        "given it show it. Recall: how many of those that show it were given it. Average precision: "
        "over all thresholds."
    )
    table = _label_table(ranked[:OPEN_ROWS], caption="Labels, those with the lowest recall first")
    if len(ranked) > OPEN_ROWS:
        rest = ranked[OPEN_ROWS:MAX_ROWS]
        more = _label_table(rest, caption="More labels")
        summary = tag("summary", plural(len(ranked) - OPEN_ROWS, "more label"))
        table = join(table, tag("details", summary, more, class_="more"))
    unseen = len(figures.labels) - len(ranked)
    note = f"{plural(unseen, 'label')} not shown: no picture shows it, and none was given it."
    return join(tag("p", lead), table, tag("p", note, class_="note") if unseen else None)


def _label_table(rows: Sequence[LabelFigures], *, caption: str) -> Markup:
    columns = (
        ("Label", None),
        ("Pictures", "number wide"),
        ("Precision", "number"),
        ("Recall", "number"),
        ("", "wide bars"),
        ("Average precision", "number wide"),
        ("Threshold", "number wide"),
    )
    cells = [tag("th", title, scope="col", class_=kind) for title, kind in columns]
    return _table(caption, cells, [_label_row(one) for one in rows])


def _label_row(label: LabelFigures) -> Markup:
    found = label.detection
    certified = label.certified and f"certified for {label.certified.get('precision')}"
    values: Sequence[tuple[Child, str]] = (
        (count(found.n), "number wide"),
        (share(found.precision), "number"),
        (share(found.recall), "number"),
        (bar(found.recall or 0.0), "wide bars"),
        (share(label.average_precision), "number wide"),
        (number(label.threshold), "number wide"),
    )
    note = certified and tag("small", certified)
    head_cell = tag("th", name_of(label.name), note, scope="row")
    return tag("tr", head_cell, [tag("td", value, class_=kind) for value, kind in values])


def _table(caption: str, cells: Sequence[Markup], rows: Sequence[Markup]) -> Markup:
    return tag(
        "table",
        tag("caption", caption, class_="hidden"),
        tag("thead", tag("tr", cells)),
        tag("tbody", rows),
    )


def confusion(figures: Figures) -> Markup:
    """Draw the most frequent confusions, and the matrix if it is small enough to read."""
    wrong = [pair for pair in figures.confusion if pair.label != pair.predicted]
    if not wrong:
        return tag("p", "No picture was confused.")
    totals = Counter[str | None]()
    for pair in figures.confusion:
        totals[pair.label] += pair.n
    rows = [
        tag(
            "tr",
            tag("th", name_of(pair.label), scope="row"),
            tag("td", name_of(pair.predicted)),
            tag("td", count(pair.n), class_="number"),
            tag("td", percent(pair.n, totals[pair.label]), class_="number"),
        )
        for pair in wrong[:MAX_PAIRS]
    ]
    columns = (("It shows", None), ("Answer", None), ("Pictures", "number"), ("Share", "number"))
    cells = [tag("th", title, scope="col", class_=kind) for title, kind in columns]
    return join(_table("Confusions, the most frequent first", cells, rows), _matrix(figures))


def _matrix(figures: Figures) -> Markup | None:
    """Draw the counts as a table whose cells are tinted by their share of the row."""
    names: list[str | None] = [label.name for label in figures.labels]
    if any(None in (pair.label, pair.predicted) for pair in figures.confusion):
        names.append(None)
    if len(names) > MAX_MATRIX:
        return tag("p", f"A matrix of {count(len(names))} labels is not drawn.", class_="note")
    by_pair = {(pair.label, pair.predicted): pair.n for pair in figures.confusion}
    numbers = [tag("th", str(place), scope="col") for place in range(1, len(names) + 1)]
    rows = [
        tag(
            "tr",
            tag("th", f"{place} ", name_of(row), scope="row"),
            _cells([by_pair.get((row, column), 0) for column in names], diagonal=place - 1),
        )
        for place, row in enumerate(names, 1)
    ]
    table = tag(
        "table",
        tag("caption", "Rows: what a picture shows. Columns: the answer.", class_="hidden"),
        tag("thead", tag("tr", tag("td", ""), numbers)),
        tag("tbody", rows),
        class_="matrix",
    )
    summary = tag("summary", "Confusion matrix: rows show it, columns are the answer")
    return tag("details", summary, tag("div", table, class_="scroll"), class_="more", open=True)


def _cells(counts: Sequence[int], *, diagonal: int) -> list[Markup]:
    total = sum(counts) or 1
    cells = []
    for place, n in enumerate(counts):
        step = min(HEAT_STEPS, -(-n * HEAT_STEPS // total))  # rounded up: one picture is seen
        kind = f"{'right' if place == diagonal else 'wrong'} heat-{step}"
        cells.append(tag("td", str(n) if n else "", class_=kind))
    return cells


def curves(figures: Figures) -> Markup:
    """Draw the reliability curve and the risk-coverage curve."""
    if not figures.n:
        return tag("p", "No picture has scores.")
    words = (
        f"Best scores and how often they are right, in {plural(len(figures.reliability), 'bin')} "
        "with the same number of pictures, with intervals at 95 %. On the dashed line a score of "
        f"0.8 is right 8 times in 10. The mean distance, the calibration error, is "
        f"{share(figures.ece)}."
    )
    reliability = plot(
        reliability_chart(figures.reliability, label=words),
        top="right, up to 100 %",
        below=("0", "best score", "1"),
        caption=words,
    )
    risk = max((one.risk for one in figures.risk_coverage), default=0.0)
    highest = max(0.05, min(1.0, risk))
    words = (
        "Errors among the pictures with the highest scores: from left to right more of them are "
        f"kept. Of all pictures {share(figures.risk_coverage[-1].risk)} are wrong; of the half "
        f"with the highest scores {share(risk_at(figures, 0.5))}."
    )
    coverage = plot(
        risk_chart(figures.risk_coverage, highest=highest, label=words),
        top=f"wrong, up to {share(highest)}",
        below=("0 %", "pictures kept", "100 %"),
        caption=words,
    )
    return tag("div", reliability, coverage, class_="plots")


def risk_at(figures: Figures, coverage: float) -> float | None:
    """Return the risk of the smallest part that is at least *coverage* of all."""
    found = next((one for one in figures.risk_coverage if one.coverage >= coverage), None)
    return None if found is None else found.risk
