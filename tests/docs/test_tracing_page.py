"""The tables of tracing.md name all spans and attributes, and its drawing shows what they say."""

import re
from pathlib import Path
from typing import get_args

from docs.draw_trace import draw

from labelyard_worker.spans import Stage
from tests.support.collector import CollectedSpan

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs/tracing.md").read_text(encoding="utf-8")
SOURCES = "".join(
    path.read_text(encoding="utf-8")
    for folder in ("producer/labelyard", "worker/labelyard_worker")
    for path in sorted((ROOT / folder).rglob("*.py"))
)


def table(head: str) -> str:
    return PAGE.partition(f"| {head} |")[2].partition("\n\n")[0]


def test_the_table_of_spans_has_every_span_of_the_code() -> None:
    started = re.findall(r"(?:start_span|child)\(\s*\"(labelyard\.[a-z_]+)\"", SOURCES)
    stages = {f"labelyard.{stage}" for stage in get_args(Stage)}

    rows = re.findall(r"^\| `(labelyard\.[a-z_]+)` \|", table("span"), re.MULTILINE)

    assert sorted(rows) == sorted({*started, *stages})


def test_the_table_of_attributes_has_every_attribute_of_the_code() -> None:
    named = r"\"((?:labelyard|messaging|error)\.[a-z_.]+)\": "
    written = r"set_attribute\(\"([a-z_.]+)\""
    results = r"known\[\"([a-z_]+\.[a-z_.]+)\"\]"
    spans = set(re.findall(named, SOURCES)) | set(re.findall(f"{written}|{results}", SOURCES))
    flat = {name for found in spans for name in ([found] if isinstance(found, str) else found)}

    rows = re.findall(r"`((?:labelyard|messaging|error)\.[a-z_.]+)`", table("attribute"))

    assert set(rows) == flat - {""}


def test_the_drawing_is_of_three_images_in_two_batches() -> None:
    drawing = PAGE.partition("```text\n")[2].partition("```")[0]

    assert drawing.count("labelyard.image ") == 3
    assert drawing.count("\nlabelyard.batch ") == 2
    assert sorted(re.findall(r"linked with images ([\d, ]+)", drawing)) in (
        ["0", "1, 2"],
        ["0, 1", "2"],
        ["0, 2", "1"],
    )
    named = set(re.findall(r"labelyard\.[a-z_]+", drawing))
    rows = re.findall(r"^\| `(labelyard\.[a-z_]+)` \|", table("span"), re.MULTILINE)
    assert named == set(rows)


def made(name: str, number: int, parent: int, *links: int) -> CollectedSpan:
    return CollectedSpan(
        name=f"labelyard.{name}",
        trace_id="t" if name != "batch" else f"b{number}",
        span_id=str(number),
        parent_id=str(parent) if parent else "",
        kind="internal",
        started_ns=number * 1_000_000,
        ended_ns=number * 2_000_000,
        attributes={"labelyard.image.number": number} if name == "image" else {},
        links=tuple(map(str, links)),
        error=None,
        service="test",
    )


def test_a_trace_is_drawn_as_a_tree_with_its_batches_below() -> None:
    spans = [
        made("batch", 9, 0, 3),
        made("submit", 1, 0),
        made("attempt", 2, 1),
        made("image", 3, 2, 9),
        made("score", 4, 2),
    ]

    lines = [re.sub(r" {2,}", "  ", line) for line in draw(spans).splitlines()]

    assert lines == [
        "trace t  start ms  ms",
        "labelyard.submit  0.0  1.0",
        "└─ labelyard.attempt  1.0  2.0",
        "  ├─ labelyard.image  -> A  2.0  3.0  image.number=3",
        "  └─ labelyard.score  3.0  4.0",
        "",
        "trace b9  batch A, linked with images 3",
        "labelyard.batch  8.0  9.0",
    ]
