"""The report of a run in a browser: on a screen and a phone, light and dark, against attacks."""

import itertools
from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import Image

from labelyard.runs.lines import ErrorLine, LineError
from labelyard.runs.report import write_report
from tests.support import pictures
from tests.support.browser import Browser, browser_program, running_browser
from tests.support.run_output import LABELS, MANIFEST, failed, generated, scored, write_run

pytestmark = [
    pytest.mark.skipif(browser_program() is None, reason="there is no Chromium on this machine"),
    pytest.mark.timeout(120),
]

SCREENS = [(1280, "light"), (1280, "dark"), (390, "light"), (390, "dark")]
MAX_ELEMENTS = 12_000
ATTACKS = (
    "<script>window.attacked = 1</script>",
    "<img src=x onerror='window.attacked = 2'>",
    '"><svg onload="window.attacked = 3">',
    "</style><script>window.attacked = 4</script>",
    "</title><iframe srcdoc='<script>parent.attacked = 5</script>'></iframe>",
    "javascript:window.attacked=6//",
    "<style>body { display: none }</style>",
    "<base href='https://example.com/'><a href='x'>",
    "<meta http-equiv=refresh content='0;url=https://example.com'>",
    "&#60;script&#62;window.attacked = 7&#60;/script&#62;",
    "\u202egnp.exe\u2066 ${window.attacked = 8}",
)
# Colours of a text and of the background behind it, as a person with weak eyes needs them.
# Source: WCAG 2.2, success criterion 1.4.3; relative luminance.
CONTRASTS = """
(() => {
  const parts = (colour) => colour.match(/[\\d.]+/g).map(Number);
  const light = (colour) => parts(colour).slice(0, 3).map((value) => value / 255)
    .map((value) => value <= 0.04045 ? value / 12.92 : ((value + 0.055) / 1.055) ** 2.4)
    .reduce((sum, value, place) => sum + value * [0.2126, 0.7152, 0.0722][place], 0);
  const behind = (element) => {
    for (let one = element; one; one = one.parentElement) {
      const colour = getComputedStyle(one).backgroundColor;
      if (parts(colour)[3] !== 0) return colour;
    }
    return 'rgb(255, 255, 255)';
  };
  const found = [];
  for (const one of document.querySelectorAll('h1, h2, h3, h4, p, a, dt, dd, th, td, span, summary')) {
    if (!one.textContent.trim() || !one.checkVisibility()) continue;
    const pair = [light(getComputedStyle(one).color), light(behind(one))].sort((a, b) => b - a);
    found.push([(pair[0] + 0.05) / (pair[1] + 0.05), one.tagName + '.' + one.className]);
  }
  found.sort((a, b) => a[0] - b[0]);
  return found[0];
})()
"""


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    """One browser for all tests."""
    with running_browser(tmp_path_factory.mktemp("profile")) as running:
        yield running


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Report of 10,000 pictures, of which as many are shown as a page may have."""
    folder = tmp_path_factory.mktemp("run")
    copies = folder / "copies"
    copies.mkdir()
    for number in range(40):
        (copies / f"{number}.jpg").write_bytes(pictures.jpeg((640, 480), seed=number))
    labels = [*LABELS, *(f"label {number}" for number in range(95))]
    manifest = {
        **MANIFEST,
        "request": {"label_set": {"labels": [{"name": name, "threshold": 0.5} for name in labels]}},
    }
    lines = (
        line.model_copy(update={"uri": f"s3://shop/{line.line % 40}.jpg"})
        for line in generated(10_000, labels=labels)
    )
    write_run(folder / "run", lines, manifest=manifest)
    write_report(folder / "run", folder / "page.html", sample=600, pictures=copies)
    return folder / "page.html"


@pytest.fixture(scope="module")
def attacked_page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Report of a run in which every foreign text is an attack."""
    folder = tmp_path_factory.mktemp("attack")
    lines = []
    for number, text in enumerate(ATTACKS * 4, 1):
        other = ATTACKS[(number + 1) % len(ATTACKS)]
        fields = {"custom_id": text.replace("\u202e", ""), "uri": text}
        lines.append(scored(2 * number, (text, 0.5), (other, 0.45), **fields))
        error = LineError(code=text, message=text)
        lines.append(failed(2 * number + 1, error=error, **fields))
    errors = [ErrorLine(line=900, code=text, message=text, custom_id=text) for text in ATTACKS]
    manifest = {"run_id": ATTACKS[0], **{text: text for text in ATTACKS}}
    write_run(folder / "run", lines, errors=errors, manifest=manifest, is_ended=False)
    write_report(folder / "run", folder / "page.html", pictures=folder)
    return folder / "page.html"


@pytest.mark.parametrize(("width", "scheme"), SCREENS)
def test_the_page_fits_the_screen_and_every_text_can_be_read(
    browser: Browser, page: Path, width: int, scheme: str, tmp_path: Path
) -> None:
    browser.show(page, width=width, scheme=scheme)  # type: ignore[arg-type]

    assert browser.evaluate("document.documentElement.scrollWidth") == width
    assert browser.requests() == []
    assert browser.complaints() == []
    contrast, where = browser.evaluate(CONTRASTS)
    assert contrast >= 4.5, where
    with Image.open(browser.screenshot(tmp_path / "screen.png")) as picture:
        background = picture.convert("L").getpixel((2, picture.height - 2))
    assert (background > 200) == (scheme == "light")


def test_ten_thousand_pictures_make_a_page_of_bounded_size(browser: Browser, page: Path) -> None:
    browser.show(page)

    assert page.stat().st_size < 5_000_000
    assert browser.evaluate("document.querySelectorAll('*').length") < MAX_ELEMENTS
    images = browser.evaluate("document.images.length")
    assert 300 < images <= 600
    assert browser.evaluate("[...document.images].every((one) => one.loading === 'lazy')")
    # Most labels are folded, so that few pictures are laid out and decoded.
    drawn = (
        "[...document.images].filter((one) => one.checkVisibility({contentVisibilityAuto: true}))"
    )
    assert browser.evaluate(f"{drawn}.length") < 200
    assert browser.evaluate("document.scripts.length") == 0


def test_an_attack_in_any_foreign_text_is_shown_as_text(
    browser: Browser, attacked_page: Path
) -> None:
    browser.show(attacked_page)
    browser.evaluate("document.querySelectorAll('details').forEach((one) => { one.open = true })")

    assert browser.evaluate("window.attacked ?? null") is None
    assert browser.complaints() == []
    assert browser.requests() == []
    assert browser.evaluate("document.querySelectorAll('script, iframe, base, form').length") == 0
    assert browser.evaluate("document.querySelectorAll('style').length") == 1
    leads_out = "[...document.links].filter((one) => !one.getAttribute('href').startsWith('#'))"
    assert browser.evaluate(f"{leads_out}.length") == 0
    text = browser.evaluate("document.body.innerText")
    assert all(attack in text for attack in ATTACKS[:-1])
    assert not {"\u202e", "\u2066"} & set(text)


def test_code_that_came_into_the_page_would_not_run(
    browser: Browser, page: Path, tmp_path: Path
) -> None:
    """The page's policy is a second wall, if the escaping ever failed."""
    broken = tmp_path / "broken.html"
    code = "<script>window.attacked = 1</script><img src=x onerror='window.attacked = 2'>"
    broken.write_text(page.read_text().replace("<header>", f"{code}<header>", 1))

    browser.show(broken)

    assert browser.evaluate("window.attacked ?? null") is None
    assert any("Content Security Policy" in text for text in browser.complaints())


def test_a_link_in_the_table_unfolds_its_label_and_keys_reach_it(
    browser: Browser, page: Path
) -> None:
    browser.show(page)
    browser.evaluate("document.querySelector('a[href=\"#label-9\"]').focus()")

    browser.press("Enter", code=13)

    assert browser.evaluate("document.getElementById('label-9').closest('details').open")
    assert browser.evaluate("location.hash") == "#label-9"


def test_headings_go_down_one_level_at_a_time_and_every_picture_has_a_text(
    browser: Browser, page: Path
) -> None:
    browser.show(page)

    levels = browser.evaluate(
        "[...document.querySelectorAll('h1, h2, h3, h4')].map((one) => +one.tagName[1])"
    )
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(after <= before + 1 for before, after in itertools.pairwise(levels))
    assert browser.evaluate("[...document.images].every((one) => one.alt.length > 5)")
    assert browser.evaluate(
        "[...document.querySelectorAll('svg')].every((one) => one.ariaLabel || one.ariaHidden)"
    )
    assert browser.evaluate("document.documentElement.lang") == "en"
