"""Sections of a report besides those of the labels: head, findings, errors, duplicates, speed."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Final

from labelyard.html_page import bar
from labelyard.markup import Child, Markup, foreign, join, tag
from labelyard.runs.lines import ErrorLine
from labelyard.runs.report.charts import area, histogram
from labelyard.runs.report.examples import PictureExample
from labelyard.runs.report.findings import ReportFinding
from labelyard.runs.report.label_sections import score_axis
from labelyard.runs.report.label_tally import BINS, median_of
from labelyard.runs.report.picture_card import picture_grid
from labelyard.runs.report.run_facts import RunFacts
from labelyard.runs.report.tally import RunTally
from labelyard.runs.report.throughput import Throughput
from labelyard.runs.report.wording import clock, count, duration, percent, plural, rate

WEIGHT_WORDS: Final = {"problem": "Problem", "notice": "Look at this", "fine": "Fine"}
MAX_CODE_ROWS: Final = 25
MAX_DETAILS: Final = 60
#: Best scores for which the page writes how many pictures reach them.
REACH_BOUNDS: Final = (0.3, 0.5, 0.7, 0.8, 0.9)


def section(id_: str, title: str, *content: Child) -> Markup:
    """Draw a section with its heading."""
    heading = tag("h2", title, id=f"{id_}-title")
    return tag("section", heading, *content, id=id_, aria_labelledby=f"{id_}-title", class_="part")


def head(facts: RunFacts, *, address: str) -> Markup:
    """Draw the title, the state and the place of the output."""
    state = tag("span", facts.state or "not finished", class_=f"state {_state_class(facts.state)}")
    return tag(
        "header",
        tag("p", "Report of a run", class_="over"),
        tag("h1", foreign(facts.run_id or "Run"), " ", state),
        tag("p", foreign(address, limit=400), class_="uri"),
    )


def _state_class(state: str) -> str:
    if state == "succeeded":
        return "fine"
    return "problem" if state in ("failed", "expired") else "notice"


def figures(tally: RunTally, facts: RunFacts) -> Markup:
    """Draw the numbers at the top."""
    lines = tally.total + tally.bad_lines
    repeats = tally.pictures.repeats()
    about = "" if tally.pictures.is_exact else "about "
    cards = [
        ("Lines", count(lines), None),
        (
            "With labels",
            count(tally.succeeded - tally.abstained),
            percent(tally.succeeded - tally.abstained, lines),
        ),
        ("No label fits", count(tally.abstained), percent(tally.abstained, lines)),
        (
            "Failed",
            count(tally.failed + tally.bad_lines),
            percent(tally.failed + tally.bad_lines, lines),
        ),
        ("Repeated content", f"{about}{count(repeats)}", percent(repeats, tally.succeeded)),
    ]
    if facts.summary is not None and facts.summary.images_per_s:
        took = duration(facts.summary.seconds) if facts.summary.seconds else None
        cards.append(("Images a second", rate(facts.summary.images_per_s), took and f"in {took}"))
    items = [
        tag("div", tag("dt", name), tag("dd", value, note and tag("small", note)))
        for name, value, note in cards
    ]
    return tag("dl", items, class_="figures")


def findings(found: Sequence[ReportFinding]) -> Markup:
    """Draw the findings, each with a link to the section that has more."""
    items = [
        tag(
            "li",
            tag("span", WEIGHT_WORDS[one.weight], class_=f"weight {one.weight}"),
            tag("h3", one.title),
            tag(
                "p",
                tag("bdi", one.text),
                one.section
                and (
                    " ",
                    tag("a", "Show", href=f"#{one.section}", aria_label=f"Show: {one.title}"),
                ),
            ),
            class_=one.weight,
        )
        for one in found
    ]
    return tag("ul", items, class_="findings")


def scores(tally: RunTally) -> Markup:
    """Draw the histogram of the best scores of all pictures."""
    median = median_of(tally.top_bins)
    if median is None:
        return tag("p", "No picture has a score.")
    words = f"Best score of each picture, from 0 to 1; the median is {median:.2f}."
    chart = histogram(tally.top_bins, label=words)
    total = sum(tally.top_bins)
    reach = [
        tag(
            "div",
            tag("dt", f"{bound:g} or more"),
            tag("dd", percent(above, total), tag("small", plural(above, "picture"))),
        )
        for bound in REACH_BOUNDS
        for above in [sum(tally.top_bins[round(bound * BINS) :])]
    ]
    caption = tag("figcaption", words, tag("dl", reach, class_="reach"))
    return tag("figure", chart, score_axis(), caption, class_="scores")


def abstained(
    tally: RunTally, pictures: Sequence[PictureExample], thumbnails: Mapping[str, str]
) -> Markup:
    """Draw a sample of the pictures that no label fits, with the labels that came nearest."""
    if not tally.abstained:
        return tag("p", "Every picture has a label.")
    lead = (
        f"{plural(tally.abstained, 'picture')} ({percent(tally.abstained, tally.succeeded)}). "
        "A random sample, with the labels that came nearest:"
    )
    return join(tag("p", lead), picture_grid(pictures, thumbnails))


def errors(tally: RunTally) -> Markup:
    """Draw the errors by code, each with examples."""
    known = tally.known_errors
    ranked = known.ranked()
    if not ranked:
        return tag("p", "No line failed.")
    most = ranked[0][1]
    blocks = [
        tag(
            "details",
            tag(
                "summary",
                tag("h3", foreign(code, limit=80)),
                tag("span", plural(number, "line"), class_="meta"),
                bar(number / most, class_="bar bad"),
            ),
            tag("ul", map(_error_line, known.examples(code)), class_="examples"),
            class_="code",
            open=place == 0,
        )
        for place, (code, number) in enumerate(ranked[:MAX_CODE_ROWS])
    ]
    more = len(ranked) - MAX_CODE_ROWS
    note = tag("p", f"{plural(more, 'more code')} not shown.", class_="note") if more > 0 else None
    return join(blocks, note)


def _error_line(line: ErrorLine) -> Markup:
    again = "may succeed later" if line.is_retryable else "will not succeed unchanged"
    name = foreign(line.custom_id, limit=120) if line.custom_id else "no id"
    uri = tag("p", foreign(line.uri, limit=400), class_="uri") if line.uri else None
    return tag(
        "li",
        tag(
            "p", tag("b", f"Line {count(line.line)}"), " ", name, tag("span", again, class_="meta")
        ),
        tag("p", foreign(line.message, limit=400)),
        uri,
    )


def duplicates(
    tally: RunTally, groups: Sequence[tuple[PictureExample, int]], thumbnails: Mapping[str, str]
) -> Markup:
    """Draw the pictures that came most often."""
    repeats, distinct = tally.pictures.repeats(), tally.pictures.distinct()
    if not repeats:
        return tag("p", "No two pictures have the same content.")
    about = "" if tally.pictures.is_exact else "about "
    lead = f"{about}{plural(distinct, 'different picture')}, and {about}{plural(repeats, 'repetition')} of them."
    at_least = "" if tally.repeated.is_exact else "at least "
    notes = [f"{at_least}{count(number)} times" for _, number in groups]
    pictures = [picture for picture, _ in groups]
    grid = picture_grid(pictures, thumbnails, notes=notes) if groups else None
    return join(tag("p", lead[:1].upper() + lead[1:]), grid)


def speed(measured: Throughput | None) -> Markup:
    """Draw the throughput over time."""
    if measured is None:
        text = (
            "Too few files, or their times are not those of the run (a copy has the times of the "
            "copying), so there is no throughput over time."
        )
        return tag("p", text)
    values = measured.images_per_s
    words = (
        f"Images a second, from 0 to {rate(max(values))}, in steps of "
        f"{duration(measured.interval_s)}, by the times at which files were written."
    )
    ends = [tag("span", clock(at)) for at in (measured.start, measured.end)]
    axis = tag("p", ends, class_="axis-text", aria_hidden="true")
    top = tag("p", f"{rate(max(values))} images a second", class_="axis-top", aria_hidden="true")
    return tag(
        "figure", top, area(values, label=words), axis, tag("figcaption", words), class_="scores"
    )


def missing_pictures(shown: int, missing: Counter[str]) -> Markup | None:
    """Write why thumbnails are missing, if any are."""
    if not missing:
        return None
    reasons = ", ".join(f"{reason} ({count(number)})" for reason, number in missing.most_common(4))
    head_ = "Some pictures are not shown" if shown else "No picture is shown"
    return tag(
        "p", tag("b", f"{head_}: "), tag("bdi", reasons), ".", class_="notice banner", role="note"
    )


def about(facts: RunFacts, tally: RunTally, *, version: str) -> Markup:
    """Draw the facts of the manifest, and how the page was made."""
    sets = {
        f"label set {place}": f"{digest}, {plural(number, 'picture')}"
        for place, (digest, number) in enumerate(
            sorted(tally.label_sets.items(), key=lambda item: -item[1])[:5], 1
        )
    }
    rows = [
        tag("div", tag("dt", foreign(name, limit=120)), tag("dd", foreign(value, limit=400)))
        for name, value in [*list(facts.details.items())[:MAX_DETAILS], *sets.items()]
    ]
    made = (
        f"Made by labelyard {version} from the files at the address above, with seed {tally.seed}: "
        "the same files and seed give the same choice of pictures. Counts are of all lines."
    )
    return join(tag("dl", rows, class_="details") if rows else None, tag("p", made, class_="note"))
