"""Independent recount of a run's files with DuckDB, to compare with ``summary.json``."""

from pathlib import Path
from typing import Any

import duckdb

BINS = 20


class Recount:
    """Counts over the files of a run that were downloaded into a folder."""

    def __init__(self, folder: Path) -> None:
        """Load the results and errors of the folder as tables."""
        self._db = duckdb.connect()
        self._db.execute("SET threads = 1")
        results, errors = f"{folder}/results-*.jsonl", f"{folder}/errors-*.jsonl"
        self._db.execute(
            "CREATE TABLE results AS SELECT * FROM read_json(?, format = 'newline_delimited', "
            "filename = true)",
            [results],
        )
        self._db.execute(
            "CREATE TABLE errors AS SELECT * FROM read_json(?, format = 'newline_delimited', "
            "columns = {line: 'BIGINT', custom_id: 'VARCHAR', uri: 'VARCHAR', code: 'VARCHAR', "
            "message: 'VARCHAR', is_retryable: 'BOOLEAN'})",
            [errors],
        )

    def lines(self) -> dict[str, int]:
        """Count result lines, lines that are named once or more, and lines that are bad."""
        [counts] = self._db.execute(
            "SELECT count(*), count(DISTINCT line), count(DISTINCT custom_id), min(line), max(line)"
            " FROM results"
        ).fetchall()
        [[bad, both]] = self._db.execute(
            "SELECT count(*) FILTER (line NOT IN (SELECT line FROM results)), "
            "count(*) FILTER (line IN (SELECT line FROM results WHERE status = 'failed'))"
            " FROM errors"
        ).fetchall()
        names = ("results", "distinct_lines", "distinct_ids", "first", "last")
        return {**dict(zip(names, counts, strict=True)), "bad_lines": bad, "failed_in_errors": both}

    def summary(self) -> dict[str, Any]:
        """Count what ``summary.json`` counts, in its form."""
        return {
            "images": self._images(),
            "labels": self._pairs(
                "SELECT top_label, count(*) FROM results WHERE status = 'succeeded' GROUP BY ALL"
            ),
            "matched": self._pairs(
                "SELECT label, count(*) FROM (SELECT unnest(matched) AS label FROM results)"
                " GROUP BY ALL"
            ),
            "abstained": self._one("SELECT count(*) FROM results WHERE abstained"),
            "errors": self._pairs("SELECT code, count(*) FROM errors GROUP BY ALL"),
            "score_histograms": self._histograms(),
            "duplicates": self._duplicates(),
            "shards": self._one("SELECT count(DISTINCT filename) FROM results"),
        }

    def _images(self) -> dict[str, int]:
        states = self._pairs("SELECT status, count(*) FROM results GROUP BY ALL")
        return {
            "total": sum(states.values()),
            "succeeded": states.get("succeeded", 0),
            "failed": states.get("failed", 0),
        }

    def _histograms(self) -> dict[str, tuple[int, ...]]:
        rows = self._db.execute(
            "SELECT label.name, least(floor(label.score * ?), ? - 1)::INT AS bin, count(*)"
            " FROM (SELECT unnest(labels) AS label FROM results) GROUP BY ALL",
            [BINS, BINS],
        ).fetchall()
        found: dict[str, list[int]] = {}
        for name, place, count in rows:
            found.setdefault(name, [0] * BINS)[place] = count
        return {name: tuple(counts) for name, counts in found.items()}

    def _duplicates(self) -> dict[str, int]:
        [[read, distinct]] = self._db.execute(
            "SELECT count(sha256), count(DISTINCT sha256) FROM results"
        ).fetchall()
        return {"distinct": distinct, "repeated": read - distinct}

    def _pairs(self, query: str) -> dict[str, int]:
        return dict(self._db.execute(query).fetchall())

    def _one(self, query: str) -> int:
        [[count]] = self._db.execute(query).fetchall()
        return int(count)


def differences(summary: Any, counted: dict[str, Any]) -> list[str]:
    """Return the parts of a summary that the recount does not confirm."""
    found = []
    for name, ours in counted.items():
        theirs = summary[name]
        if name == "duplicates":
            theirs = {key: theirs[key] for key in ours}
        if name == "score_histograms":
            theirs = {label: tuple(counts) for label, counts in theirs.items()}
        if theirs != ours:
            found.append(f"{name}: summary {theirs}, recount {ours}")
    return found
