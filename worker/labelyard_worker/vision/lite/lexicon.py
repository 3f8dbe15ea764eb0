"""Which of ImageNet's classes a photograph of a phrase excites; the phrases are in ``lexicon.toml``."""

import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

LEXICON_FILE = Path(__file__).with_name("lexicon.toml")
SPAN = " .. "


@dataclass(frozen=True)
class Association:
    """One line of the lexicon.

    Attributes:
        phrases: Words that mean the same to an eye.
        classes: Indices of the ImageNet classes that such photographs excite, ascending.
    """

    phrases: tuple[str, ...]
    classes: tuple[int, ...]


class LexiconError(ValueError):
    """A line of the lexicon is wrong."""

    def __init__(self, line: str, reason: str) -> None:
        super().__init__(line, reason)
        self.line = line
        self.reason = reason

    def __str__(self) -> str:
        return f"{LEXICON_FILE.name}, in the line of {self.line!r}: {self.reason}"


def read_lexicon(class_names: Sequence[str], *, text: str | None = None) -> list[Association]:
    """Read the lexicon and look its class names up.

    Args:
        class_names: Names of the classes, in the order of the classifier's outputs.
        text: TOML to read; None reads the lexicon of this package.

    Raises:
        LexiconError: A line names a class that is not in *class_names*, or a span from a later
            class to an earlier one.
    """
    themes = tomllib.loads(LEXICON_FILE.read_text("utf-8") if text is None else text)
    classes_by_name = group_by_name(class_names)
    return [
        Association(
            phrases=tuple(split(phrases)),
            classes=tuple(sorted(set(look_up(classes, classes_by_name, line=phrases)))),
        )
        for lines in themes.values()
        for phrases, classes in lines.items()
    ]


def group_by_name(class_names: Sequence[str]) -> dict[str, list[int]]:
    """Map each name to its classes: two names stand for two classes each."""
    classes_by_name: dict[str, list[int]] = {}
    for index, name in enumerate(class_names):
        classes_by_name.setdefault(name, []).append(index)
    return classes_by_name


def look_up(
    classes: str, classes_by_name: Mapping[str, Sequence[int]], *, line: str
) -> Iterator[int]:
    """Yield the indices that a line's right side stands for, spans spelt out."""
    for part in split(classes):
        ends = part.split(SPAN)
        for name in ends:
            if name not in classes_by_name:
                raise LexiconError(line, f"no class is called {name!r}")
        if len(ends) == 1:
            yield from classes_by_name[part]
            continue
        span = range(classes_by_name[ends[0]][0], classes_by_name[ends[-1]][-1] + 1)
        if not span:
            raise LexiconError(line, f"{part!r} runs backwards")
        yield from span


def split(line: str) -> list[str]:
    """Cut a line at its commas, and make any white space one blank."""
    return [" ".join(part.split()) for part in line.split(",")]
