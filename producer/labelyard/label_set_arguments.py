"""Checks of the arguments with which versions are described and aliases are moved."""

import json
from collections.abc import Mapping
from numbers import Real
from typing import Any, Final, TypedDict

from labelyard.arguments import is_text, text
from labelyard.errors import InvalidMessageError
from labelyard.label_set_versions import is_alias

LONGEST_NOTE: Final = 1000
LONGEST_AUTHOR: Final = 100
LARGEST_METRICS_BYTES: Final = 64 * 1024


def check_alias(alias: Any) -> None:
    """Refuse what cannot be the name of an alias.

    Raises:
        InvalidMessageError: It cannot.
    """
    if not is_alias(text(alias, name="alias")):
        raise InvalidMessageError(
            "alias: write name@alias, such as moderation@prod: the name of a label set, and up to "
            "64 lower-case letters, digits, dots, underscores and hyphens"
        )


def check_move(version: str, alias: str, *, share: Any) -> float | None:
    """Return *share*; refuse one that is none, and an alias that does not go with a version.

    Raises:
        InvalidMessageError: One of them is wrong.
    """
    check_alias(alias)
    if version.partition("@")[0] != alias.partition("@")[0]:
        raise InvalidMessageError(f"{alias} can name versions of its own label set, not {version}")
    if share is None:
        return None
    is_number = isinstance(share, Real) and not isinstance(share, bool)
    if not (is_number and 0 < share <= 1):
        raise InvalidMessageError("share: write a number above 0, up to 1")
    return float(share)


class Notes(TypedDict):
    """Author and note of a version or a move."""

    author: str
    note: str


def checked_notes(author: Any, note: Any) -> Notes:
    """Return author and note for a command.

    Raises:
        InvalidMessageError: One of them is not text, or too long.
    """
    given = {"author": (author, LONGEST_AUTHOR), "note": (note, LONGEST_NOTE)}
    for name, (value, longest) in given.items():
        if len(text(value, name=name)) > longest:
            raise InvalidMessageError(f"{name}: write at most {longest} characters")
    return {"author": author, "note": note}


def metrics_json(metrics: Any) -> str:
    """Write metrics as JSON.

    Raises:
        InvalidMessageError: They are not a mapping that JSON can write, or too large.
    """
    if not isinstance(metrics, Mapping):
        raise InvalidMessageError("metrics: pass a mapping of figures by name")
    try:
        written = json.dumps(dict(metrics), allow_nan=False, ensure_ascii=False)
    except (TypeError, ValueError, RecursionError) as error:
        raise InvalidMessageError(
            f"metrics: {type(error).__name__}: JSON cannot hold it"
        ) from error
    if not is_text(written):
        raise InvalidMessageError("metrics: holds what is not text")
    if len(written.encode()) > LARGEST_METRICS_BYTES:
        raise InvalidMessageError(f"metrics: more than {LARGEST_METRICS_BYTES} bytes as JSON")
    return written
