"""Page of an evaluation: its sections, one after the other, with links to each."""

from collections.abc import Sequence
from importlib.resources import files
from typing import TYPE_CHECKING

from labelyard.evaluation.report import details, sections
from labelyard.evaluation.report.pictures import thumbnails_of
from labelyard.evaluation.report.titles import doubtful, titles
from labelyard.html_page import html_page
from labelyard.markup import Child, tag
from labelyard.runs.report.sections import missing_pictures, section
from labelyard.runs.report.thumbnails import Thumbnails
from labelyard.version import __version__

if TYPE_CHECKING:
    from labelyard.evaluation.evaluation import Evaluation

Section = tuple[str, str, Child]


def evaluation_page(evaluation: "Evaluation", *, has_thumbnails: bool = True) -> str:
    """Return the page of an evaluation.

    Args:
        has_thumbnails: Whether the suspicious pictures are read and shown.
    """
    figures = evaluation.figures
    pictures = Thumbnails()
    if has_thumbnails:
        suspicious = [one.scored for one in figures.suspicions]
        pictures = thumbnails_of([*suspicious, *doubtful(evaluation.scored)])
    parts: list[Section] = [
        ("labels", "Labels", sections.labels(figures)),
        ("confusion", "Confusions", sections.confusion(figures)),
        ("curves", "Calibration", sections.curves(figures)),
        (
            "suspicious",
            "Suspicious labels",
            details.suspicious(figures.suspicions, pictures.by_uri),
        ),
        ("about", "Cost", details.about(evaluation, version=__version__)),
    ]
    if (compared := titles(evaluation.scored, pictures.by_uri)) is not None:
        parts.insert(-1, ("titles", "Texts beside pictures", compared))
    if evaluation.requirements:
        held = sections.requirements(evaluation.requirements)
        parts.insert(0, ("requirements", "Requirements", held))
    top = (
        sections.head(evaluation),
        sections.tiles(figures),
        details.failures(evaluation),
        missing_pictures(len(pictures.by_uri), pictures.missing),
    )
    return whole_page("Evaluation of a label set", top, parts)


def whole_page(title: str, top: Child, parts: Sequence[Section]) -> str:
    """Return a page of sections with links to each.

    Args:
        top: Between the links and the first section.
        parts: Id, title and content of each section.
    """
    links = [tag("li", tag("a", name, href=f"#{id_}")) for id_, name, _ in parts]
    body = (
        tag("a", "Skip to the report", href="#report", class_="skip"),
        tag("nav", tag("ul", links), aria_label="Sections", class_="nav"),
        tag("main", top, [section(id_, name, part) for id_, name, part in parts], id="report"),
        tag("footer"),
    )
    return html_page(title=title, style=_style(), body=body)


def _style() -> str:
    shared = files("labelyard.runs.report") / "report.css"
    own = files(__package__) / "evaluation.css"
    return shared.read_text(encoding="utf-8") + own.read_text(encoding="utf-8")
