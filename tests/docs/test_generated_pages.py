"""The generated pages of docs/ equal those that the code would generate now."""

import pytest
from pydantic import BaseModel

from docs import generate
from labelyard.settings import ClientSettings
from labelyard_worker.settings import WorkerSettings


@pytest.mark.parametrize("name", ["settings.md", "ledger-keys.md", "metrics.md"])
def test_page_is_what_make_docs_would_write(name: str) -> None:
    """If this fails, run ``make docs`` and review the diff."""
    path = generate.DOCS / name

    assert path.read_text(encoding="utf-8") == generate.pages()[path]


@pytest.mark.parametrize("cls", generate.groups(), ids=lambda cls: cls.__name__)
def test_each_setting_has_its_meaning_directly_above_it(cls: type[BaseModel]) -> None:
    assert [name for name, meaning in generate.meanings(cls).items() if not meaning] == []


def test_page_lists_each_setting_once() -> None:
    listed = [name for cls in generate.groups() for name in generate.meanings(cls)]

    assert sorted(listed) == sorted({*ClientSettings.model_fields, *WorkerSettings.model_fields})


def test_a_comment_that_a_blank_line_separates_is_no_meaning() -> None:
    lines = ["#: Of another.", "", "#: Longest wait,", "#: in seconds.", "wait_s: float = 1"]

    assert generate.comment_above(lines, 5) == "Longest wait, in seconds."
    assert generate.comment_above(lines, 3) == ""


def test_settings_named_in_a_meaning_are_written_as_variables() -> None:
    meaning = "needs https_sources; see ``decode``"

    assert generate.code_of(meaning) == "needs `LABELYARD_HTTPS_SOURCES`; see `decode`"
