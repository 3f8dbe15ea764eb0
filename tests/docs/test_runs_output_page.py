"""The page of a run's files: its queries run on a run's output, and its tables are whole."""

import re
from pathlib import Path
from typing import Any

import duckdb
import pytest

from labelyard.runs.line_faults import LineFault
from labelyard.runs.lines import ErrorLine, ResultLine
from labelyard.runs.summaries import RunSummary
from labelyard_worker.runs.files.parquet_tables import EMBEDDING, FACTS
from tests.support.run_results import shard_of

PAGE = (Path(__file__).parents[2] / "docs/runs-output.md").read_text(encoding="utf-8")
PREFIX = "s3://bucket/runs/2031-03-14/"
QUERIES = re.findall(r"^```sql\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
BLOCKS = re.findall(r"^```python\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The output of a run, with its results in both forms."""
    folder = tmp_path_factory.mktemp("run")
    for form in ("jsonl", "parquet"):
        for number in range(2):
            shard = shard_of(f"{number:05d}", 1 + 100 * number, form=form, has_titles=True)
            for file in shard.finish():
                (folder / file.name).write_bytes(file.body.read())
            shard.close()
    return folder


def section(title: str) -> str:
    return PAGE.partition(f"\n## {title}\n")[2].partition("\n## ")[0]


def first_cells(title: str) -> list[str]:
    """Return the names in the first cells of a section's tables."""
    rows = re.findall(r"^\| (`[^|]*`) \|", section(title), re.MULTILINE)
    return [name for row in rows for name in re.findall(r"`([^`]+)`", row)]


@pytest.mark.parametrize("query", QUERIES)
def test_each_query_has_an_answer(folder: Path, query: str) -> None:
    with duckdb.connect() as connection:
        rows = connection.sql(query.replace(PREFIX, f"{folder}/").rstrip().rstrip(";")).fetchall()

    assert rows


def test_the_functions_for_pandas_read_a_run(folder: Path, tmp_path: Path) -> None:
    names: dict[str, Any] = {}
    for block in BLOCKS:
        exec(block, names)
    for form in ("jsonl", "parquet"):
        copy = tmp_path / form
        copy.mkdir()
        for file in folder.glob(f"results-*.{form}"):
            (copy / file.name).write_bytes(file.read_bytes())

    counts = [
        names["count_labels"](str(tmp_path / form)).to_dict() for form in ("jsonl", "parquet")
    ]
    vectors = names["read_vectors"](str(folder / "embeddings-00000.parquet"))

    assert counts[0] == counts[1]
    assert sum(counts[0].values()) == 160
    assert vectors.shape == (80, 8)


def test_the_tables_have_every_field_and_every_code() -> None:
    assert first_cells("Results") == list(ResultLine.model_fields)
    assert first_cells("Errors") == list(LineFault)
    assert first_cells("The summary") == list(RunSummary.model_fields)


def test_the_fields_of_errors_and_embeddings_are_named_in_the_text() -> None:
    named = [set(re.findall(r"`([^`]+)`", section(title))) for title in ("Errors", "Embeddings")]

    assert set(ErrorLine.model_fields) <= named[0]
    assert {*FACTS, EMBEDDING} <= named[1]
