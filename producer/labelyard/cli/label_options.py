"""Options that name the labels of a job, and how they are scored."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Final

import typer
from pydantic import ValidationError

from labelyard.errors import InvalidMessageError
from labelyard.label_sets import as_label_set
from labelyard.label_sets.versions import is_alias
from labelyard.local_paths import printable, read_text
from labelyard.messages import LabelSet
from labelyard.messages.labels import Scoring
from labelyard.refusals import sentences_of
from labelyard.submission import Labels

JSON_SUFFIXES: Final = (".json", ".jsonl")
LABELS_FILE_HELP: Final = (
    "A label a line, as text or as JSON (.jsonl), or a label set as JSON (.json)"
)
LabelText = Annotated[
    str, typer.Option("--labels", help="Labels parted by commas, name@sha256:…, or an alias")
]
LabelNames = Annotated[
    list[str] | None,
    typer.Option("--label", help="One label, which may hold a comma; give it again for more"),
]
LabelsFile = Annotated[
    Path | None,
    typer.Option("--labels-file", help=LABELS_FILE_HELP),
]
Templates = Annotated[
    list[str] | None,
    typer.Option("--template", help="Sentence with {} for the label; several are averaged"),
]
Abstain = Annotated[
    list[str] | None,
    typer.Option("--abstain", help="Sentence that means none of these; give it again for more"),
]
LabelThreshold = Annotated[
    float | None,
    typer.Option("--threshold", min=0, max=1, help="Score from which a label is matched"),
]
ScoringName = Annotated[
    Scoring | None,
    typer.Option("--scoring", help="One label fits (softmax), or each by itself (sigmoid)"),
]


@dataclass(frozen=True, kw_only=True)
class LabelChoice:
    """Options that name the labels of a job, and their scoring.

    Attributes:
        text: Of ``--labels``.
        names: Of each ``--label``.
        file: Of ``--labels-file``.
        templates: Of each ``--template``.
        abstain: Of each ``--abstain``.
        threshold: Of ``--threshold``, for every label.
        scoring: Of ``--scoring``.
    """

    text: LabelText = ""
    names: LabelNames = None
    file: LabelsFile = None
    templates: Templates = None
    abstain: Abstain = None
    threshold: LabelThreshold = None
    scoring: ScoringName = None

    def read(self) -> Labels:
        """Read the labels from the one place that is named.

        Raises:
            InvalidMessageError: No place or two places are named, they hold no labels, or an
                option does not go with them.
        """
        named = bool(self.text or self.names)
        if named == bool(self.file):
            raise InvalidMessageError("name the labels with --labels, --label or --labels-file")
        for sentence in self.abstain or ():
            _check_sentence(sentence)
        if "@sha256:" in self.text or is_alias(self.text):
            if self.names:
                raise InvalidMessageError(
                    "--labels names a registered label set: --label cannot add to it"
                )
            self._refuse_options("a registered label set")
            return self.text
        if self.file is not None and self.file.suffix in JSON_SUFFIXES:
            self._refuse_options("a label set as JSON")
            return read_label_set(self.file)
        names = _lines_of(self.file) if self.file is not None else self._names()
        labels: Any = names
        if self.threshold is not None:
            labels = [{"name": name, "threshold": self.threshold} for name in names]
        return as_label_set(labels, **self._options())

    def _names(self) -> list[str]:
        parts = map(str.strip, self.text.split(","))
        return [*filter(None, parts), *(self.names or ())]

    def _options(self) -> Mapping[str, Any]:
        options: dict[str, Any] = {}
        if self.templates:
            options["templates"] = tuple(self.templates)
        if self.abstain:
            options["abstain"] = tuple(self.abstain)
        if self.scoring is not None:
            options["scoring"] = self.scoring
        return options

    def _refuse_options(self, whose: str) -> None:
        if self._options() or self.threshold is not None:
            raise InvalidMessageError(
                f"{whose} has its own templates, thresholds, scoring and abstain: change them there"
            )


def read_label_set(file: Path) -> LabelSet:
    """Read a label set from a file: one name a line, a JSON object a line, or one of JSON.

    Raises:
        InvalidMessageError: It cannot be read, or holds no label set.
    """
    if file.suffix not in JSON_SUFFIXES:
        return as_label_set(_lines_of(file))
    try:
        if file.suffix == ".jsonl":
            return LabelSet.model_validate(_from_lines(file))
        return LabelSet.model_validate_json(_text_of(file))
    except ValidationError as error:
        refusal = sentences_of(error, whole="the label set")
        raise InvalidMessageError(f"{printable(file)}: {refusal}") from error
    except RecursionError as error:
        raise InvalidMessageError(f"{printable(file)}: {error}") from error


def _from_lines(file: Path) -> dict[str, Any]:
    """Read labels, and thresholds of parents: lines without a name.

    Raises:
        InvalidMessageError: A line is not an object of JSON.
    """
    labels: list[dict[str, Any]] = []
    parents: list[dict[str, Any]] = []
    for number, line in enumerate(_text_of(file).splitlines(), 1):
        if not line.strip():
            continue
        try:
            fields = json.loads(line)
        except ValueError as error:
            raise InvalidMessageError(
                f"{printable(file)}: line {number}: not JSON ({error})"
            ) from error
        if not isinstance(fields, dict):
            raise InvalidMessageError(
                f"{printable(file)}: line {number}: write an object such as "
                '{"name": "a leopard", "path": ["animal", "mammal"]}'
            )
        (labels if "name" in fields else parents).append(fields)
    return {"labels": labels, "parents": parents}


def _lines_of(file: Path) -> list[str]:
    return [line.strip() for line in _text_of(file).splitlines() if line.strip()]


def _text_of(file: Path) -> str:
    try:
        return read_text(file)
    except IsADirectoryError as error:
        raise InvalidMessageError(
            f"{printable(file)} is a folder: name a file of labels"
        ) from error
    except (OSError, ValueError) as error:  # ValueError: not UTF-8, or a path with a zero byte
        reason = getattr(error, "strerror", None) or "not UTF-8"
        raise InvalidMessageError(f"{printable(file)}: {reason}") from error


def _check_sentence(sentence: str) -> None:
    """Refuse a number: a score is a threshold, and *abstain* is compared with the picture."""
    try:
        float(sentence)
    except ValueError:
        return
    raise InvalidMessageError(
        f'--abstain {sentence}: write a sentence that means none of these, such as "a photo of '
        f'something else"; a score is given with --threshold {sentence}'
    )
