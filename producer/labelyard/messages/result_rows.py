"""Rows of a result: one flat dict for each image, for data frames and spreadsheets."""

from collections.abc import Sequence
from typing import Any, Final, TypeAlias

Row: TypeAlias = dict[str, str | float | bool | None]
#: Keys that every row has, in their order; ``label_2``, ``score_2`` and so on come after them.
COLUMNS: Final = (
    "job_id",
    "id",
    "uri",
    "status",
    "label",
    "score",
    "matched",
    "abstained",
    "error",
    "message",
)
#: Between the names of matched labels.
SEPARATOR: Final = "; "


def image_row(image: Any, *, job_id: str) -> Row:
    """Write an image's result as a row.

    Args:
        image: An ``ImageResult``.
        job_id: The job that it belongs to.
    """
    best: Sequence[Any] = image.labels
    error = image.error
    row: Row = {
        "job_id": job_id,
        "id": image.id,
        "uri": image.uri,
        "status": "succeeded" if error is None else "failed",
        "label": best[0].name if best else None,
        "score": best[0].score if best else None,
        "matched": SEPARATOR.join(image.matched),
        "abstained": image.abstained,
        "error": None if error is None else error.code,
        "message": None if error is None else error.message,
    }
    for place, label in enumerate(best[1:], start=2):
        row[f"label_{place}"], row[f"score_{place}"] = label.name, label.score
    return row
