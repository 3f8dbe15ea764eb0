"""Manifests of labelled pictures: a JSON object a line, with a picture and the labels that are true."""

import json
import os
import re
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, ClassVar, Final, TypeAlias

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from labelyard.arguments import listed
from labelyard.errors import InvalidMessageError
from labelyard.fields import MAX_LABELS, Name
from labelyard.local_paths import is_folder, printable
from labelyard.refusals import sentences_of

#: Faults that one error names; the others are counted.
SHOWN_FAULTS: Final = 5
MAX_LINE_BYTES: Final = 1024 * 1024
#: Split that is evaluated if a manifest has it, and none is chosen.
TEST_SPLIT: Final = "test"
_ADDRESS: Final = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")

Manifest: TypeAlias = "str | Path | Iterable[LabelledImage | Mapping[str, Any]]"


@dataclass(frozen=True, slots=True)
class LabelledImage:
    """One picture of a manifest, and the labels that are true for it.

    Attributes:
        line: Number of its line, from 1.
        image: Address or path as the manifest has it.
        labels: The labels that are true; none if the picture shows none of them.
        split: Name of the part that it belongs to; ``None`` if the line has none.
        text: Title or caption that came with the picture.
        path: Its place in a hierarchy, general to special.
        file: Local file; ``None`` if ``image`` is an address.
    """

    line: int
    image: str
    labels: tuple[str, ...] = ()
    split: str | None = None
    text: str | None = None
    path: tuple[str, ...] = ()
    file: Path | None = None


class _Line(BaseModel):
    """Fields of a line; others are for the owner of the manifest, and ignored."""

    model_config = ConfigDict(extra="ignore", strict=True)

    image: Annotated[str, Field(min_length=1, max_length=2048)]
    label: Name | None = None
    labels: Annotated[list[Name], Field(max_length=MAX_LABELS)] = []
    split: Annotated[str, Field(min_length=1, max_length=64)] | None = None
    text: Annotated[str, Field(max_length=10_000)] | None = None
    path: Annotated[list[Name], Field(max_length=64)] = []

    #: Whether a line without a label is at fault.
    needs_label: ClassVar[bool] = True

    @model_validator(mode="before")
    @classmethod
    def _names_its_labels(cls, fields: Any) -> Any:
        if not isinstance(fields, Mapping):
            raise ValueError('write an object such as {"image": "cat.jpg", "label": "cat"}')  # noqa: TRY004 - pydantic wants a ValueError
        if "image" not in fields and "file" in fields:  # as collections of pictures have it
            fields = {**fields, "image": fields["file"]}
        if "label" in fields and "labels" in fields:
            raise ValueError("label and labels exclude each other: write one of them")
        if cls.needs_label and "label" not in fields and "labels" not in fields:
            raise ValueError(
                "there is no label: write label, labels for several, or label: null for none of these"
            )
        return fields


class _SampleLine(_Line):
    """Fields of a line of a sample, which needs no label."""

    needs_label: ClassVar[bool] = False


class _Faults:
    """Faults of a manifest, to be raised together."""

    def __init__(self, source: str) -> None:
        self._source = source
        self._texts: list[str] = []
        self._others = 0

    def add(self, line: int, text: str) -> None:
        """Note a fault of a line."""
        if len(self._texts) < SHOWN_FAULTS:
            self._texts.append(f"line {line}: {text}")
        else:
            self._others += 1

    def raise_if_any(self) -> None:
        """Raise the faults as one error, if there are any."""
        if self._texts:
            more = f"; and {self._others} more" if self._others else ""
            raise InvalidMessageError(f"{self._source}: {'; '.join(self._texts)}{more}")


def read_manifest(
    source: Manifest, *, split: str | None = None, labels: Collection[str] | None = None
) -> list[LabelledImage]:
    """Read the labelled pictures of one split.

    Args:
        source: File of JSON lines, or the lines as objects. A picture is an address, or a path
            relative to the file's folder (for objects: to the working directory).
        split: Lines to take. Without one: ``test`` if a line has it, else all lines.
        labels: Labels that the set has, of which alone lines may name some.

    Returns:
        At least one picture, in the order of the lines.

    Raises:
        InvalidMessageError: The file cannot be read, or lines of it are at fault; the text names
            each line and the remedy.
    """
    return _read(source, _Line, split=split, preferred=TEST_SPLIT, labels=labels)


def read_sample(
    source: Manifest,
    *,
    split: str | None = None,
    preferred: str = TEST_SPLIT,
    labels: Collection[str] | None = None,
) -> list[LabelledImage]:
    """Read pictures whose lines may name labels, and need not; see :func:`read_manifest`.

    Args:
        preferred: Split that is taken if a line has it, and none is chosen.
    """
    return _read(source, _SampleLine, split=split, preferred=preferred, labels=labels)


def _read(
    source: Manifest,
    kind: type[_Line],
    *,
    split: str | None,
    preferred: str,
    labels: Collection[str] | None,
) -> list[LabelledImage]:
    name, folder, lines = _open(source)
    faults = _Faults(name)
    images = list(_parse_all(lines, folder, faults, kind))
    faults.raise_if_any()
    chosen = _choose(images, split, preferred, name)
    for one in chosen:
        if fault := _fault_of(one, labels):
            faults.add(one.line, fault)
    faults.raise_if_any()
    return chosen


def _open(source: Manifest) -> tuple[str, Path, Iterable[tuple[int, Any]]]:
    if isinstance(source, str | Path):
        path = Path(source)
        return printable(path), path.parent, _read_lines(path)
    return "manifest", Path(), enumerate(listed(source, name="manifest"), 1)


def _read_lines(path: Path) -> Iterator[tuple[int, bytes]]:
    if is_folder(path):
        raise InvalidMessageError(
            f"{printable(path)} is a folder: name its manifest, a file of JSON lines"
        )
    try:
        with path.open("rb") as file:
            for number, line in enumerate(file, 1):
                if content := line.removeprefix(b"\xef\xbb\xbf").strip():
                    yield number, content
    except (OSError, ValueError) as error:  # ValueError: a path with a null character
        reason = getattr(error, "strerror", error)
        raise InvalidMessageError(f"{printable(path)}: {reason}") from error


def _parse_all(
    lines: Iterable[tuple[int, Any]], folder: Path, faults: _Faults, kind: type[_Line]
) -> Iterator[LabelledImage]:
    for number, content in lines:
        if isinstance(content, LabelledImage):
            yield content
            continue
        try:
            fields = kind.model_validate(_from_json(content))
        except ValidationError as error:
            faults.add(number, sentences_of(error, whole="the line"))
        except ValueError as error:
            faults.add(number, str(error))
        else:
            yield _image(number, fields, folder)


def _from_json(content: Any) -> Any:
    """Parse a line, unless it is an object already.

    Raises:
        ValueError: It is too long, or not JSON.
    """
    if not isinstance(content, bytes):
        return content
    if len(content) > MAX_LINE_BYTES:
        raise ValueError(f"{len(content)} bytes are too long for a line (limit {MAX_LINE_BYTES})")
    try:
        return json.loads(content)
    except RecursionError:
        raise ValueError("nested too deeply") from None
    except UnicodeDecodeError:
        raise ValueError("not UTF-8") from None
    except ValueError as error:
        raise ValueError(f"not JSON ({error})") from None


def _image(number: int, fields: _Line, folder: Path) -> LabelledImage:
    labels = fields.labels if fields.label is None else [fields.label]
    is_address = _ADDRESS.match(fields.image) is not None
    return LabelledImage(
        line=number,
        image=fields.image,
        labels=tuple(dict.fromkeys(labels)),
        split=fields.split,
        text=fields.text,
        path=tuple(fields.path),
        file=None if is_address else folder / fields.image,
    )


def _choose(
    images: list[LabelledImage], split: str | None, preferred: str, name: str
) -> list[LabelledImage]:
    if not images:
        raise InvalidMessageError(f"{name}: there is no line: write one for each picture")
    splits = sorted({one.split for one in images if one.split is not None})
    wanted = split if split is not None or preferred not in splits else preferred
    if wanted is None:
        return images
    chosen = [one for one in images if one.split == wanted]
    if not chosen:
        others = f"its splits are {', '.join(splits)}" if splits else "no line has a split"
        raise InvalidMessageError(f"{name}: no line has the split {wanted}: {others}")
    return chosen


def _fault_of(one: LabelledImage, labels: Collection[str] | None) -> str | None:
    """Return the fault of a picture of the chosen split, or ``None``."""
    if labels is not None and (unknown := [name for name in one.labels if name not in labels]):
        return (
            f"the label set has no label {unknown[0]!r}: add it to the set, name one of its "
            "labels, or write label: null for none of these"
        )
    if one.file is not None:
        try:
            is_file, is_readable = one.file.is_file(), os.access(one.file, os.R_OK)
        except OSError as error:
            return f"{one.file}: {error.strerror}"
        except ValueError:  # a null character
            is_file = is_readable = False
        if not is_file:
            return f"there is no file {one.file}: a path is relative to the manifest"
        if not is_readable:
            return f"{one.file} may not be read: change its permissions"
    return None
