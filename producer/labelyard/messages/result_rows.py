"""Rows of a result: one flat dict for each image, for data frames and spreadsheets."""

from collections.abc import Sequence
from typing import Any, Final, TypeAlias

from labelyard.hierarchy import show_path

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
    "abstained_because",
    "fit",
    "node",
    "node_score",
    "parents",
)
#: Between the names of matched labels, and between parents.
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
        "abstained_because": image.abstained_because,
        "fit": image.fit,
        "node": None if image.node is None else show_path(image.node.path),
        "node_score": None if image.node is None else image.node.score,
        "parents": SEPARATOR.join(
            f"{show_path(parent.path)}: {parent.score:.6f}" for parent in image.parents
        )
        or None,
    }
    for place, label in enumerate(best[1:], start=2):
        row[f"label_{place}"], row[f"score_{place}"] = label.name, label.score
    return row
