"""Page of a run's report: its sections, one after the other, with links to each."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from typing import Final

from labelyard.html_page import html_page
from labelyard.markup import Child, Markup, tag
from labelyard.runs.report import sections
from labelyard.runs.report.findings import find_all
from labelyard.runs.report.gallery import Gallery
from labelyard.runs.report.label_sections import label_sections, label_table, pair_section
from labelyard.runs.report.run_facts import RunFacts
from labelyard.runs.report.tally import RunTally
from labelyard.runs.report.throughput import Throughput
from labelyard.runs.report.thumbnails import Thumbnails
from labelyard.runs.report.titles import titles
from labelyard.version import __version__

SECTIONS: Final = (
    ("findings", "What stands out"),
    ("scores", "Scores"),
    ("labels", "Labels"),
    ("pairs", "Close calls"),
    ("abstained", "No label fits"),
    ("titles", "Texts beside pictures"),
    ("errors", "Errors"),
    ("duplicates", "Repeated pictures"),
    ("speed", "Throughput"),
    ("about", "About this run"),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class ReportData:
    """Everything that a page shows.

    Attributes:
        address: Folder or ``s3://`` prefix of the output.
        thumbnails: Pictures that could be read, and why others could not.
    """

    address: str
    facts: RunFacts
    tally: RunTally
    gallery: Gallery
    thumbnails: Thumbnails
    throughput: Throughput | None


def report_page(data: ReportData) -> str:
    """Return the page."""
    tally, facts = data.tally, data.facts
    contents = _contents(data)
    shown = [(id_, title) for id_, title in SECTIONS if id_ in contents]
    body = (
        tag("a", "Skip to the report", href="#report", class_="skip"),
        _navigation(shown),
        tag(
            "main",
            sections.head(facts, address=data.address),
            sections.figures(tally, facts),
            sections.missing_pictures(len(data.thumbnails.by_uri), data.thumbnails.missing),
            [sections.section(id_, title, contents[id_]) for id_, title in shown],
            id="report",
        ),
        tag("footer"),
    )
    style = (files(__package__) / "report.css").read_text(encoding="utf-8")
    return html_page(title=f"Report of the run {facts.run_id}".strip(), style=style, body=body)


def _contents(data: ReportData) -> Mapping[str, Child]:
    tally, facts, gallery = data.tally, data.facts, data.gallery
    pictures = data.thumbnails.by_uri
    labelled = sum(one.first for one in tally.labels.values())
    compared = titles(tally.titles, gallery.doubtful, pictures)
    return {
        "findings": sections.findings(find_all(tally, facts)),
        "scores": sections.scores(tally),
        "labels": (
            label_table(tally, gallery.labels),
            label_sections(gallery.labels, pictures, labelled=labelled),
        ),
        "pairs": pair_section(gallery.pairs, pictures, close=tally.close),
        "abstained": sections.abstained(tally, gallery.abstained, pictures),
        **({"titles": compared} if tally.titles.compared else {}),
        "errors": sections.errors(tally),
        "duplicates": sections.duplicates(tally, gallery.groups, pictures),
        "speed": sections.speed(data.throughput),
        "about": sections.about(facts, tally, version=__version__),
    }


def _navigation(shown: Sequence[tuple[str, str]]) -> Markup:
    links = [tag("li", tag("a", title, href=f"#{id_}")) for id_, title in shown]
    return tag("nav", tag("ul", links), aria_label="Sections", class_="nav")
