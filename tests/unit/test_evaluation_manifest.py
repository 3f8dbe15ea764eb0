"""Manifests of labelled pictures: what each line means, and what is wrong with it."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from labelyard.errors import InvalidMessageError
from labelyard.evaluation.adapting import read_shares
from labelyard.evaluation.manifest import LabelledImage, read_manifest
from labelyard.evaluation.template_choice import with_templates
from labelyard.label_sets import as_label_set

LABELS = ("cat", "dog")
Written = Callable[[Sequence[Any]], Path]


@pytest.fixture
def written(tmp_path: Path) -> Written:
    """Return a function that writes lines into a manifest beside the pictures a.jpg and b.jpg."""
    for name in ("a.jpg", "b.jpg"):
        (tmp_path / name).write_bytes(b"a picture")

    def write(lines: Sequence[Any]) -> Path:
        path = tmp_path / "manifest.jsonl"
        texts = (line if isinstance(line, str) else json.dumps(line) for line in lines)
        path.write_text("".join(f"{text}\n" for text in texts), encoding="utf-8")
        return path

    return write


def test_a_line_has_one_label_or_several_or_none_of_them(written: Written) -> None:
    lines = [
        {"image": "a.jpg", "label": "cat"},
        {"image": "s3://photos/b.jpg", "labels": ["cat", "dog", "cat"]},
        {"image": "https://example.com/c.jpg", "label": None, "text": "soup"},
        {"image": "b.jpg", "labels": [], "path": ["animal", "cat"]},
    ]

    images = read_manifest(written(lines), labels=LABELS)

    assert [one.labels for one in images] == [("cat",), ("cat", "dog"), (), ()]
    assert [one.file and one.file.name for one in images] == ["a.jpg", None, None, "b.jpg"]
    assert (images[2].text, images[3].path) == ("soup", ("animal", "cat"))


def test_a_collection_of_pictures_may_name_them_by_file(written: Written) -> None:
    [image] = read_manifest(written([{"file": "a.jpg", "label": "cat", "licence": "CC0-1.0"}]))

    assert image.image == "a.jpg"


@pytest.mark.parametrize(
    ("split", "lines"),
    [(None, [2]), ("test", [2]), ("train", [1])],
)
def test_the_test_split_is_taken_unless_another_is_named(
    split: str | None, lines: list[int], written: Written
) -> None:
    path = written(
        [
            {"image": "a.jpg", "label": "cat", "split": "train"},
            {"image": "b.jpg", "label": "dog", "split": "test"},
            {"image": "b.jpg", "label": "dog"},
        ]
    )

    assert [one.line for one in read_manifest(path, split=split)] == lines


def test_without_a_test_split_every_line_is_taken(written: Written) -> None:
    path = written([{"image": "a.jpg", "label": "cat", "split": "mine"}] * 2)

    assert len(read_manifest(path)) == 2


def test_a_label_outside_the_set_counts_in_the_chosen_split_alone(written: Written) -> None:
    path = written(
        [
            {"image": "a.jpg", "label": "a cow", "split": "train"},
            {"image": "a.jpg", "label": "cat", "split": "test"},
        ]
    )

    assert len(read_manifest(path, labels=LABELS)) == 1
    with pytest.raises(InvalidMessageError, match="line 1: the label set has no label 'a cow'"):
        read_manifest(path, labels=LABELS, split="train")


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ({"image": "a.jpg"}, "there is no label"),
        ({"image": "a.jpg", "lable": "cat"}, "there is no label"),
        ({"image": "a.jpg", "label": "cat", "labels": ["cat"]}, "exclude each other"),
        ({"image": "a.jpg", "labels": "cat"}, "labels: write a list"),
        ({"image": "a.jpg", "label": 3}, "label: write text"),
        ({"label": "cat"}, "image: is missing"),
        ({"image": "gone.jpg", "label": "cat"}, "there is no file"),
        ({"image": ".", "label": "cat"}, "there is no file"),
        ({"image": "a\0.jpg", "label": "cat"}, "there is no file"),
        ({"image": "a.jpg", "label": "cat", "split": 1}, "split: write text"),
        ({"image": "a.jpg", "label": "\ud800"}, "not JSON|half of a surrogate"),
        ("[1, 2]", "write an object"),
        ("{", "not JSON"),
        ("[" * 100_000, "nested too deeply"),
    ],
)
def test_a_fault_names_its_line_and_the_remedy(line: Any, said: str, written: Written) -> None:
    path = written([{"image": "a.jpg", "label": "cat"}, "", line])

    with pytest.raises(InvalidMessageError, match=rf"manifest\.jsonl: line 3: .*({said})"):
        read_manifest(path, labels=LABELS)


def test_many_faults_are_one_error(written: Written) -> None:
    with pytest.raises(InvalidMessageError, match=r"line 5: .*; and 95 more$"):
        read_manifest(written([{"image": "a.jpg"}] * 100))


@pytest.mark.parametrize("split", ["tset", None])
def test_a_split_without_a_line_names_those_that_there_are(
    split: str | None, written: Written
) -> None:
    lines = [{"image": "a.jpg", "label": "cat", "split": "train"}] if split else []
    with pytest.raises(InvalidMessageError, match=r"its splits are train|there is no line"):
        read_manifest(written(lines), split=split)


@pytest.mark.parametrize("name", ["gone.jsonl", "", "a\0b"])
def test_a_manifest_that_cannot_be_read_is_an_error_of_ours(name: str, tmp_path: Path) -> None:
    with pytest.raises(InvalidMessageError):
        read_manifest(tmp_path / name)


@pytest.mark.parametrize("file", ["\ud800", "\udcff.jsonl"])
@pytest.mark.parametrize(
    "read",
    [
        lambda file: read_manifest(file, split=None, labels={"cat"}),
        lambda file: read_shares(file, ["cat", "dog"]),
        lambda file: with_templates(as_label_set(["cat", "dog"]), file),
    ],
    ids=["manifest", "shares", "templates"],
)
def test_a_file_whose_name_is_not_text_has_an_error_that_can_be_printed(
    read: Callable[[str], Any], file: str
) -> None:
    with pytest.raises(InvalidMessageError) as refused:
        read(file)

    assert str(refused.value).encode()


def test_lines_may_come_as_objects_and_pass_through(written: Written) -> None:
    [image] = read_manifest([{"image": "s3://photos/a.jpg", "label": "cat"}])

    assert read_manifest([image]) == [image]
    assert isinstance(image, LabelledImage)


@given(line=st.binary(max_size=60))
def test_any_bytes_are_a_line_or_an_error_of_ours(
    line: bytes, tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.getbasetemp() / "any.jsonl"
    path.write_bytes(line)
    try:
        read_manifest(path)
    except InvalidMessageError as error:
        assert str(path) in str(error)  # noqa: PT017 - either outcome is right
