"""The lexicon of the lite checkpoint: well-formed, in order, and made of classes that exist."""

import json
import tomllib
from itertools import pairwise

import pytest

from labelyard_worker.vision.lite.build import CLASS_NAMES, locate
from labelyard_worker.vision.lite.lexicon import LEXICON_FILE, LexiconError, read_lexicon

NAMES = ["tench", "crane", "hen", "crane", "ostrich"]


@pytest.fixture(scope="module")
def class_names() -> list[str]:
    names: list[str] = json.loads(locate(CLASS_NAMES).read_text("utf-8"))
    return names


def test_every_class_that_the_lexicon_names_exists_in_the_wheel(class_names: list[str]) -> None:
    lexicon = read_lexicon(class_names)

    assert len(lexicon) > 150
    assert all(line.phrases and line.classes for line in lexicon)
    assert all(0 <= index < 1000 for line in lexicon for index in line.classes)


def test_no_phrase_is_listed_twice(class_names: list[str]) -> None:
    phrases = [phrase for line in read_lexicon(class_names) for phrase in line.phrases]

    assert len(phrases) == len(set(phrases))


def test_themes_and_their_lines_are_sorted() -> None:
    themes = tomllib.loads(LEXICON_FILE.read_text("utf-8"))

    for names in (list(themes), *(list(lines) for lines in themes.values())):
        assert all(first < second for first, second in pairwise(names)), names


def test_a_span_means_all_classes_from_one_to_the_other() -> None:
    [line] = read_lexicon(NAMES, text='[birds]\n"bird,  a big\tbird" = "hen .. ostrich, tench"')

    assert line.phrases == ("bird", "a big bird")
    assert line.classes == (0, 2, 3, 4)


def test_a_name_that_two_classes_share_means_both() -> None:
    [line] = read_lexicon(NAMES, text='[birds]\n"wader" = "crane"')

    assert line.classes == (1, 3)


@pytest.mark.parametrize(
    ("classes", "reason"),
    [
        ("emu", "no class is called 'emu'"),
        ("ostrich .. tench", "'ostrich .. tench' runs backwards"),
    ],
)
def test_a_wrong_line_is_named_with_its_reason(classes: str, reason: str) -> None:
    with pytest.raises(LexiconError, match=f"in the line of 'bird': {reason}"):
        read_lexicon(NAMES, text=f'[birds]\n"bird" = "{classes}"')
