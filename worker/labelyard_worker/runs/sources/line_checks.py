"""Checks of a manifest's line: from its fields to a line of the plan, or to an error line."""

from collections.abc import Sequence
from json.encoder import encode_basestring as to_json_text
from typing import Any, Final, Literal, TypeAlias

from pydantic import TypeAdapter, ValidationError
from pydantic_core import from_json, to_json

from labelyard.buckets import NAMING_RULE, is_bucket_name
from labelyard.fields import (
    CONTROL_CHARACTERS,
    MAX_INLINE_LABELS,
    MAX_KEY_BYTES,
    MAX_TITLE,
    LabelSetRef,
    Name,
)
from labelyard.runs.line_faults import (
    MAX_COLUMNS_BYTES,
    MAX_CUSTOM_ID_CHARS,
    MAX_URI_CHARS,
    LineFault,
)
from labelyard_worker.runs.sources.entries import Fields, LineProblem

#: Columns that results carry: none, all that the manifest has, or those of these names.
CarriedColumns: TypeAlias = Literal["none", "all"] | frozenset[str]

CUSTOM_ID, URI, LABELS, LABEL_SET, TEXT = "custom_id", "uri", "labels", "label_set", "text"
#: Fields that are never carried as columns; a text is if it is asked for.
OWN_FIELDS: Final = frozenset({CUSTOM_ID, URI, LABELS, LABEL_SET})
S3: Final = "s3://"
HTTPS: Final = "https://"
URI_RULE: Final = "write s3://bucket/key, or https://…"
# Between the names of labels in a cell of a table.
SEPARATOR: Final = ";"
_REFERENCE: Final[TypeAdapter[str]] = TypeAdapter(LabelSetRef)
_NAMES: Final[TypeAdapter[list[str]]] = TypeAdapter(list[Name])


class LineRefusedError(Exception):
    """A line names no image."""

    def __init__(self, code: LineFault, message: str) -> None:
        """Give the reason."""
        super().__init__(code, message)
        self.problem = LineProblem(code, message)


def planned_text(line: int, fields: Fields, columns: CarriedColumns) -> str:
    """Write a line of the plan, as JSON with a line break.

    Raises:
        LineRefusedError: The line names no image; the error has the reason.
    """
    check_text(CUSTOM_ID, fields.get(CUSTOM_ID), max_chars=MAX_CUSTOM_ID_CHARS)
    check_text(URI, fields.get(URI), max_chars=MAX_URI_CHARS)
    check_uri(fields[URI])
    return (
        f'{{"line":{line},"custom_id":{to_json_text(fields[CUSTOM_ID])},'
        f'"uri":{to_json_text(fields[URI])}{labels_of(fields)}{text_of(fields)}'
        f"{columns_of(fields, columns)}}}\n"
    )


def refused_text(line: int, problem: LineProblem, fields: Fields | None = None) -> str:
    """Write an error line of the plan, with the id and the address if they can be read."""
    known = "".join(
        f',"{name}":{to_json_text(fields[name])}'
        for name, limit in ((CUSTOM_ID, MAX_CUSTOM_ID_CHARS), (URI, MAX_URI_CHARS))
        if fields and is_readable(fields.get(name), max_chars=limit)
    )
    return (
        f'{{"line":{line},"code":"{problem.code}",'
        f'"message":{to_json_text(problem.message)}{known}}}\n'
    )


def is_readable(value: Any, *, max_chars: int) -> bool:
    """Return whether a field is text that an error line may repeat."""
    return isinstance(value, str) and 0 < len(value) <= max_chars and value.isprintable()


def check_text(name: str, value: object, *, max_chars: int) -> None:
    """Refuse a field that is not text of this length.

    Raises:
        LineRefusedError: It is missing, empty, not text, too long, or holds control characters.
    """
    if value is None:
        raise LineRefusedError(LineFault.MISSING_FIELD, f"{name}: is missing: write it")
    if not isinstance(value, str):
        raise LineRefusedError(LineFault.WRONG_TYPE, f"{name}: write text")
    if not value:
        raise LineRefusedError(LineFault.EMPTY_FIELD, f"{name}: is empty: write it")
    if len(value) > max_chars:
        raise LineRefusedError(
            LineFault.FIELD_TOO_LONG, f"{name}: is too long: write at most {max_chars} characters"
        )
    if value.isprintable():
        return
    if CONTROL_CHARACTERS.search(value):
        raise LineRefusedError(
            LineFault.CONTROL_CHARACTERS, f"{name}: remove the control characters"
        )
    try:
        value.encode()
    except UnicodeEncodeError as error:
        raise LineRefusedError(LineFault.BAD_ENCODING, f"{name}: is not UTF-8") from error


def check_uri(uri: str) -> None:
    """Refuse an address that no source reads.

    Raises:
        LineRefusedError: It is neither of S3 nor of https, or names no bucket or no key.
    """
    if not uri.startswith(S3):
        if not uri.startswith(HTTPS) or len(uri) == len(HTTPS):
            raise LineRefusedError(LineFault.UNSUPPORTED_URI, f"uri: {URI_RULE}")
        return
    bucket, _, key = uri[len(S3) :].partition("/")
    if not is_bucket_name(bucket):
        raise LineRefusedError(LineFault.UNSUPPORTED_URI, f"uri: {NAMING_RULE}")
    if not key:
        raise LineRefusedError(LineFault.UNSUPPORTED_URI, f"uri: has no key: {URI_RULE}")
    if len(key.encode()) > MAX_KEY_BYTES:
        raise LineRefusedError(
            LineFault.FIELD_TOO_LONG, f"uri: a key has at most {MAX_KEY_BYTES} bytes"
        )


def columns_of(fields: Fields, columns: CarriedColumns) -> str:
    """Write the columns that a line carries as a field of the plan's line.

    Raises:
        LineRefusedError: They are too large, or not text.
    """
    if columns == "none":
        return ""
    names = fields.keys() - OWN_FIELDS
    if columns != "all":
        names &= columns
    if not names:
        return ""
    carried = {name: value for name, value in fields.items() if name in names}
    try:
        text = to_json(carried, inf_nan_mode="null", serialize_unknown=True)
    except ValueError as error:  # bytes that are not text
        raise LineRefusedError(LineFault.BAD_ENCODING, "a column is not UTF-8") from error
    if len(text) > MAX_COLUMNS_BYTES:
        raise LineRefusedError(
            LineFault.COLUMNS_TOO_LARGE,
            f"the other columns take {len(text)} bytes (limit {MAX_COLUMNS_BYTES}): carry fewer",
        )
    return f',"columns":{text.decode()}'


def labels_of(fields: Fields) -> str:
    """Write a line's own labels or label set as a field of the plan's line.

    Raises:
        LineRefusedError: They are not labels, or not a reference, or both are given.
    """
    labels, reference = fields.get(LABELS), fields.get(LABEL_SET)
    has_labels, has_reference = labels not in (None, ""), reference not in (None, "")
    if has_labels and has_reference:
        raise LineRefusedError(LineFault.BAD_LABELS, "write labels or label_set, not both")
    if has_labels:
        return f',"labels":{to_json(check_labels(labels)).decode()}'
    if not has_reference:
        return ""
    try:
        return f',"label_set":{to_json_text(_REFERENCE.validate_python(reference))}'
    except ValidationError as error:
        raise LineRefusedError(
            LineFault.UNKNOWN_LABEL_SET,
            "label_set: write the reference of a registered label set, name@sha256:…",
        ) from error


def text_of(fields: Fields) -> str:
    """Write the text beside the picture as a field of the plan's line.

    Raises:
        LineRefusedError: It is not text, or longer than a job's may be.
    """
    text = fields.get(TEXT)
    if text is None or text == "":
        return ""
    if not isinstance(text, str):
        raise LineRefusedError(LineFault.WRONG_TYPE, f"{TEXT}: write text")
    if len(text) > MAX_TITLE:
        raise LineRefusedError(
            LineFault.FIELD_TOO_LONG, f"{TEXT}: is too long: write at most {MAX_TITLE} characters"
        )
    return f',"text":{to_json_text(text)}'


def check_labels(labels: Any) -> Sequence[str]:
    """Return a line's own labels: a list of names, or their text in a cell of a table.

    Raises:
        LineRefusedError: They are not 1 to 1,000 distinct names.
    """
    if isinstance(labels, str):
        labels = split_labels(labels)
    try:
        names = _NAMES.validate_python(labels, strict=True)
    except ValidationError as error:
        raise LineRefusedError(
            LineFault.BAD_LABELS, "labels: write a list of names of 1 to 256 characters"
        ) from error
    if not 1 <= len(names) <= MAX_INLINE_LABELS:
        raise LineRefusedError(
            LineFault.BAD_LABELS,
            f"labels: name 1 to {MAX_INLINE_LABELS} labels, or register the set and write its "
            "reference as label_set",
        )
    if len(set(names)) < len(names):
        raise LineRefusedError(LineFault.BAD_LABELS, "labels: name each label once")
    return names


def split_labels(text: str) -> Any:
    """Split a cell: a JSON list, or names with a semicolon between them."""
    if not text.lstrip().startswith("["):
        return [name.strip() for name in text.split(SEPARATOR)]
    try:
        return from_json(text)
    except ValueError:
        return None
