"""Errors: they survive the wire, their codes are distinct, and the docs know them all."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
from celery import Celery

from labelyard import errors
from labelyard.errors import ImageError, LabelyardError, all_errors

DOCS = Path(__file__).parents[2] / "docs" / "errors.md"
# The worker has errors of its own, below ours, that never leave it.
ERRORS = [cls for cls in all_errors() if cls.__module__ == errors.__name__]
LEAVES = [cls for cls in ERRORS if not any(other.__base__ is cls for other in ERRORS)]


def through_celery(raised: LabelyardError) -> Any:
    backend = Celery(backend="cache+memory://", set_as_current=False).backend
    wire = json.loads(json.dumps(backend.prepare_exception(raised, "json")))
    return backend.exception_to_python(wire)


@pytest.mark.parametrize("cls", ERRORS, ids=lambda cls: cls.__name__)
def test_errors_survive_the_wire(cls: type[LabelyardError]) -> None:
    """The producer sees the class and words that the worker raised."""
    raised = cls("s3://pets/cat.jpg")

    received = through_celery(raised)

    assert (type(received), str(received)) == (cls, str(raised))


def test_every_error_crosses_the_wire_under_the_one_name_that_older_clients_import() -> None:
    backend = Celery(backend="cache+memory://", set_as_current=False).backend
    names = {cls.__name__ for cls in all_errors() if cls.__module__.startswith("labelyard.")}

    wires = [backend.prepare_exception(getattr(errors, name)("s3://a/b"), "json") for name in names]

    assert {wire["exc_module"] for wire in wires} == {"labelyard.errors"}
    assert {wire["exc_type"] for wire in wires} == names


@pytest.mark.parametrize(
    "cls", [cls for cls in ERRORS if issubclass(cls, ImageError)], ids=lambda cls: cls.__name__
)
def test_what_is_wrong_with_an_image_survives_the_wire(cls: type[ImageError]) -> None:
    raised = cls("s3://pets/cat.jpg", "it is a dog")

    received = through_celery(raised)

    assert str(received) == f"{cls.code}: s3://pets/cat.jpg: it is a dog"
    assert (received.uri, received.reason) == ("s3://pets/cat.jpg", "it is a dog")


def test_codes_are_distinct() -> None:
    codes = [cls.code for cls in ERRORS]

    assert len(set(codes)) == len(codes)


def test_an_error_without_words_is_its_code() -> None:
    assert str(errors.QueueFullError()) == "queue_full"


@pytest.mark.parametrize("cls", LEAVES, ids=lambda cls: cls.__name__)
def test_the_tree_at_the_top_of_the_file_shows_every_error(cls: type[LabelyardError]) -> None:
    assert re.search(rf"{cls.__name__}\s+{cls.code}\n", errors.__doc__ or "")


def test_the_docs_list_every_code_once_and_no_other() -> None:
    rows = re.findall(
        r"^\| `(\w+)` \| \S.* \| \S.* \|$", DOCS.read_text(encoding="utf-8"), re.MULTILINE
    )

    assert sorted(rows) == sorted(cls.code for cls in LEAVES)
