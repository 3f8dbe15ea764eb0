"""The pages of an evaluation and of a comparison in a browser, on a screen and a phone."""

from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

from labelyard.evaluation.comparison import compare_evaluations
from labelyard.evaluation.evaluation import Evaluation
from labelyard.messages import Certified, CertifiedLabel, Label, LabelSet, Learned
from labelyard.testing import FakeClient, answer_by_scores
from tests.support.browser import Browser, browser_program, running_browser

pytestmark = [
    pytest.mark.skipif(browser_program() is None, reason="there is no Chromium on this machine"),
    pytest.mark.timeout(120),
]
NAMES: Final = ("a gun", "banknotes", "everyday things")
PICTURES: Final = 12
#: Height of three lines of a table's cell; a word that is broken between its letters takes more.
MOST_PX: Final = 95


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    """One browser for all tests."""
    with running_browser(tmp_path_factory.mktemp("profile")) as running:
        yield running


def evaluated(*, right: int) -> Evaluation:
    """Evaluate a set with a certified label that has some pictures of each label right."""
    scores, lines = {}, []
    for place in range(PICTURES):
        name, other = NAMES[place % 3], NAMES[(place + 1) % 3]
        best = name if place < right else other
        uri = f"s3://photos/{place}-{'x' * 40}.jpg"
        scores[uri] = {one: 0.9 if one == best else 0.05 for one in NAMES}
        lines.append({"image": uri, "label": name})
    certified = Certified(
        precision=0.95,
        confidence=0.9,
        accepted=188,
        errors=3,
        labels={NAMES[2]: CertifiedLabel(threshold=0.0, accepted=188, errors=3)},
    )
    label_set = LabelSet(
        labels=tuple(Label(name=name) for name in NAMES),
        learned=Learned(checkpoint="sha256:lite", certified=certified),
    )
    client = FakeClient(answer_by_scores(scores))
    return client.evaluate(label_set, lines, require=["accuracy>=0.9"])


@pytest.fixture(scope="module", params=["evaluation", "comparison"])
def page(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Page of an evaluation with errors, or of a comparison with one without them."""
    folder = tmp_path_factory.mktemp("pages")
    second = evaluated(right=PICTURES)
    first = evaluated(right=PICTURES // 2)
    made = first if request.param == "evaluation" else compare_evaluations(first, second)
    return made.write(folder / request.param, has_thumbnails=False) / "report.html"


@pytest.mark.parametrize("width", [1280, 390])
def test_the_page_fits_the_screen_and_breaks_no_word_of_a_table(
    browser: Browser, page: Path, width: int
) -> None:
    browser.show(page, width=width)

    assert browser.evaluate("document.documentElement.scrollWidth") == width
    highest = "Math.max(...[...document.querySelectorAll('th, td')].map((one) => one.offsetHeight))"
    assert browser.evaluate(highest) < MOST_PX
    assert browser.complaints() == []
    assert browser.requests() == []


def test_a_phone_shows_which_label_is_certified(browser: Browser, page: Path) -> None:
    browser.show(page, width=390)

    shown = "[...document.querySelectorAll('th small')].filter((one) => one.checkVisibility())"
    texts = browser.evaluate(f"{shown}.map((one) => one.textContent)")
    assert texts == (["certified for 0.95"] if page.parent.name == "evaluation" else [])
