"""Result lines of runs for tests of their files."""

import hashlib
from typing import Any

import numpy as np

from labelyard.messages import ScoredLabel, TitleFinding
from labelyard.runs.lines import ErrorLine, LineError, ResultLine
from labelyard_worker.runs.files.shard_files import FileForm
from labelyard_worker.runs.files.shard_output import ShardOutput

DIM = 8
DIGEST = f"sha256:{'1' * 64}"


def result_of(number: int, **fields: Any) -> ResultLine:
    """Return the result of an image, with *fields* that are another image's."""
    scores = {"a cat": (number % 100) / 100, "a dog": 1 - (number % 100) / 100}
    ranked = sorted(scores, key=lambda name: -scores[name])
    known: dict[str, Any] = {
        "line": number,
        "custom_id": f"pet-{number}",
        "uri": f"s3://pets/{number}.jpg",
        "status": "succeeded",
        "top_label": ranked[0],
        "top_score": scores[ranked[0]],
        "matched": tuple(ranked[:1]),
        "labels": tuple(ScoredLabel(name=name, score=scores[name]) for name in ranked),
        "label_set": DIGEST,
        "sha256": hashlib.sha256(b"%d" % (number % 50)).hexdigest(),
        "width": 640,
        "height": 480,
        "size_bytes": 1_000 + number,
        "columns": {"sku": number, "name": 'quoted "ü"'},
    }
    return ResultLine(**(known | fields))


def failed_result(number: int, code: str = "image_not_found") -> ResultLine:
    """Return the result of an image that failed."""
    return ResultLine(
        line=number,
        custom_id=f"pet-{number}",
        uri=f"s3://pets/{number}.jpg",
        status="failed",
        error=LineError(code=code, message=f"{code}: gone"),
    )


def bad_line(number: int, code: str = "bad_json") -> ErrorLine:
    """Return a manifest line that names no image."""
    return ErrorLine(line=number, code=code, message="is not JSON")


def embedding_of(number: int) -> Any:
    """Return a unit-length vector, shape (DIM,)."""
    vector = np.random.default_rng(number).normal(size=DIM).astype(np.float32)
    return vector / np.linalg.norm(vector)


def shard_of(
    name: str,
    first: int,
    *,
    form: FileForm,
    images: int = 100,
    has_embeddings: bool = True,
    has_titles: bool = False,
) -> ShardOutput:
    """Write a shard: every tenth image fails, and behind each such is a bad line.

    Args:
        has_titles: Whether every tenth image has a text, which contradicts it.
    """
    output = ShardOutput(name, form=form, has_embeddings=has_embeddings, has_titles=has_titles)
    title = TitleFinding(label="a dog", score=0.9, agreement=0.01, agrees=False)
    for number in range(first, first + images):
        if number % 10 == 3:
            output.add(failed_result(number))
        elif number % 10 == 4:
            output.add_error(bad_line(number))
        elif has_titles and number % 10 == 5:
            output.add(result_of(number, title=title), embedding_of(number))
        else:
            output.add(result_of(number), embedding_of(number))
    return output
