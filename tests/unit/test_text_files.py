"""Text files that people write for the commands: a byte order mark, and what is not text."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from labelyard.cli.inputs import read_uris
from labelyard.cli.label_options import read_label_set
from labelyard.cli.label_set_versions import read_figures
from labelyard.errors import InvalidMessageError
from labelyard.label_sets import as_label_set
from labelyard.testing import FakeClient

PETS = ["a cat", "a dog"]
SHARES = {"a cat": 0.8, "a dog": 0.2}
SAMPLE = [{"image": "s3://photos/2.jpg"}]
LINES = [{"image": "s3://photos/1.jpg", "label": "a cat"}]


def templates_in(file: Path) -> object:
    """Return the templates that a comparison measures."""
    choice = FakeClient().compare_templates(PETS, LINES, templates=file)
    return [one.subject.label_set.templates for one in choice.evaluations]


def shares_in(file: Path) -> object:
    """Return the label set that is adapted to the shares."""
    label_set = as_label_set(PETS, scoring="softmax")
    return FakeClient().adapt(label_set, shares=file, sample=SAMPLE, name="pets").label_set


READERS: dict[str, tuple[Callable[[Path], Any], str, str]] = {
    "labels": (read_label_set, "labels.txt", "a cat\na dog\n"),
    "label set": (read_label_set, "pets.json", as_label_set(PETS).model_dump_json()),
    "label lines": (read_label_set, "pets.jsonl", '{"name": "a cat"}\n{"name": "a dog"}'),
    "templates": (templates_in, "templates.txt", "a photo of {}.\n"),
    "shares": (shares_in, "shares.json", json.dumps(SHARES)),
    "report": (read_figures, "report.json", '{"accuracy": 0.9}'),
    "addresses": (lambda file: list(read_uris([], file)), "uris.txt", "s3://photos/1.jpg\n"),
}
every_reader = pytest.mark.parametrize(
    ("read", "name", "text"), READERS.values(), ids=READERS.keys()
)


@every_reader
def test_a_byte_order_mark_and_line_ends_of_windows_change_nothing(
    read: Callable[[Path], Any], name: str, text: str, tmp_path: Path
) -> None:
    plain, marked = tmp_path / name, tmp_path / f"marked-{name}"
    plain.write_text(text)
    marked.write_bytes(b"\xef\xbb\xbf" + text.replace("\n", "\r\n").encode())

    assert read(marked) == read(plain)


@every_reader
@pytest.mark.parametrize("content", [b"\xff\xfe\x00caf\xe9", None], ids=["bytes", "folder"])
def test_what_is_no_text_is_an_error_that_names_the_file(
    read: Callable[[Path], Any], name: str, text: str, content: bytes | None, tmp_path: Path
) -> None:
    file = tmp_path / name
    if content is None:
        file.mkdir()
    else:
        file.write_bytes(content)

    with pytest.raises(InvalidMessageError) as caught:
        read(file)

    assert name in str(caught.value)
    assert "codec" not in str(caught.value)
    assert "Errno" not in str(caught.value)
