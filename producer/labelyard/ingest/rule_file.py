"""Reads a rule file; each fault is named with its line and field."""

import re
import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from pydantic import ValidationError

from labelyard.errors import ServiceConfigError
from labelyard.ingest.rules import IngestRules
from labelyard.refusals import sentences_of

MAX_FILE_BYTES: Final = 4 * 1024 * 1024
_TABLE: Final = re.compile(r"^\s*(\[\[?)\s*([^\[\]]+?)\s*\]\]?\s*(?:#.*)?$")
_KEY: Final = re.compile(r"""^\s*((?:[A-Za-z0-9_-]+|"[^"]*"|'[^']*')(?:\s*\.\s*[^=\s]+)*)\s*=""")
_QUOTES: Final = ('"""', "'''")


def read_rule_file(path: Path) -> IngestRules:
    """Read and check a rule file.

    Raises:
        ServiceConfigError: It cannot be read, or it is refused; the text names line and field.
    """
    try:
        with path.open("rb") as file:
            raw = file.read(MAX_FILE_BYTES + 1)
        text = raw.decode("utf-8-sig")
    except OSError as error:
        raise ServiceConfigError(f"{path}: {error.strerror or error}") from error
    except UnicodeDecodeError as error:
        raise ServiceConfigError(f"{path}: is not UTF-8 (byte {error.start})") from error
    if len(raw) > MAX_FILE_BYTES:
        raise ServiceConfigError(f"{path}: is larger than {MAX_FILE_BYTES} bytes")
    return parse_rules(text, name=path.name)


def parse_rules(text: str, *, name: str) -> IngestRules:
    """Parse the text of a rule file.

    Args:
        name: Name of the file, for errors.

    Raises:
        ServiceConfigError: It is refused; the text names line and field.
    """
    try:
        content = tomllib.loads(text)
    except (tomllib.TOMLDecodeError, RecursionError, ValueError) as error:
        raise ServiceConfigError(f"{name}: is not TOML: {error}") from error
    lines = LineIndex(text)

    def place(path: Sequence[str]) -> str:
        return f"{name}, line {lines.line_of(path)}, {lines.field_of(path, content)}"

    try:
        return IngestRules.model_validate(content)
    except ValidationError as error:
        found = sentences_of(error, whole=f"{name}, line 1", name=place)
        words = "is not a field of a rule file: remove it, or correct its name"
        found = found.replace(
            "is not a field of the contract: remove it, or correct its name", words
        )
        raise ServiceConfigError(found) from error


class LineIndex:
    """Lines on which the tables and keys of a TOML file begin.

    Keys of inline tables that span lines are not found; their table is.
    """

    def __init__(self, text: str) -> None:
        self._lines: dict[tuple[str, ...], int] = {(): 1}
        self._read(text)

    def line_of(self, path: Sequence[str]) -> int:
        """Return the line, from 1, of a field or of the nearest table around it."""
        parts = tuple(path)
        while parts not in self._lines:
            parts = parts[:-1]
        return self._lines[parts]

    def field_of(self, path: Sequence[str], content: object) -> str:
        """Write a field's path, with a rule's name in place of its number."""
        parts = list(path)
        if len(parts) > 1 and parts[0] == "rules" and isinstance(content, dict):
            rules = content.get("rules")
            number = int(parts[1]) if parts[1].isdecimal() else -1
            rule = rules[number] if isinstance(rules, list) and 0 <= number < len(rules) else None
            named = rule.get("name") if isinstance(rule, dict) else None
            shown = named if isinstance(named, str) and named.isprintable() else str(number + 1)
            parts[:2] = [f"rule {shown[:64]}"]
            is_list = isinstance(rule, dict) and isinstance(rule.get("labels"), list)
            if is_list and parts[1:3] == ["labels", "labels"]:
                del parts[1]  # the label set that the list was read as
        return ".".join(parts)

    def _read(self, text: str) -> None:
        table: tuple[str, ...] = ()
        counts: dict[str, int] = {}
        open_quote = ""
        for number, line in enumerate(text.splitlines(), start=1):
            if open_quote:
                open_quote = "" if line.count(open_quote) % 2 else open_quote
                continue
            if match := _TABLE.match(line):
                table = self._enter(match[1] == "[[", _split(match[2]), counts)
                self._lines.setdefault(table, number)
            elif match := _KEY.match(line):
                parts = _split(match[1])
                for end in range(1, len(parts) + 1):
                    self._lines.setdefault((*table, *parts[:end]), number)
            open_quote = next((one for one in _QUOTES if line.count(one) % 2), "")

    def _enter(
        self, is_array: bool, parts: tuple[str, ...], counts: dict[str, int]
    ) -> tuple[str, ...]:
        """Return the path of a table; those below an array of tables belong to its last one."""
        if is_array and len(parts) == 1:
            counts[parts[0]] = counts.get(parts[0], -1) + 1
        if parts[0] in counts:
            return (parts[0], str(counts[parts[0]]), *parts[1:])
        return parts


def _split(dotted: str) -> tuple[str, ...]:
    return tuple(part.strip().strip("\"'") for part in dotted.split("."))
