"""Limits of a manifest's lines, and codes of those that name no image; the reader of a source needs no more."""

from enum import StrEnum
from typing import Final

#: Bytes of a manifest's line, and of one cell of a table; a longer one becomes an error line.
MAX_LINE_BYTES: Final = 1024 * 1024
MAX_CUSTOM_ID_CHARS: Final = 1024  # the key of an object fits
MAX_URI_CHARS: Final = 2048
#: Bytes of the other columns that one line carries to its result, as JSON.
MAX_COLUMNS_BYTES: Final = 16 * 1024


class LineFault(StrEnum):
    """Codes of manifest lines that name no image; docs/runs-output.md explains each of them."""

    EMPTY_LINE = "empty_line"
    LINE_TOO_LONG = "line_too_long"
    BAD_ENCODING = "bad_encoding"
    BAD_JSON = "bad_json"
    BAD_ROW = "bad_row"
    NOT_AN_OBJECT = "not_an_object"
    MISSING_FIELD = "missing_field"
    EMPTY_FIELD = "empty_field"
    WRONG_TYPE = "wrong_type"
    FIELD_TOO_LONG = "field_too_long"
    CONTROL_CHARACTERS = "control_characters"
    DUPLICATE_CUSTOM_ID = "duplicate_custom_id"
    UNSUPPORTED_URI = "unsupported_uri"
    BAD_LABELS = "bad_labels"
    UNKNOWN_LABEL_SET = "unknown_label_set"
    COLUMNS_TOO_LARGE = "columns_too_large"
