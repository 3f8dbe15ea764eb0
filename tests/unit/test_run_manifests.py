"""Manifests of runs: good lines are planned, each bad one becomes one error, at any size."""

import gzip
import io
import json
import tracemalloc
import zlib
from collections.abc import Iterator
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from labelyard.runs.line_faults import MAX_LINE_BYTES
from labelyard.runs.lines import ErrorLine, PlannedLine, parse_plan
from labelyard_worker.runs.sources import planned_lines
from labelyard_worker.runs.sources.compression import decompress
from labelyard_worker.runs.sources.csv_manifest import MAX_ROW_LINES
from labelyard_worker.runs.sources.parquet_manifest import read_parquet
from labelyard_worker.runs.sources.plan_parts import RunSourceError
from labelyard_worker.runs.sources.planned_lines import PlannedLines
from tests.support.bad_lines import (
    BAD_CSV_ROWS,
    BAD_JSON_LINES,
    CSV_HEADER,
    ManifestForm,
    mixed_manifest,
)
from tests.support.manifests import (
    REFERENCE,
    codes_of,
    csv_source,
    jsonl_source,
    line_of,
    lines_of,
    parts_of,
)

MANY = 1_200  # lines: more than are checked by the same calls


@pytest.mark.parametrize("kind", BAD_JSON_LINES)
def test_a_bad_line_becomes_one_error_and_harms_no_other_line(kind: str) -> None:
    bad, code = BAD_JSON_LINES[kind]
    good = [line_of(f"good-{number}") for number in range(MANY)]
    manifest = b"\n".join([*good[:700], bad, *good[700:]])

    lines = lines_of(jsonl_source([manifest], columns="all"))

    assert codes_of(lines) == {701: code}
    planned = [line.custom_id for line in lines if isinstance(line, PlannedLine)]
    assert planned == [f"good-{number}" for number in range(MANY)]
    assert [line.line for line in lines] == list(range(1, MANY + 2))


@pytest.mark.parametrize(
    ("form", "open_source", "rounds"), [("jsonl", jsonl_source, 20), ("csv", csv_source, 75)]
)
def test_bad_lines_of_every_kind_in_one_manifest_are_named_by_their_lines(
    form: ManifestForm, open_source: Any, rounds: int
) -> None:
    mixed = mixed_manifest(form, ["s3://pets/x.jpg"], rounds=rounds)

    found = lines_of(open_source(pieces(mixed.body, 100_000), columns="all"))

    planned = {line.custom_id: line.line for line in found if isinstance(line, PlannedLine)}
    assert len(mixed.bad) > 1_000
    assert codes_of(found) == mixed.bad
    assert planned == mixed.good
    assert all(len(line.message) < 500 for line in found if isinstance(line, ErrorLine))


def test_an_error_names_the_id_and_the_address_that_can_be_read() -> None:
    line = line_of("x", uri="ftp://pets/x.jpg")

    (found,) = lines_of(jsonl_source([line]))

    assert isinstance(found, ErrorLine)
    assert (found.custom_id, found.uri) == ("x", "ftp://pets/x.jpg")
    assert found.message == "uri: write s3://bucket/key, or https://…"


@pytest.mark.parametrize(
    ("fields", "wanted"),
    [
        ({}, {}),
        ({"uri": "https://example.org/x.jpg?q=1"}, {}),
        ({"labels": ["a cat", "a dog"]}, {"labels": ("a cat", "a dog")}),
        ({"label_set": REFERENCE}, {"label_set": REFERENCE}),
        ({"labels": None, "label_set": None}, {}),
        ({"custom_id": 'quoted "x" \\ ü 猫 \u2028 \t'}, {}),
        ({"sku": 5, "deep": {"a": [1, None]}}, {"columns": {"sku": 5, "deep": {"a": [1, None]}}}),
        ({"n": 1e300, "text": '"\\'}, {"text": '"\\', "columns": {"n": 1e300, "text": '"\\'}}),
        ({"text": None}, {"columns": {"text": None}}),
        ({"text": ""}, {"columns": {"text": ""}}),
        (
            {"text": "a\t\x1b[2J\u2028", "labels": ["b"]},
            {
                "text": "a\t\x1b[2J\u2028",
                "labels": ("b",),
                "columns": {"text": "a\t\x1b[2J\u2028"},
            },
        ),
    ],
)
def test_a_good_line_is_planned_as_it_is(fields: dict[str, Any], wanted: dict[str, Any]) -> None:
    line = line_of("x", **fields)

    (found,) = lines_of(jsonl_source([line], columns="all"))

    given_fields = json.loads(line)
    basic = {"line": 1, "custom_id": given_fields["custom_id"], "uri": given_fields["uri"]}
    assert found == PlannedLine(**(basic | wanted))


@pytest.mark.parametrize(
    ("columns", "carried"),
    [("none", {}), ("all", {"sku": 1, "size": 2}), (frozenset({"sku", "x"}), {"sku": 1})],
)
def test_columns_are_carried_when_they_are_asked_for(columns: Any, carried: Any) -> None:
    manifest = b"\n".join(line_of(f"{n}", sku=1, size=2) for n in range(3))

    lines = lines_of(jsonl_source([manifest], columns=columns))

    assert [line.columns for line in lines if isinstance(line, PlannedLine)] == 3 * [carried]


def test_a_mark_at_the_beginning_and_windows_line_breaks_are_no_faults() -> None:
    manifest = b"\xef\xbb\xbf" + b"\r\n".join([line_of("a"), line_of("b"), b""])

    assert [line.line for line in lines_of(jsonl_source(pieces(manifest, 2)))] == [1, 2]


def test_empty_lines_at_the_end_are_no_lines() -> None:
    inside = b"\n" * 20_000

    lines = lines_of(jsonl_source(pieces(line_of("a") + inside + line_of("b") + inside, 999)))

    assert len(codes_of(lines)) == 19_999
    assert lines[-1].line == 20_001


def test_a_line_without_an_end_takes_no_memory() -> None:
    endless = (b"x" * 1_000_000 for _ in range(100))

    tracemalloc.start()
    lines = lines_of(jsonl_source(endless))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()

    assert codes_of(lines) == {1: "line_too_long"}
    assert peak < 8 * MAX_LINE_BYTES


@given(
    kinds=st.lists(st.sampled_from(["good", "repeated", *BAD_JSON_LINES]), max_size=60),
    size=st.integers(min_value=1, max_value=400),
)
def test_lines_do_not_depend_on_how_the_bytes_arrive(kinds: list[str], size: int) -> None:
    """Many lines are checked at once, odd ones alone: the plan must be the same."""
    kinds = [kind for kind in kinds if kind not in {"huge_line", "huge_number", "deep"}]
    lines = [
        line_of(f"good-{n}") if kind == "good" else BAD_JSON_LINES[kind][0]
        for n, kind in enumerate(kinds)
    ]
    manifest = b"\n".join(lines)

    whole = [part.body for part in parts_of(jsonl_source([manifest]), max_lines=7)]

    assert [p.body for p in parts_of(jsonl_source(pieces(manifest, size)), max_lines=7)] == whole


@pytest.mark.parametrize("stop_after", [1, 5, 39])
@pytest.mark.parametrize("open_source", [jsonl_source, csv_source])
def test_a_source_goes_on_behind_a_checkpoint(open_source: Any, stop_after: int) -> None:
    ids = [f"{n % 333}" for n in range(4_000)]  # most of them repeated
    rows = [f"{one},s3://pets/{one}.jpg".encode() for one in ids]
    lines = [line_of(one) for one in ids]
    manifest = b"\n".join(lines if open_source is jsonl_source else [b"custom_id,uri", *rows])
    whole = list(parts_of(open_source([manifest]), max_lines=100))

    checkpoint = json.loads(json.dumps(whole[stop_after].checkpoint))
    rest = list(parts_of(open_source([manifest], checkpoint=checkpoint), max_lines=100))

    assert rest == whole[stop_after + 1 :]


def test_parts_have_the_size_that_is_asked_for() -> None:
    source = jsonl_source([b"\n".join(line_of(f"{n}") for n in range(MANY))])

    parts = [source.take(size) for size in (64, 64, 1, 1_000, 100_000, 1)]

    sizes = [(part.first_line, part.lines, part.images) for part in parts if part]
    assert sizes == [(1, 64, 64), (65, 64, 64), (129, 1, 1), (130, 1_000, 1_000), (1_130, 71, 71)]
    assert parts[-1] is None


def test_a_part_counts_the_lines_that_name_an_image() -> None:
    part = jsonl_source([line_of("a") + b"\n\n" + line_of("a") + b"\n" + line_of("b")]).take(100)

    assert part is not None
    assert (part.lines, part.images) == (4, 2)
    assert len(parse_plan(part.body)) == 4


# CSV


@pytest.mark.parametrize("size", [300, 1_000_000])
@pytest.mark.parametrize("kind", BAD_CSV_ROWS)
def test_a_bad_row_becomes_one_error_and_harms_no_other_row(kind: str, size: int) -> None:
    bad, code = BAD_CSV_ROWS[kind]
    good = [f"good-{number},s3://pets/{number}.jpg,,".encode() for number in range(1_200)]
    manifest = b"\n".join([CSV_HEADER, *good[:700], bad, *good[700:]])

    lines = lines_of(csv_source(pieces(manifest, size), columns="all"))

    assert codes_of(lines) == {702: code}
    assert [line.line for line in lines] == list(range(2, 1_203))


@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
def test_cells_in_quotes_may_hold_delimiters_quotes_and_line_breaks(delimiter: str) -> None:
    rows = [
        ["custom_id", "note", "uri", "labels"],
        ["a", f'"x{delimiter} ""y""\nz"', "s3://pets/a.jpg", '"a cat;a dog"'],
        ["b", "plain", "s3://pets/b.jpg", '"[""a cat"", ""a; dog""]"'],
    ]
    manifest = "\r\n".join(map(delimiter.join, rows)).encode()

    first, second = lines_of(csv_source(pieces(manifest, 3), columns="all"))

    assert isinstance(first, PlannedLine)
    assert isinstance(second, PlannedLine)
    assert (first.line, second.line) == (2, 4)
    assert first.columns == {"note": f'x{delimiter} "y"\nz'}
    assert first.labels == ("a cat", "a dog")
    assert second.labels == ("a cat", "a; dog")


def test_a_quote_that_is_never_closed_costs_one_row() -> None:
    rows = [f"{n},s3://pets/{n}.jpg,".encode() for n in range(3 * MAX_ROW_LINES)]
    rows[50] = b'50,s3://pets/50.jpg,"oh'
    rows[60] = b'60,s3://pets/60.jpg,"no'

    lines = lines_of(csv_source([b"\n".join([b"custom_id,uri,note", *rows])]))

    assert codes_of(lines) == {52: "bad_row", 62: "bad_row"}
    assert len(lines) == len(rows)


@pytest.mark.parametrize(
    "manifest",
    [
        b"",
        b"id,uri\n",
        b"a,s3://pets/a.jpg\n",
        b"custom_id,uri,uri\n",
        b"custom_id\xff,uri\n",
        b"\n",
    ],
)
def test_a_csv_file_without_a_header_is_refused_as_a_whole(manifest: bytes) -> None:
    with pytest.raises(RunSourceError):
        csv_source([manifest] if manifest else []).take(1)


# Parquet


def parquet(**columns: Any) -> io.BytesIO:
    file = io.BytesIO()
    pq.write_table(pa.table(columns), file)
    return io.BytesIO(file.getvalue())


def test_rows_of_a_parquet_file_are_lines() -> None:
    file = parquet(
        custom_id=["a", "a", None, "d", ""],
        uri=["s3://pets/a", "s3://pets/b", "s3://pets/c", "nowhere", "s3://pets/e"],
        labels=[["a cat", "a dog"], None, None, None, None],
        price=[1.5, float("nan"), None, 2.0, 2.0],
    )

    lines = lines_of(PlannedLines(read_parquet(file, columns="all"), columns="all"))

    assert lines[0] == PlannedLine(
        line=1, custom_id="a", uri="s3://pets/a", labels=("a cat", "a dog"), columns={"price": 1.5}
    )
    assert codes_of(lines) == {
        2: "duplicate_custom_id",
        3: "missing_field",
        4: "unsupported_uri",
        5: "empty_field",
    }


@pytest.mark.parametrize("columns", ["none", frozenset({"text"})])
def test_texts_beside_pictures_are_planned_from_each_kind_of_manifest(columns: Any) -> None:
    texts = [f'{n}" pan, "new"' if n % 3 else "" for n in range(MANY)]
    ids, uris = [f"p{n}" for n in range(MANY)], [f"s3://shop/{n}.jpg" for n in range(MANY)]
    rows = zip(ids, uris, texts, strict=True)
    doubled = ['"' + text.replace('"', '""') + '"' for text in texts]
    csv_rows = [",".join(row) for row in zip(ids, uris, doubled, strict=True)]
    jsonl = "\n".join(
        json.dumps({"custom_id": one, "uri": uri} | ({"text": text} if text else {}))
        for one, uri, text in rows
    )
    table = parquet(custom_id=ids, uri=uris, text=[text or None for text in texts])
    sources = [
        jsonl_source([jsonl.encode()], columns=columns),
        csv_source(["\n".join(["custom_id,uri,text", *csv_rows]).encode()], columns=columns),
        PlannedLines(read_parquet(table, columns=columns), columns=columns),
    ]

    planned = [lines_of(source) for source in sources]

    for lines in planned:
        assert [line.text for line in lines if isinstance(line, PlannedLine)] == [
            text or None for text in texts
        ]
        assert isinstance(lines[1], PlannedLine)
        assert lines[1].columns == ({} if columns == "none" else {"text": texts[1]})


def test_a_column_of_bytes_or_numbers_is_no_text() -> None:
    for values, codes in (([b"a", None], {1: "wrong_type"}), ([1.5, 2.5], {1: "wrong_type"})):
        file = parquet(custom_id=["a", "a"], uri=["s3://pets/a", "s3://pets/b"], text=values)
        lines = lines_of(PlannedLines(read_parquet(file)))
        assert codes_of(lines).items() >= codes.items()


def test_whole_numbers_as_ids_and_values_that_json_does_not_have_are_written_as_text() -> None:
    import datetime as dt

    file = parquet(
        custom_id=[7],
        uri=["s3://pets/a"],
        day=[dt.date(2026, 1, 2)],
        raw=[b"bytes"],
        nan=[float("nan")],
    )

    (line,) = lines_of(PlannedLines(read_parquet(file, columns="all"), columns="all"))

    assert isinstance(line, PlannedLine)
    assert line.custom_id == "7"
    assert line.columns == {"day": "2026-01-02", "raw": "bytes", "nan": None}


@pytest.mark.parametrize(
    "body", [b"", b"PAR1", b"PAR1" + b"x" * 100 + b"PAR1", parquet(id=[1]).getvalue()]
)
def test_a_file_that_is_not_a_parquet_manifest_is_refused_as_a_whole(body: bytes) -> None:
    with pytest.raises(RunSourceError):
        list(read_parquet(io.BytesIO(body)))


# Compression


def zstd(body: bytes) -> bytes:
    sink = pa.BufferOutputStream()
    with pa.CompressedOutputStream(sink, "zstd") as stream:
        stream.write(body)
    return bytes(sink.getvalue())


COMPRESSED = {
    "plain": lambda body: body,
    "gzip": gzip.compress,
    "zstd": zstd,
    "gzip_members": lambda body: gzip.compress(body[:99]) + gzip.compress(body[99:]) + b"\0" * 9,
    "zstd_frames": lambda body: zstd(body[:99]) + zstd(body[99:]),
}


@pytest.mark.parametrize("size", [1, 7, 1_000_000])
@pytest.mark.parametrize("kind", COMPRESSED)
def test_compressed_manifests_are_read_as_they_arrive(kind: str, size: int) -> None:
    body = b"\n".join(line_of(f"{n}") for n in range(100))

    assert b"".join(decompress(pieces(COMPRESSED[kind](body), size))) == body


@pytest.mark.parametrize("kind", ["gzip", "zstd", "gzip_members"])
def test_a_compressed_manifest_that_is_cut_off_ends_with_an_error_behind_its_lines(
    kind: str,
) -> None:
    body = b"\n".join(line_of(f"{zlib.crc32(b'%d' % n)}") for n in range(12_000))
    packed = COMPRESSED[kind](body)
    source = jsonl_source(decompress(pieces(packed[: len(packed) // 2], 4_096)))

    read = source.take(100)
    with pytest.raises(RunSourceError, match="ends too early"):
        lines_of(source)

    assert read is not None
    assert read.images == 100


@pytest.mark.parametrize(
    "packed",
    [gzip.compress(b"x" * 999, mtime=0)[:-8] + b"y" * 8, b"\x28\xb5\x2f\xfd" + b"y" * 99],
    ids=["gzip", "zstd"],
)
def test_damaged_data_is_an_error_of_the_source(packed: bytes) -> None:
    with pytest.raises(RunSourceError, match="damaged"):
        list(decompress([packed]))


def test_a_compression_bomb_takes_no_memory() -> None:
    bomb = gzip.compress(b"\0" * 20_000_000)

    tracemalloc.start()
    size = sum(map(len, decompress([bomb])))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()

    assert size == 20_000_000
    assert peak < 4_000_000


def pieces(body: bytes, size: int) -> Iterator[bytes]:
    """Cut *body* into pieces, as a network may."""
    for start in range(0, len(body), size):
        yield body[start : start + size]


def test_a_part_of_large_lines_ends_early(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(planned_lines, "MAX_PART_CHARS", 10_000)
    manifest = b"\n".join(line_of(f"{n}", note=(n % 7) * 300 * "n") for n in range(500))

    parts = list(parts_of(jsonl_source([manifest], columns="all"), max_lines=100))

    assert sum(part.lines for part in parts) == 500
    assert 10 < len(parts) < 100
    assert max(len(part.body) for part in parts) < 13_000
