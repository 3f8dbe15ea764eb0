"""Files of an evaluation: documents and lines of JSON in one folder."""

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from labelyard.errors import InvalidMessageError
from labelyard.evaluation.scored_images import ScoredImage
from labelyard.local_paths import printable


def answer_of(one: ScoredImage, names: Sequence[str]) -> str | None:
    """Return the best label of a picture; ``None`` if it was given none of these, or failed.

    Args:
        names: Labels in the order of the scores.
    """
    if one.error is not None or one.abstained or not (one.image.labels or one.matched):
        return None
    return names[max(range(len(names)), key=one.scores.__getitem__)]


def is_right(one: ScoredImage, names: Sequence[str]) -> bool:
    """Return whether the answer is right; that of a failed picture never is."""
    answer = answer_of(one, names)
    is_true = answer in one.image.labels if one.image.labels else answer is None
    return is_true and one.error is None


def prediction(one: ScoredImage, names: Sequence[str]) -> dict[str, Any]:
    """Describe a picture with its labels and scores: a line of ``predictions.jsonl``."""
    answer = answer_of(one, names)
    scores = dict(zip(names, one.scores, strict=False))
    return {
        "line": one.image.line,
        "image": one.image.image,
        "uri": one.uri,
        "sha256": one.sha256,
        "split": one.image.split,
        "labels": list(one.image.labels),
        "text": one.image.text,
        "path": list(one.image.path),
        "predicted": answer,
        "score": None if answer is None else scores[answer],
        "correct": is_right(one, names),
        "matched": list(one.matched),
        "abstained": one.abstained,
        "abstained_because": one.because,
        "fit": one.fit,
        "node": None if one.node is None else one.node.model_dump(mode="json"),
        **({} if one.title is None else {"title": one.title.model_dump()}),
        "scores": scores,
        "error": None if one.error is None else one.error.code,
    }


def write_report(
    folder: str | Path,
    *,
    report: Mapping[str, Any],
    page: str,
    lines: tuple[str, Iterable[Mapping[str, Any]]],
) -> Path:
    """Write the files of a report into a folder, and return the folder.

    Args:
        folder: Is made if there is none; files of an earlier report are replaced.
        report: Content of ``report.json``.
        page: Content of ``report.html``.
        lines: Name of a file of JSON lines, and its objects.

    Raises:
        InvalidMessageError: The files cannot be written.
    """
    path = Path(folder)
    try:
        path.mkdir(parents=True, exist_ok=True)
        _write_lines(path / lines[0], lines[1])
        text = json.dumps(report, ensure_ascii=False, indent=1)  # people read it, too
        (path / "report.json").write_text(f"{text}\n", encoding="utf-8")
        (path / "report.html").write_text(page, encoding="utf-8")
    except (OSError, ValueError) as error:  # ValueError: a path with a null character
        reason = getattr(error, "strerror", None) or error
        raise InvalidMessageError(f"{printable(path)}: {reason}") from error
    return path


def _write_lines(path: Path, documents: Iterable[Mapping[str, Any]]) -> None:
    with path.open("w", encoding="utf-8") as file:
        for document in documents:
            file.write(f"{json.dumps(document, ensure_ascii=False)}\n")
