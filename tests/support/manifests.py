"""Manifests of runs, and the lines that a source makes of them."""

import json
from collections.abc import Iterable, Iterator
from typing import Any

from labelyard.runs.lines import ErrorLine, PlannedLine, parse_plan
from labelyard_worker.runs.sources.csv_manifest import read_csv
from labelyard_worker.runs.sources.jsonl_manifest import read_jsonl
from labelyard_worker.runs.sources.line_checks import CarriedColumns
from labelyard_worker.runs.sources.physical_lines import split_lines
from labelyard_worker.runs.sources.plan_parts import LineSource, PlanPart
from labelyard_worker.runs.sources.planned_lines import PlannedLines

REFERENCE = f"pets@sha256:{'0' * 64}"


def line_of(custom_id: str, /, **fields: Any) -> bytes:
    """Write a good line, or with *fields* another one."""
    return json.dumps(
        {"custom_id": custom_id, "uri": f"s3://pets/{custom_id}.jpg"} | fields
    ).encode()


def jsonl_source(
    chunks: Iterable[bytes], *, columns: CarriedColumns = "none", checkpoint: Any = None
) -> PlannedLines:
    """Open a manifest of JSON lines."""
    blocks = read_jsonl(split_lines(chunks))
    return PlannedLines(blocks, columns=columns, checkpoint=checkpoint)


def csv_source(
    chunks: Iterable[bytes], *, columns: CarriedColumns = "none", checkpoint: Any = None
) -> PlannedLines:
    """Open a manifest in CSV."""
    return PlannedLines(read_csv(split_lines(chunks)), columns=columns, checkpoint=checkpoint)


def parts_of(source: LineSource, *, max_lines: int = 1_000) -> Iterator[PlanPart]:
    """Cut a source into parts of one size."""
    while (part := source.take(max_lines)) is not None:
        yield part


def lines_of(source: LineSource, *, max_lines: int = 1_000) -> list[PlannedLine | ErrorLine]:
    """Read all lines of a source."""
    parts = parts_of(source, max_lines=max_lines)
    return [line for part in parts for line in parse_plan(part.body)]


def codes_of(lines: Iterable[PlannedLine | ErrorLine]) -> dict[int, str]:
    """Return the code of each refused line by its number."""
    return {line.line: line.code for line in lines if isinstance(line, ErrorLine)}
