"""The generated pages of docs/ equal those that the code would generate now."""

import pytest

from docs import generate
from labelyard.settings import ClientSettings, ConnectionSettings
from labelyard_worker.settings import WorkerSettings


def test_settings_page_is_what_make_docs_would_write() -> None:
    """If this fails, run ``make docs`` and review the diff."""
    path = generate.DOCS / "settings.md"

    assert path.read_text(encoding="utf-8") == generate.pages()[path]


@pytest.mark.parametrize("cls", [ConnectionSettings, ClientSettings, WorkerSettings])
def test_docstring_tells_of_each_setting_and_of_no_other(cls: type[ConnectionSettings]) -> None:
    inherited = set().union(*(getattr(base, "model_fields", ()) for base in cls.__bases__))
    told = [name for group in generate.attribute_groups(cls) for name in group]

    assert sorted(told) == sorted(set(cls.model_fields) - inherited)


def test_settings_named_in_a_meaning_are_written_as_variables() -> None:
    meaning = "needs https_sources; see ``decode``"

    assert generate.code_of(meaning) == "needs `LABELYARD_HTTPS_SOURCES`; see `decode`"
