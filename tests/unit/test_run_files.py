"""Files of runs: the same bytes each time, readable by DuckDB and pandas, counted as they are."""

import base64
import hashlib
import json
from collections import Counter
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from labelyard.messages import ScoredLabel, TitleFinding
from labelyard.runs.lines import ErrorLine, ResultLine
from labelyard.runs.summaries import ImageCounts, ShardSummary, TitleCounts
from labelyard_worker.runs.files import parquet_tables, run_counts, shard_output
from labelyard_worker.runs.files.run_counts import RunCounts
from labelyard_worker.runs.files.shard_counts import ShardCounts
from labelyard_worker.runs.files.shard_files import FileForm
from labelyard_worker.runs.files.shard_output import ShardOutput
from tests.support.run_results import (
    DIM,
    bad_line,
    embedding_of,
    failed_result,
    result_of,
    shard_of,
)

both_forms = pytest.mark.parametrize("form", ["jsonl", "parquet"])


def files_of(output: ShardOutput) -> dict[str, bytes]:
    """Finish a shard, and return the bytes of its files."""
    files = {}
    for file in output.finish():
        files[file.name] = file.body.read()
        assert len(files[file.name]) == file.size_bytes
    output.close()
    return files


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A run of two shards, in both forms."""
    for form in ("jsonl", "parquet"):
        (tmp_path / form).mkdir()
        for number in range(2):
            shard = shard_of(f"{number:05d}", 1 + 100 * number, form=form)
            for name, body in files_of(shard).items():
                (tmp_path / form / name).write_bytes(body)
    return tmp_path


@both_forms
def test_a_shard_that_is_written_again_has_the_same_bytes(form: FileForm) -> None:
    assert files_of(shard_of("00017", 1, form=form)) == files_of(shard_of("00017", 1, form=form))


@both_forms
def test_a_shard_has_its_files_by_name(form: FileForm) -> None:
    assert list(files_of(shard_of("00017.1", 1, form=form))) == [
        f"results-00017.1.{form}",
        "errors-00017.1.jsonl",
        "embeddings-00017.1.parquet",
    ]


def test_comparisons_with_texts_are_in_both_forms_and_leave_no_trace_without_texts() -> None:
    title = TitleFinding(label="a cat", score=0.75, agreement=0.02, agrees=False)
    found = {}
    for form in ("jsonl", "parquet"):
        output = ShardOutput("00000", form=form, has_titles=True)
        output.add(result_of(1, title=title))
        output.add(result_of(2))
        output.add(failed_result(3))
        output.add(result_of(4, title=title.model_copy(update={"agrees": True})))
        summary = output.summary(seconds=1.0)
        found[form] = files_of(output)[f"results-00000.{form}"]

    with_title, *others = [json.loads(line) for line in found["jsonl"].splitlines()]
    rows = pq.read_table(pa.BufferReader(found["parquet"])).to_pylist()
    assert with_title["title"] == rows[0]["title"] == title.model_dump()
    assert [row["title"] for row in rows[1:3]] == [None, None]
    assert ["title" in line for line in others] == [False, False, True]
    assert '"titles":{"n":2,"disagree":1}' in summary.model_dump_json()
    counts = RunCounts()
    for _ in range(2):
        counts.add(summary)
    whole = counts.summary(run_id="r", state="succeeded", seconds=1.0)
    assert whole.titles == TitleCounts(n=4, disagree=2)
    assert "titles" not in ShardCounts().summary("0", seconds=1.0).model_dump_json()
    assert "titles" not in RunCounts().summary(run_id="r", state="", seconds=1.0).model_dump()
    assert "title" not in parquet_tables.RESULTS.names


@both_forms
def test_a_shard_without_lines_has_files_that_can_be_read(form: FileForm, tmp_path: Path) -> None:
    files = files_of(ShardOutput("00000", form=form, has_embeddings=True, has_titles=True))

    assert list(files) == [f"results-00000.{form}", "errors-00000.jsonl"]
    if form == "parquet":
        (tmp_path / "r.parquet").write_bytes(files["results-00000.parquet"])
        assert pq.read_schema(tmp_path / "r.parquet").names == list(ResultLine.model_fields)


def test_lines_are_read_as_they_were_written() -> None:
    files = files_of(shard_of("00000", 1, form="jsonl"))

    results = [ResultLine.model_validate_json(x) for x in files["results-00000.jsonl"].splitlines()]
    errors = [ErrorLine.model_validate_json(x) for x in files["errors-00000.jsonl"].splitlines()]

    assert results[0] == result_of(1)
    assert results[2] == failed_result(3)
    assert len(results) == 90
    assert [error.line for error in errors[:4]] == [3, 4, 13, 14]
    assert errors[0] == failed_result(3).to_error_line()
    assert errors[1] == bad_line(4)


def test_both_forms_hold_the_same(folder: Path) -> None:
    lines = (folder / "jsonl" / "results-00000.jsonl").read_text().splitlines()
    rows = pq.read_table(folder / "parquet" / "results-00000.parquet").to_pylist()

    for row in rows:
        row["columns"] = json.loads(row["columns"])
    assert rows == [json.loads(line) for line in lines]


def test_row_groups_are_bounded_by_rows_and_by_scored_labels(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(parquet_tables, "GROUP_ROWS", 10)
    monkeypatch.setattr(parquet_tables, "GROUP_LABELS", 100)
    output = ShardOutput("00000", form="parquet")
    many = tuple(ScoredLabel(name=f"l{n}", score=0.5) for n in range(60))
    for number in range(1, 26):
        output.add(result_of(number, labels=many) if number > 20 else result_of(number))

    (tmp_path / "r").write_bytes(files_of(output)["results-00000.parquet"])

    meta = pq.read_metadata(tmp_path / "r")
    sizes = [meta.row_group(n).num_rows for n in range(meta.num_row_groups)]
    assert sizes == [10, 10, 2, 2, 1]


def test_embeddings_are_halves_of_a_fixed_size(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(shard_output, "EMBEDDINGS_AT_ONCE", 7)
    files = files_of(shard_of("00000", 1, form="parquet"))
    (tmp_path / "e").write_bytes(files["embeddings-00000.parquet"])

    table = pq.read_table(tmp_path / "e")

    assert (
        str(table.schema.field("embedding").type)
        == f"fixed_size_list<element: halffloat not null>[{DIM}]"
    )
    found = np.stack(table["embedding"].to_numpy())
    wanted = np.stack([embedding_of(number) for number in table["line"].to_pylist()])
    assert np.abs(found - wanted).max() < 5e-4
    assert table["custom_id"].to_pylist()[:3] == ["pet-1", "pet-2", "pet-5"]
    assert set(table.schema.names) == {*parquet_tables.FACTS, "embedding"}


@both_forms
def test_duckdb_and_pandas_read_a_run_by_a_glob(folder: Path, form: FileForm) -> None:
    glob = f"{folder}/{form}/results-*.{form}"

    with duckdb.connect() as connection:
        best = connection.sql(
            f"select top_label, count(*), round(avg(top_score), 3) from '{glob}' "
            "where status = 'succeeded' group by all order by all"
        ).fetchall()
        failed = connection.sql(
            f"select error.code, count(*) from '{glob}' where error is not null group by all"
        ).fetchall()
        second = connection.sql(
            f"select count(*) from (select unnest(labels, recursive := true) from '{glob}')"
        ).fetchall()
    read: Any = pd.read_parquet if form == "parquet" else pd.read_json
    options = {} if form == "parquet" else {"lines": True}
    frame = pd.concat([read(path, **options) for path in sorted(folder.glob(f"{form}/results-*"))])

    good = frame[frame.status == "succeeded"]
    counts = good.groupby("top_label").size()
    assert {name: count for name, count, _ in best} == counts.to_dict()
    assert failed == [("image_not_found", 20)]
    assert second == [(2 * 160,)]
    assert len(frame) == 180


# Counts


def test_the_summary_of_a_shard_counts_its_lines() -> None:
    output = shard_of("00003", 1, form="jsonl", images=200)

    summary = output.summary(seconds=2.5)

    succeeded = [result_of(n) for n in range(1, 201) if n % 10 not in {3, 4}]
    assert summary.shard == "00003"
    assert summary.images == ImageCounts(total=180, succeeded=160, failed=20)
    assert summary.bad_lines == 20
    assert summary.errors == {"image_not_found": 20, "bad_json": 20}
    assert summary.labels == Counter(result.top_label for result in succeeded)
    assert summary.matched == summary.labels
    for name in ("a cat", "a dog"):
        scores = [
            label.score for result in succeeded for label in result.labels if label.name == name
        ]
        wanted = np.histogram(scores, bins=20, range=(0, 1))[0]
        assert sum(summary.score_histograms[name]) == wanted.sum()
        assert np.abs(np.cumsum(summary.score_histograms[name]) - np.cumsum(wanted)).max() <= 4
    assert len(base64.b64decode(summary.contents)) == 8 * 160
    output.close()


@pytest.mark.parametrize(
    ("score", "place"), [(0.0, 0), (0.049, 0), (0.05, 1), (0.5, 10), (1.0, 19)]
)
def test_a_score_is_in_the_bin_that_it_begins(score: float, place: int) -> None:
    output = ShardOutput("00000", form="jsonl")
    output.add(result_of(1, labels=(ScoredLabel(name="x", score=score),)))

    histogram = output.summary(seconds=1).score_histograms["x"]

    assert histogram.index(1) == place
    output.close()


def test_the_summary_of_a_run_is_the_sum_of_its_shards() -> None:
    counts = RunCounts()
    whole = shard_of("00000", 1, form="jsonl", images=400)
    for number in range(4):
        shard = shard_of(f"{number:05d}", 1 + 100 * number, form="jsonl")
        counts.add(ShardSummary.model_validate_json(shard.summary(seconds=1).model_dump_json()))
        shard.close()

    summary = counts.summary(run_id="r", state="partial", seconds=8, computed_again=5)

    wanted = whole.summary(seconds=1)
    whole.close()
    assert summary.images == wanted.images
    assert (summary.labels, summary.matched) == (wanted.labels, wanted.matched)
    assert (summary.errors, summary.bad_lines) == (wanted.errors, wanted.bad_lines)
    assert summary.score_histograms == wanted.score_histograms
    assert summary.duplicates.model_dump() == {"distinct": 40, "repeated": 280, "is_exact": True}
    assert (summary.shards, summary.images_per_s, summary.computed_again) == (4, 45.0, 5)


def shard_with(labels: dict[str, int]) -> ShardSummary:
    histogram = (1,) + 19 * (0,)
    return ShardSummary(
        shard="00000", labels=labels, score_histograms=dict.fromkeys(labels, histogram)
    )


def test_a_summary_names_the_most_frequent_labels_of_very_many(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(run_counts, "MAX_SUMMARY_LABELS", 10)
    monkeypatch.setattr(run_counts, "COUNTED_LABELS", 40)
    counts = RunCounts()
    for number in range(30):
        rare = {f"rare-{number}-{n}": 1 for n in range(20)}
        counts.add(shard_with(rare | {"often": 5}))

    summary = counts.summary(run_id="r", state="succeeded", seconds=1)

    assert next(iter(summary.labels)) == "often"
    assert summary.labels["often"] == 150
    assert len(summary.labels) == len(summary.score_histograms) == 10
    assert summary.labels_left_out == 591


def test_equal_files_are_estimated_if_there_are_very_many(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run_counts, "MAX_CONTENTS", 1_000)
    monkeypatch.setattr(run_counts, "BUFFERED_CONTENTS", 100)
    counts = RunCounts()
    for start in range(0, 40_000, 500):
        digests = [
            hashlib.sha256(b"%d" % (n % 20_000)).digest()[:8] for n in range(start, start + 500)
        ]
        contents = base64.b64encode(b"".join(digests)).decode()
        counts.add(ShardSummary(shard="00000", contents=contents))

    duplicates = counts.summary(run_id="r", state="succeeded", seconds=1).duplicates

    assert not duplicates.is_exact
    assert duplicates.distinct + duplicates.repeated == 40_000
    assert abs(duplicates.distinct - 20_000) < 3_000
