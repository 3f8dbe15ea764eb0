"""Arguments of the registry of label sets: labels become a set, names and notes are checked."""

import json
import re
from collections.abc import Mapping, Sequence
from numbers import Real
from typing import Any, Final, TypedDict

from pydantic import TypeAdapter, ValidationError

from labelyard.arguments import is_text, listed, text
from labelyard.errors import InvalidMessageError, UnknownLabelSetError
from labelyard.fields import LabelSetRef
from labelyard.label_sets.versions import is_alias
from labelyard.messages import MAX_REGISTERED_PROMPTS, Label, LabelSet
from labelyard.refusals import sentences_of

LONGEST_NOTE: Final = 1000
LONGEST_AUTHOR: Final = 100
LARGEST_METRICS_BYTES: Final = 64 * 1024
_NAME: Final = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")
_REF: Final[TypeAdapter[str]] = TypeAdapter(LabelSetRef)


def as_label_set(
    labels: LabelSet | Sequence[str | Label], *, within: str = "", **options: Any
) -> LabelSet:
    """Make a label set of plain names, for those who need no more.

    Args:
        labels: A set (returned as it is), or names and ``Label`` objects.
        within: Path of the set in a message, for the error's text.
        options: Other fields of ``LabelSet``, for example ``templates``.

    Raises:
        InvalidMessageError: They do not make a label set; the text gives the reason.
    """
    if isinstance(labels, LabelSet):
        if options:
            raise InvalidMessageError("options go with names; a LabelSet carries its own")
        return labels
    if isinstance(labels, str):
        raise InvalidMessageError("labels must be a sequence of names, not one text: [name, …]")
    named = tuple(
        {"name": label} if isinstance(label, str) else label
        for label in listed(labels, name="labels")
    )
    try:
        return LabelSet.model_validate({"labels": named, **options})
    except ValidationError as error:
        raise InvalidMessageError(sentences_of(error, whole="labels", within=within)) from error


def check_registration(name: str, label_set: LabelSet) -> None:
    """Refuse a name or a label set that cannot be registered.

    Raises:
        InvalidMessageError: The name is not allowed, or the set makes too many prompts.
    """
    text(name, name="name")
    if not isinstance(label_set, LabelSet):
        raise InvalidMessageError("label_set: pass a LabelSet, or make one with as_label_set()")
    if not _NAME.fullmatch(name):
        raise InvalidMessageError(
            f"{name!r} cannot name a label set: use up to 64 lower-case letters, "
            "digits, dots, underscores and hyphens, a letter or digit first"
        )
    if (prompts := label_set.count_prompts()) > MAX_REGISTERED_PROMPTS:
        raise InvalidMessageError(
            f"labels and templates make {prompts} prompts (limit {MAX_REGISTERED_PROMPTS}): "
            "use fewer templates or fewer labels"
        )


def checked_reference(reference: str) -> str:
    """Return *reference* if it has the form of one.

    Raises:
        UnknownLabelSetError: It has not.
    """
    try:
        return _REF.validate_python(text(reference, name="reference"))
    except ValidationError as error:
        raise UnknownLabelSetError(f"{reference!r} is not of the form name@sha256:…") from error


def check_alias(alias: Any) -> None:
    """Refuse a value that cannot be the name of an alias.

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
