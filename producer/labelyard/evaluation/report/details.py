"""Sections of an evaluation's page: suspicious labels with their pictures, failures, and the cost."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Final

from labelyard.evaluation.figures import Suspicion
from labelyard.evaluation.report.sections import NONE_NAME
from labelyard.html_page import bar
from labelyard.markup import Child, Markup, foreign, join, tag
from labelyard.runs.report.wording import count, duration, plural, rate

if TYPE_CHECKING:
    from labelyard.evaluation.evaluation import Evaluation

ID_CHARS: Final = 120
MAX_FAILURES: Final = 25


def suspicious(suspicions: Sequence[Suspicion], thumbnails: Mapping[str, str]) -> Markup:
    """Draw the pictures whose label may be wrong, the most suspicious first."""
    if not suspicions:
        return tag("p", "The model contradicts no label.")
    lead = (
        "The answer contradicts these labels most clearly. Some labels will be wrong: correct them "
        "in the manifest. The others are what the label set does not tell apart."
    )
    cards = [_card(one, thumbnails) for one in suspicions]
    return join(tag("p", lead), tag("ul", cards, class_="grid"))


def _card(one: Suspicion, thumbnails: Mapping[str, str]) -> Markup:
    given = ", ".join(one.given) or NONE_NAME
    image = one.scored.image
    return tag(
        "li",
        frame(thumbnails.get(one.scored.uri), alt=f"{image.image[-ID_CHARS:]}: {given}")
        if thumbnails
        else None,
        tag("p", tag("b", f"{one.best_score:.2f}"), bar(one.best_score), class_="score"),
        tag("p", foreign(one.best, limit=60)),
        tag(
            "p",
            "labelled ",
            foreign(given, limit=60),
            f" {one.given_score:.2f}",
            class_="other",
        ),
        origin(image.line, image.image),
        class_="card",
    )


def frame(thumbnail: str | None, *, alt: str) -> Markup:
    """Draw a thumbnail in its frame, or that there is none."""
    shown = (
        tag("img", src=thumbnail, alt=alt, loading="lazy", decoding="async")
        if thumbnail
        else tag("span", "no picture", class_="missing")
    )
    return tag("div", shown, class_="frame")


def origin(line: int, image: str) -> Markup:
    """Write where a picture is in the manifest."""
    return tag(
        "details",
        tag("summary", foreign(image.rsplit("/", 1)[-1], limit=ID_CHARS)),
        tag("p", f"Line {count(line)}"),
        tag("p", foreign(image, limit=2048), class_="uri"),
        class_="origin",
    )


def failures(evaluation: "Evaluation") -> Markup | None:
    """Write which pictures have no scores, and why."""
    failed = [one for one in evaluation.scored if one.error is not None]
    if not failed:
        return None
    codes = Counter(one.error.code for one in failed if one.error is not None)
    reasons = ", ".join(f"{code} ({count(n)})" for code, n in codes.most_common(5))
    items = [
        tag("li", f"Line {count(one.image.line)}: ", foreign(one.fault, limit=300))
        for one in failed[:MAX_FAILURES]
        if one.error is not None
    ]
    lead = f"{plural(len(failed), 'picture')} without scores: {reasons}. No figure counts them."
    return tag(
        "details", tag("summary", lead), tag("ul", items), class_="banner notice", role="note"
    )


def about(evaluation: "Evaluation", *, version: str) -> Markup:
    """Draw the cost, and what was evaluated with what."""
    cost, subject = evaluation.cost, evaluation.subject
    model = subject.model
    details = {
        "manifest": subject.manifest,
        "split": subject.split or "all lines",
        "label set": subject.digest or "",
        "labels": f"{count(cost.labels)}, {plural(cost.prompts, 'sentence')} encoded once",
        "scores": evaluation.figures.scoring,
        "temperature": f"{subject.label_set.temperature:g}",
        "checkpoint": model.checkpoint if model else "",
        "fingerprint": model.fingerprint if model else "",
        "device": f"{model.device}, {model.dtype}" if model else "",
        "scored": f"{plural(cost.images, 'picture')} in {plural(cost.jobs, 'job')}",
        "uploaded": plural(cost.uploaded, "file"),
        "time": f"{duration(cost.seconds)}, {rate(cost.images / max(cost.seconds, 1e-3))} a second",
        **{
            f"{name.removesuffix('_s').replace('_', ' ')}, median of a job": f"{seconds:.3f} s"
            for name, seconds in cost.stage_s.items()
        },
    }
    rows: list[Child] = [
        tag("div", tag("dt", name), tag("dd", foreign(value, limit=400)))
        for name, value in details.items()
        if value
    ]
    made = f"Made by labelyard {version}; predictions.jsonl has every score."
    return join(tag("dl", rows, class_="details"), tag("p", made, class_="note"))
