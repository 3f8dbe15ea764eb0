"""The demo's report: the results as stored, and one page that needs nothing else."""

import json
from dataclasses import dataclass
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from pydantic import TypeAdapter

from labelyard.errors import ImageUndecodableError
from labelyard.messages import ImageRef, Result
from labelyard.testing import sample_job, sample_result
from labelyard.testing.samples import fail_image
from labelyard_worker.local.report import make_page, write_report
from tests.support import pictures


@dataclass(frozen=True)
class Shown:
    name: str
    picture: bytes
    result: Result
    seconds: float = 0.0421


class Page(HTMLParser):
    """Parser of the text that a reader would see, and of the addresses a browser would fetch."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[dict[str, str | None]] = []
        self.words = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes.append(dict(attrs))

    def handle_data(self, data: str) -> None:
        self.words += data

    def values(self, name: str) -> list[str]:
        return [str(found[name]) for found in self.attributes if name in found]


def redact(name: str = "cat.png", **changes: Any) -> Shown:
    job = sample_job(images=(ImageRef(id=name, uri=f"s3://photos/{name}"),))
    result = sample_result(job=job).model_copy(update=changes)
    return Shown(name, pictures.png(), result)


def test_results_are_written_as_they_are_stored(tmp_path: Path) -> None:
    entries = [redact("a.png"), redact("b.png")]

    write_report(tmp_path / "report", entries)

    written = (tmp_path / "report" / "results.json").read_text()
    assert TypeAdapter(list[Result]).validate_json(written) == [one.result for one in entries]
    assert json.loads(written)[0]["images"][0]["id"] == "a.png"


def test_the_page_shows_each_photograph_with_its_labels_and_its_time() -> None:
    found = Page(make_page([redact("a.png"), redact("b.png")]))

    assert found.values("alt") == ["a.png", "b.png"]
    assert found.words.count("42 ms") == 2
    assert "a bowl of soup" in found.words
    assert "Model: fake, float32 on cpu" in found.words
    assert found.values("width") == ["50", "25", "12.5"] * 2


def test_the_page_fetches_nothing() -> None:
    text = make_page([redact()])
    found = Page(text)

    assert all(source.startswith("data:image/png;base64,") for source in found.values("src"))
    assert found.values("href") == []
    assert not {"script", "link", "iframe"} & set(found.tags)
    assert "url(" not in text
    assert "@import" not in text


@pytest.mark.parametrize(("picture", "kind"), [(pictures.png(), "png"), (pictures.jpeg(), "jpeg")])
def test_a_photograph_is_embedded_as_what_it_is(picture: bytes, kind: str) -> None:
    entry = Shown("x", picture, redact().result)

    (source,) = Page(make_page([entry])).values("src")

    assert source.startswith(f"data:image/{kind};base64,")


def test_names_are_words_and_no_markup() -> None:
    found = Page(make_page([redact('<script>alert("1")</script>.png')]))

    assert "script" not in found.tags
    assert found.values("alt") == ['<script>alert("1")</script>.png']


def test_a_photograph_that_failed_says_why() -> None:
    entry = redact()
    image = entry.result.images[0]
    broken = fail_image(ImageRef(id=image.id, uri=image.uri), ImageUndecodableError(image.uri))

    found = Page(make_page([redact(images=(broken,), model=None)]))

    assert "image_undecodable" in found.words
