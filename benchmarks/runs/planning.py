"""Planning of a large manifest: lines a second, and memory of the process that plans.

``python -m benchmarks.runs.planning --lines 5e6 --form jsonl``
"""

import argparse
import gzip
import json
import resource
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, BinaryIO, Final

from labelyard_worker.runs.sources.compression import decompress
from labelyard_worker.runs.sources.csv_manifest import read_csv
from labelyard_worker.runs.sources.entries import EntryBlock
from labelyard_worker.runs.sources.jsonl_manifest import read_jsonl
from labelyard_worker.runs.sources.line_checks import CarriedColumns
from labelyard_worker.runs.sources.parquet_manifest import read_parquet
from labelyard_worker.runs.sources.physical_lines import split_lines
from labelyard_worker.runs.sources.planned_lines import PlannedLines

RANGE_BYTES: Final = 8 * 1024 * 1024
LINES_AT_ONCE: Final = 100_000
FIRST_PART, PART = 64, 1_000


def id_of(number: int) -> str:
    """Return the id of a line."""
    return f"product-{number:09d}"


def uri_of(number: int) -> str:
    """Return the address of a line's picture."""
    return f"s3://catalogue/images/{number % 1_000:03d}/{number:09d}/front.jpg"


def write_lines(file: BinaryIO, lines: int, *, line: Callable[[int], str], head: str = "") -> None:
    """Write a manifest of lines of text."""
    file.write(head.encode())
    for start in range(0, lines, LINES_AT_ONCE):
        numbers = range(start, min(lines, start + LINES_AT_ONCE))
        file.write("".join(map(line, numbers)).encode())


def write_jsonl(file: BinaryIO, lines: int) -> None:
    """Write JSON lines with two columns besides."""

    def line(n: int) -> str:
        return f'{{"custom_id": "{id_of(n)}", "uri": "{uri_of(n)}", "sku": {n}, "kind": "shoes"}}\n'

    write_lines(file, lines, line=line)


def write_csv(file: BinaryIO, lines: int) -> None:
    """Write CSV with two columns besides."""

    def line(n: int) -> str:
        return f"{id_of(n)},{uri_of(n)},{n},shoes\n"

    write_lines(file, lines, line=line, head="custom_id,uri,sku,kind\n")


def write_parquet(file: BinaryIO, lines: int) -> None:
    """Write Parquet with two columns besides."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    schema = pa.schema(
        [
            ("custom_id", pa.string()),
            ("uri", pa.string()),
            ("sku", pa.int64()),
            ("kind", pa.string()),
        ]
    )
    with pq.ParquetWriter(file, schema) as writer:
        for start in range(0, lines, LINES_AT_ONCE):
            numbers = range(start, min(lines, start + LINES_AT_ONCE))
            columns = [
                list(map(id_of, numbers)),
                list(map(uri_of, numbers)),
                list(numbers),
                ["shoes"] * len(numbers),
            ]
            writer.write_table(pa.table(columns, schema=schema))


FORMS: Final = {"jsonl": write_jsonl, "csv": write_csv, "parquet": write_parquet}


def chunks_of(file: BinaryIO) -> Iterator[bytes]:
    """Read a file as ranges of an object come."""
    while chunk := file.read(RANGE_BYTES):
        yield chunk


def blocks_of(file: BinaryIO, form: str, columns: CarriedColumns) -> Iterable[EntryBlock]:
    """Open a manifest in its form."""
    if form == "parquet":
        return read_parquet(file, columns=columns)
    lines = split_lines(decompress(chunks_of(file)))
    return read_csv(lines) if form == "csv" else read_jsonl(lines)


def measure(path: Path, form: str, columns: CarriedColumns) -> dict[str, Any]:
    """Plan a manifest: cut it into parts, and compress each as its object is."""
    rss_before = peak_rss_mb()
    started_at, cpu_at = time.perf_counter(), time.process_time()
    first_s, lines, parts, plan_bytes = 0.0, 0, 0, 0
    with path.open("rb") as file:
        source = PlannedLines(blocks_of(file, form, columns), columns=columns)
        while (part := source.take(PART if parts else FIRST_PART)) is not None:
            plan_bytes += len(gzip.compress(part.body, 1, mtime=0))
            lines, parts = lines + part.lines, parts + 1
            first_s = first_s or time.perf_counter() - started_at
    seconds, cpu_s = time.perf_counter() - started_at, time.process_time() - cpu_at
    return {
        "form": form,
        "columns": str(columns),
        "lines": lines,
        "parts": parts,
        "manifest_mb": round(path.stat().st_size / 1e6, 1),
        "plan_mb": round(plan_bytes / 1e6, 1),
        "seconds": round(seconds, 2),
        "lines_per_s": round(lines / seconds),
        "lines_per_cpu_s": round(lines / cpu_s),
        "first_part_s": round(first_s, 3),
        "rss_before_mb": rss_before,
        "peak_rss_mb": peak_rss_mb(),
    }


def peak_rss_mb() -> float:
    """Return the most memory that this process had."""
    return round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, 1)


def main() -> None:
    """Write a manifest, plan it, and print the figures as JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--lines", type=float, default=5e6)
    parser.add_argument("--form", choices=FORMS, default="jsonl")
    parser.add_argument("--gzip", action="store_true", help="compress the manifest")
    parser.add_argument("--columns", choices=["none", "all"], default="none")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"manifest.{asked.form}"
        with gzip.open(path, "wb", 1) if asked.gzip else path.open("wb") as file:
            FORMS[asked.form](file, int(asked.lines))  # type: ignore[arg-type]
        print(json.dumps(measure(path, asked.form, asked.columns), indent=1))


if __name__ == "__main__":
    main()
