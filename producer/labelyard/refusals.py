"""Sentences for pydantic's refusals: the field at fault, and what to write instead."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Final

from pydantic import ValidationError

#: Faults in one text; the rest are counted.
MAX_FAULTS: Final = 5
LONGEST_PART: Final = 40
# Names that pydantic gives to the alternatives of a union; they are not fields.
_ALTERNATIVES: Final = ("function-", "constrained-", "LabelSet")

_ID_RULE: Final = "letters, digits, dots, underscores and hyphens, a letter or digit first"
WORDS_BY_PATTERN: Final[Mapping[str, str]] = {
    r"^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$": f"write up to 128 {_ID_RULE}",
    r"^[A-Za-z0-9][A-Za-z0-9._:/-]{0,127}$": (
        "write up to 128 letters, digits and the characters . _ : / -, a letter or digit first"
    ),
    r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$": f"write up to 64 {_ID_RULE}",
    r"^[A-Za-z0-9._-]{1,64}$": "write 1 to 64 letters, digits, dots, underscores and hyphens",
    r"^[A-Za-z0-9._:-]{1,128}$": "write 1 to 128 letters, digits and the characters . _ : -",
    r"^[0-9a-f]{64}$": "write 64 hexadecimal digits",
    r"^sha256:[0-9a-f]{64}$": "write sha256: and 64 hexadecimal digits",
    r"^[a-z0-9][a-z0-9._-]{0,63}@sha256:[0-9a-f]{64}$": (
        "write the reference of a registered label set, name@sha256:…"
    ),
    r"^[a-z0-9][a-z0-9._-]{0,63}@[a-z0-9][a-z0-9._-]{0,63}$": (
        "write the alias of a label set, name@alias"
    ),
    r"^https?://": "write an address that begins with https:// or http://",
    r"^[\x20-\x7e]+$": "write printable ASCII characters",
}
_WORDS_BY_PART_OF_PATTERN: Final = (
    ("^s3://", "write an address of the form s3://bucket/key, without control characters"),
    (r"\{\}", "write a sentence with {} exactly once, and without control characters"),
    ("^[^", "remove the control characters"),
)


def _pattern(context: Mapping[str, Any]) -> str:
    pattern = str(context["pattern"])
    if pattern in WORDS_BY_PATTERN:
        return WORDS_BY_PATTERN[pattern]
    for part, words in _WORDS_BY_PART_OF_PATTERN:
        if part in pattern:
            return words
    return f"write text of the form {pattern}"


def _said(context: Mapping[str, Any]) -> str:
    return str(context["error"])


def _counted(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


_SENTENCES: Final[Mapping[str, Callable[[Mapping[str, Any]], str]]] = {
    "value_error": _said,
    "assertion_error": _said,
    "missing": lambda _: "is missing: write it",
    "extra_forbidden": lambda _: "is not a field of the contract: remove it, or correct its name",
    "string_type": lambda _: "write text",
    "string_unicode": lambda _: "holds half of a surrogate pair, which is not text: remove it",
    "string_too_short": lambda c: f"write at least {_counted(c['min_length'], 'character')}",
    "string_too_long": lambda c: (
        f"is too long: write at most {_counted(c['max_length'], 'character')}"
    ),
    "string_pattern_mismatch": _pattern,
    "too_short": lambda c: f"name at least {_counted(c['min_length'], 'item')}",
    "too_long": lambda c: f"name at most {_counted(c['max_length'], 'item')}",
    "int_type": lambda _: "write a whole number",
    "int_parsing": lambda _: "write a whole number",
    "int_parsing_size": lambda _: "write a smaller number",
    "int_from_float": lambda _: "write a whole number",
    "float_type": lambda _: "write a number",
    "float_parsing": lambda _: "write a number",
    "finite_number": lambda _: "write a finite number",
    "greater_than": lambda c: f"write a number above {c['gt']:g}",
    "greater_than_equal": lambda c: f"write a number of at least {c['ge']:g}",
    "less_than": lambda c: f"write a number below {c['lt']:g}",
    "less_than_equal": lambda c: f"write a number of at most {c['le']:g}",
    "bool_type": lambda _: "write true or false",
    "bool_parsing": lambda _: "write true or false",
    "literal_error": lambda c: f"write {c['expected']}",
    "timezone_aware": lambda _: "has no time zone: write a date and time with an offset",
    "dict_type": lambda _: "write names with values",
    "list_type": lambda _: "write a list",
    "tuple_type": lambda _: "write a list",
    "set_type": lambda _: "write a list",
    "frozen_set_type": lambda _: "write a list",
    "model_type": lambda _: "write an object with the fields of the contract",
    "model_attributes_type": lambda _: "write an object with the fields of the contract",
    "json_invalid": lambda c: f"is not JSON: {c['error']}",
    "json_type": lambda _: "is not JSON text",
}
_DATES: Final = ("datetime", "date_", "timezone", "time_")
ONE_OR_OTHER: Final = "write a label set, or the reference name@sha256:… of a registered one"


def sentences_of(
    error: ValidationError,
    *,
    whole: str = "message",
    within: str = "",
    name: Callable[[Sequence[str]], str] = ".".join,
) -> str:
    """Describe each fault of *error* as ``field: what to write``, without any field's value.

    Args:
        whole: What a fault of the whole value is called.
        within: Path of the value in the message, for example ``label_set``.
        name: Writes a field's path.
    """
    faults = error.errors(include_url=False, include_input=False)
    texts = (
        f"{name([*filter(None, [within]), *path]) if path or within else whole}: {sentence}"
        for path, sentence in _sentences(faults)
    )
    sentences = list(dict.fromkeys(texts))
    if len(sentences) > MAX_FAULTS:
        sentences[MAX_FAULTS:] = [f"and {len(sentences) - MAX_FAULTS} more"]
    return "; ".join(sentences)


def _sentences(faults: Sequence[Any]) -> Iterator[tuple[tuple[str, ...], str]]:
    located = [(_path(fault["loc"]), fault) for fault in faults]
    kept = [pair for pair in located if not _is_noise(pair, located)]
    mixed = {path for path, fault in kept if fault["type"] == "model_type"} & {
        path for path, fault in kept if fault["type"] == "string_type"
    }
    for path, fault in kept:
        yield path, ONE_OR_OTHER if path in mixed else _sentence(fault)


def _sentence(fault: Any) -> str:
    kind = fault["type"]
    if kind in _SENTENCES:
        return _SENTENCES[kind](fault.get("ctx", {}))
    if kind.startswith(_DATES):
        return "write a date and time with an offset, such as 2030-01-01T12:00:00Z"
    return "does not have the form that the contract requires"


def _path(loc: Sequence[int | str]) -> tuple[str, ...]:
    parts = (str(part) for part in loc)
    return tuple(
        part[:LONGEST_PART].encode(errors="backslashreplace").decode()
        for part in parts
        if not part.startswith(_ALTERNATIVES) and part != "[key]"
    )


def _is_noise(
    one: tuple[tuple[str, ...], Any], others: Sequence[tuple[tuple[str, ...], Any]]
) -> bool:
    """Return whether a fault only follows from another one.

    A list is "too short" if one of its items is refused, and each alternative of a union
    complains of what the other one takes.
    """
    path, fault = one
    is_below = any(len(other) > len(path) and other[: len(path)] == path for other, _ in others)
    if fault["type"] in {"too_short", "string_type"} and is_below:
        return True
    types_here = {each["type"] for other, each in others if other == path}
    if fault["type"] == "string_type":
        return bool(types_here - {"string_type", "model_type"})
    return fault["type"] == "model_type" and bool(types_here - {"string_type", "model_type"})
