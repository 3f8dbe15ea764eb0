"""Markup escapes every text, and makes no element that could run code."""

from html.parser import HTMLParser

import pytest
from hypothesis import given
from hypothesis import strategies as st

from labelyard.html_page import content_policy, html_page
from labelyard.markup import Markup, foreign, join, printable, tag


class Read(HTMLParser):
    """Parser of the elements and the text of a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(text)
        self.close()

    def handle_starttag(self, name: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((name, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text += data


@given(st.text())
def test_any_text_comes_back_as_text_and_as_an_attribute(text: str) -> None:
    page = str(tag("p", text, title=text))

    read = Read(page.encode().decode())

    (name, attributes), *others = read.elements
    assert (name, others) == ("p", [])
    plain = printable(text)
    assert attributes == {"title": plain}
    assert read.text == plain


@given(st.text())
def test_a_foreign_text_cannot_turn_or_hide_the_text_around_it(text: str) -> None:
    shown = foreign(text, limit=50)

    assert not {"\u202e", "\u2066", "\x00", "\x1b"} & set(shown)
    assert len(Read(shown).text) <= 50


def test_markup_is_joined_as_it_is_and_texts_are_not() -> None:
    assert join("<b>", Markup("<i>x</i>"), [1, None, ["&"]]) == "&lt;b&gt;<i>x</i>1&amp;"


@pytest.mark.parametrize("name", ["script", "iframe", "object", "base", "form", "p onclick"])
def test_an_element_that_could_run_code_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match="no use"):
        tag(name)


@pytest.mark.parametrize(
    "attributes",
    [
        {"onclick": "x"},
        {"style": "x"},
        {"href": "javascript:alert(1)"},
        {"href": "https://example.com"},
        {"src": "https://example.com/x.png"},
        {"src": "data:text/html,x"},
    ],
)
def test_an_attribute_that_runs_code_or_leads_away_is_refused(attributes: dict[str, str]) -> None:
    with pytest.raises(ValueError, match=r"no use|leads out"):
        tag("a", **attributes)


def test_a_page_allows_its_own_style_and_embedded_pictures_alone() -> None:
    page = html_page(title="<t>", style="p { color: red }", body=tag("p", "x"))

    policy = dict(Read(page).elements[3][1])["content"] or ""
    assert "default-src 'none'" in policy
    assert "script" not in policy
    assert "unsafe" not in policy
    style = page.partition("<style>")[2].partition("</style>")[0]
    assert policy == content_policy(style)
