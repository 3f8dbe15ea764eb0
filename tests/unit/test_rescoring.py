"""Embeddings of an old run are scored as those of a fresh run, and its files are the same."""

import io
import json
from dataclasses import replace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from labelyard.errors import JobCancelledError
from labelyard.messages import ImageResult, Label, LabelSet
from labelyard.runs.lines import PlannedLine, ResultLine
from labelyard_worker.runs import rescoring
from labelyard_worker.runs.files.shard_files import FileForm
from labelyard_worker.runs.files.shard_output import ShardOutput
from labelyard_worker.runs.rescoring import Rescorer
from labelyard_worker.runs.sources.plan_parts import RunSourceError
from labelyard_worker.vision.scorer import Scorer
from labelyard_worker.vision.scoring import Floats, LabelMatrix, Scaling

DIM, LABELS = 64, 7
DIGEST = f"sha256:{'2' * 64}"
SCORER = Scorer(Scaling(100.0, -10.0))


def unit(shape: tuple[int, int], seed: int) -> Floats:
    vectors = np.random.default_rng(seed).normal(size=shape).astype(np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def matrix_of(
    scoring: Any = "softmax", *, thresholds: bool = False, is_tree: bool = False
) -> LabelMatrix:
    label_set = LabelSet(
        labels=tuple(
            Label(
                name=f'l"{n}"',
                threshold=0.1 * n if thresholds else None,
                path=('"odd" ü', f"p{n // 2}")[: n % 3] if is_tree else (),
            )
            for n in range(LABELS)
        ),
        abstain=("nothing",),
        scoring=scoring,
    )
    embeds = unit((LABELS + 1, DIM), 99) * 0.4 + unit((1, DIM), 5) * 0.6
    embeds /= np.linalg.norm(embeds, axis=1, keepdims=True)
    return LabelMatrix.of(label_set, embeds, digest=DIGEST, trained_scoring="softmax")


def fresh_results(embeds: Floats, labels: LabelMatrix, *, top_k: int) -> list[ResultLine]:
    """Return the lines that a fresh run would write."""
    found = SCORER.score(list(embeds), labels, top_k=top_k)
    return [
        ResultLine.of(
            PlannedLine(line=n + 1, custom_id=f"ü-{n}", uri=f"s3://pets/{n}.jpg", columns={"n": n}),
            ImageResult(
                id=str(n),
                uri="",
                sha256=f"{n:064x}" if n % 3 else None,
                width=n,
                height=2 * n,
                labels=scores.labels,
                matched=scores.matched,
                abstained=scores.abstained,
                abstained_because=scores.because,
                fit=scores.fit,
                parents=scores.parents,
                node=scores.node,
            ),
            label_set=labels.digest,
            size_bytes=n if n % 2 else None,
        )
        for n, scores in enumerate(found)
    ]


def old_run(results: list[ResultLine], embeds: Floats) -> bytes:
    """Write the embeddings of an old run."""
    output = ShardOutput("00000", form="jsonl", has_embeddings=True)
    for result, embedding in zip(results, embeds, strict=True):
        output.add(result, embedding)
    body = output.finish()[-1].body.read()
    output.close()
    return body


def read_results(body: bytes, form: FileForm) -> list[ResultLine]:
    if form == "jsonl":
        return [ResultLine.model_validate_json(line) for line in body.splitlines()]
    rows = pq.read_table(io.BytesIO(body)).to_pylist()
    return [
        ResultLine.model_validate(row | {"columns": json.loads(row["columns"])}) for row in rows
    ]


def nodes_of(line: ResultLine) -> list[Any]:
    """Return the parents of a line with their scores, then its node."""
    nodes = [*line.parents, *([] if line.node is None else [line.node])]
    return [(node.path, node.score) for node in nodes]


@pytest.mark.parametrize("form", ["jsonl", "parquet"])
@pytest.mark.parametrize(
    ("labels", "top_k"),
    [
        (matrix_of(), 3),
        (matrix_of("sigmoid"), 100),
        (matrix_of("sigmoid", thresholds=True), 1),
        (matrix_of(thresholds=True), 5),
        (matrix_of(is_tree=True), 3),
        (matrix_of("sigmoid", thresholds=True, is_tree=True), 7),
    ],
)
def test_results_equal_those_of_a_fresh_run(
    monkeypatch: pytest.MonkeyPatch, form: FileForm, labels: LabelMatrix, top_k: int
) -> None:
    monkeypatch.setattr(rescoring, "IMAGES_AT_ONCE", 100)
    embeds = unit((250, DIM), 1) * 0.5 + labels.text_embeds.mean(axis=0)
    embeds /= np.linalg.norm(embeds, axis=1, keepdims=True)
    embeds = embeds.astype(np.float16).astype(np.float32)  # a fresh run of the same vectors
    wanted = fresh_results(embeds, labels, top_k=top_k)
    whole = ShardOutput("00001", form=form)
    for result in wanted:
        whole.add(result)
    output = ShardOutput("00001", form=form)

    count = Rescorer(SCORER, labels, top_k).rescore(io.BytesIO(old_run(wanted, embeds)), output)

    results, errors = output.finish()
    found = read_results(results.body.read(), form)
    assert count == len(wanted)
    assert errors.size_bytes == 0
    for one, other in zip(found, wanted, strict=True):
        numbers = {"labels", "top_score", "fit", "parents", "node"}
        assert one.model_dump(exclude=numbers) == other.model_dump(exclude=numbers)
        assert one.fit == pytest.approx(other.fit, abs=1e-5)
        assert nodes_of(one) == [
            (path, pytest.approx(score, abs=1e-5)) for path, score in nodes_of(other)
        ]
        assert [label.name for label in one.labels] == [label.name for label in other.labels]
        scores = [[label.score for label in each.labels] for each in (one, other)]
        assert scores[0] == pytest.approx(scores[1], abs=1e-5)
    assert output.summary(seconds=1) == whole.summary(seconds=1)
    output.close()
    whole.close()


def test_half_precision_moves_no_score_by_a_thousandth() -> None:
    """Vectors as CLIP's: 512 numbers, texts that are much alike, a scale of 100."""
    label_set = LabelSet(labels=tuple(Label(name=str(n)) for n in range(20)))
    texts = 0.5 * unit((20, 512), 7) + 0.87 * unit((1, 512), 8)
    texts /= np.linalg.norm(texts, axis=1, keepdims=True)
    labels = LabelMatrix.of(label_set, texts, digest=DIGEST, trained_scoring="softmax")
    images = unit((1_000, 512), 3) + 0.3 * unit((1, 512), 8)
    images /= np.linalg.norm(images, axis=1, keepdims=True)

    exact = SCORER.rank(images, labels, top_k=20)
    halves = SCORER.rank(images.astype(np.float16).astype(np.float32), labels, top_k=20)

    def by_label(ranking: Any) -> Any:
        order = np.argsort(ranking.labels.reshape(-1, 20), axis=1)
        return np.take_along_axis(ranking.scores.reshape(-1, 20), order, axis=1)

    assert exact.scores.reshape(-1, 20)[:, 0].mean() < 0.7  # near 0 and 1 nothing moves
    assert np.abs(by_label(exact) - by_label(halves)).max() < 1e-3


def test_rescoring_stops_when_nobody_wants_it() -> None:
    labels, embeds = matrix_of(), unit((10, DIM), 3)
    body = old_run(fresh_results(embeds, labels, top_k=1), embeds)
    output = ShardOutput("00001", form="jsonl")

    def check(images: int) -> None:
        raise JobCancelledError("r.00001")

    with pytest.raises(JobCancelledError):
        Rescorer(SCORER, labels, 1).rescore(io.BytesIO(body), output, check=check)
    output.close()


@pytest.mark.parametrize("rows", [range(7), range(3, 250), range(95, 205), range(100, 100)])
def test_some_rows_of_a_file_are_scored_alone(monkeypatch: pytest.MonkeyPatch, rows: range) -> None:
    monkeypatch.setattr(rescoring, "IMAGES_AT_ONCE", 100)
    labels, embeds = matrix_of(), unit((250, DIM), 3)
    body = old_run(fresh_results(embeds, labels, top_k=1), embeds)
    output = ShardOutput("00001", form="jsonl")

    count = Rescorer(SCORER, labels, 1).rescore(io.BytesIO(body), output, rows=rows)

    found = read_results(output.finish()[0].body.read(), "jsonl")
    output.close()
    assert [line.line - 1 for line in found] == list(rows)
    assert count == len(rows)


def other_columns() -> bytes:
    file = io.BytesIO()
    pq.write_table(pa.table({"line": [1], "embedding": [[0.5, 0.5]]}), file)
    return file.getvalue()


@pytest.mark.parametrize("body", [b"", b"PAR1 and more", other_columns()])
def test_a_file_that_holds_no_embeddings_is_refused(body: bytes) -> None:
    output = ShardOutput("00001", form="jsonl")

    with pytest.raises(RunSourceError):
        Rescorer(SCORER, matrix_of(), 1).rescore(io.BytesIO(body), output)
    output.close()


def test_embeddings_of_another_size_or_that_are_not_finite_are_refused() -> None:
    labels, embeds = matrix_of(), unit((10, DIM), 3)
    results = fresh_results(embeds, labels, top_k=1)
    broken = embeds.copy()
    broken[3, 4] = np.inf
    other = replace(labels, text_embeds=labels.text_embeds[:, :8])
    output = ShardOutput("00001", form="jsonl")

    with pytest.raises(RunSourceError, match="another checkpoint"):
        Rescorer(SCORER, other, 1).rescore(io.BytesIO(old_run(results, embeds)), output)
    with pytest.raises(RunSourceError, match="not finite"):
        Rescorer(SCORER, labels, 1).rescore(io.BytesIO(old_run(results, broken)), output)
    output.close()
