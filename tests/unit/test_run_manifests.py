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

from labelyard.runs.lines import MAX_LINE_BYTES, ErrorLine, LineFault, PlannedLine, parse_plan
from labelyard_worker.runs.sources import planned_lines
from labelyard_worker.runs.sources.compression import decompress
from labelyard_worker.runs.sources.csv_manifest import MAX_ROW_LINES
from labelyard_worker.runs.sources.parquet_manifest import read_parquet
from labelyard_worker.runs.sources.plan_parts import RunSourceError
from labelyard_worker.runs.sources.planned_lines import PlannedLines
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

BAD_JSON_LINES = {
    "no_json": (b"cats and dogs", LineFault.BAD_JSON),
    "cut_off": (b'{"custom_id": "x", "uri": "s3://pe', LineFault.BAD_JSON),
    "two_objects": (line_of("x") + line_of("y"), LineFault.BAD_JSON),
    "single_quotes": (b"{'custom_id': 'x'}", LineFault.BAD_JSON),
    "not_a_number": (b'{"custom_id": "x", "uri": "s3://pets/x", "n": NaN}', LineFault.BAD_JSON),
    "infinity": (b'{"custom_id": "x", "uri": "s3://pets/x", "n": -Infinity}', LineFault.BAD_JSON),
    "deep": (b'{"custom_id": ' + b"[" * 5_000, LineFault.BAD_JSON),
    "half_surrogate": (b'{"custom_id": "\\ud800", "uri": "s3://pets/x"}', LineFault.BAD_JSON),
    "huge_number": (b'{"custom_id": ' + b"9" * 50_000 + b"}", LineFault.BAD_JSON),
    "bad_utf_8": (b'{"custom_id": "\xff", "uri": "s3://pets/x"}', LineFault.BAD_ENCODING),
    "latin_1": (
        '{"custom_id": "é", "uri": "s3://pets/x"}'.encode("latin-1"),
        LineFault.BAD_ENCODING,
    ),
    "mark_inside": (b"\xef\xbb\xbf" + line_of("x"), LineFault.BAD_ENCODING),
    "nul_bytes": (line_of("x").decode().encode("utf-16-le"), LineFault.BAD_ENCODING),
    "list": (b'["x", "s3://pets/x.jpg"]', LineFault.NOT_AN_OBJECT),
    "text": (b'"s3://pets/x.jpg"', LineFault.NOT_AN_OBJECT),
    "null": (b"null", LineFault.NOT_AN_OBJECT),
    "empty": (b"", LineFault.EMPTY_LINE),
    "spaces": (b" \t \r", LineFault.EMPTY_LINE),
    "huge_line": (line_of("x", note="n" * MAX_LINE_BYTES), LineFault.LINE_TOO_LONG),
    "no_id": (b'{"uri": "s3://pets/x.jpg"}', LineFault.MISSING_FIELD),
    "no_uri": (b'{"custom_id": "x"}', LineFault.MISSING_FIELD),
    "nothing": (b"{}", LineFault.MISSING_FIELD),
    "null_id": (line_of("x", custom_id=None), LineFault.MISSING_FIELD),
    "misspelt": (b'{"customId": "x", "url": "s3://pets/x.jpg"}', LineFault.MISSING_FIELD),
    "number_as_id": (line_of("x", custom_id=7), LineFault.WRONG_TYPE),
    "list_as_uri": (line_of("x", uri=["s3://pets/x.jpg"]), LineFault.WRONG_TYPE),
    "true_as_uri": (line_of("x", uri=True), LineFault.WRONG_TYPE),
    "empty_id": (line_of("x", custom_id=""), LineFault.EMPTY_FIELD),
    "empty_uri": (line_of("x", uri=""), LineFault.EMPTY_FIELD),
    "long_id": (line_of("x", custom_id="x" * 1_025), LineFault.FIELD_TOO_LONG),
    "long_uri": (line_of("x", uri="s3://pets/" + "x" * 2_048), LineFault.FIELD_TOO_LONG),
    "long_key": (line_of("x", uri="s3://pets/" + "ü" * 600), LineFault.FIELD_TOO_LONG),
    "nul_in_id": (line_of("x", custom_id="a\0b"), LineFault.CONTROL_CHARACTERS),
    "escape_in_uri": (line_of("x", uri="s3://pets/\x1b[2J"), LineFault.CONTROL_CHARACTERS),
    "repeated": (line_of("good-1"), LineFault.DUPLICATE_CUSTOM_ID),
    "ftp": (line_of("x", uri="ftp://pets/x.jpg"), LineFault.UNSUPPORTED_URI),
    "path": (line_of("x", uri="/etc/passwd"), LineFault.UNSUPPORTED_URI),
    "http": (line_of("x", uri="http://pets/x.jpg"), LineFault.UNSUPPORTED_URI),
    "https_alone": (line_of("x", uri="https://"), LineFault.UNSUPPORTED_URI),
    "upper_case": (line_of("x", uri="S3://pets/x.jpg"), LineFault.UNSUPPORTED_URI),
    "no_key": (line_of("x", uri="s3://pets/"), LineFault.UNSUPPORTED_URI),
    "no_bucket": (line_of("x", uri="s3:///x.jpg"), LineFault.UNSUPPORTED_URI),
    "host_as_bucket": (line_of("x", uri="s3://evil:80?/x.jpg"), LineFault.UNSUPPORTED_URI),
    "labels_text": (line_of("x", labels=7), LineFault.BAD_LABELS),
    "labels_empty": (line_of("x", labels=[]), LineFault.BAD_LABELS),
    "labels_twice": (line_of("x", labels=["a", "a"]), LineFault.BAD_LABELS),
    "labels_odd": (line_of("x", labels=["a", 1]), LineFault.BAD_LABELS),
    "labels_many": (line_of("x", labels=[f"{n}" for n in range(1_001)]), LineFault.BAD_LABELS),
    "labels_and_set": (line_of("x", labels=["a"], label_set=REFERENCE), LineFault.BAD_LABELS),
    "set_by_name": (line_of("x", label_set="pets"), LineFault.UNKNOWN_LABEL_SET),
    "set_inline": (line_of("x", label_set={"labels": ["a"]}), LineFault.UNKNOWN_LABEL_SET),
    "huge_column": (line_of("x", note="n" * 20_000), LineFault.COLUMNS_TOO_LARGE),
}


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


def test_bad_lines_of_every_kind_in_one_manifest_are_named_by_their_lines() -> None:
    wanted, lines = {}, []
    for repeat in range(20):
        for kind, (bad, code) in BAD_JSON_LINES.items():
            if kind == "repeated":
                bad = line_of("good-0-no_json")
            lines += [line_of(f"good-{repeat}-{kind}"), bad]
            wanted[len(lines)] = code
    lines.append(line_of("last"))

    found = lines_of(jsonl_source(pieces(b"\n".join(lines), 100_000), columns="all"))

    assert len(wanted) > 1_000
    assert codes_of(found) == wanted
    assert len(found) == len(lines)
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
        ({"n": 1e300, "text": '"\\'}, {"columns": {"n": 1e300, "text": '"\\'}}),
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


CSV_ROWS = {
    "too_few": (b"x", LineFault.BAD_ROW),
    "too_many": (b"x,s3://pets/x.jpg,,,5", LineFault.BAD_ROW),
    "stray_quote": (b'x,s3://pets/x.jpg,,"a"b', LineFault.BAD_ROW),
    "unclosed": (b'x,s3://pets/x.jpg,,"a', LineFault.BAD_ROW),
    "empty": (b"", LineFault.EMPTY_LINE),
    "bad_utf_8": (b"\xff,s3://pets/x.jpg,,", LineFault.BAD_ENCODING),
    "nul": (b"x\0,s3://pets/x.jpg,,", LineFault.BAD_ENCODING),
    "huge_line": (b"x" * (MAX_LINE_BYTES + 1), LineFault.LINE_TOO_LONG),
    "huge_cell": (b"x,s3://pets/x.jpg,," + b"n" * 200_000, LineFault.FIELD_TOO_LONG),
    "no_id": (b",s3://pets/x.jpg,,", LineFault.EMPTY_FIELD),
    "no_uri": (b"x,,,", LineFault.EMPTY_FIELD),
    "control": (b"x\x07,s3://pets/x.jpg,,", LineFault.CONTROL_CHARACTERS),
    "repeated": (b"good-1,s3://pets/x.jpg,,", LineFault.DUPLICATE_CUSTOM_ID),
    "ftp": (b"x,ftp://pets/x.jpg,,", LineFault.UNSUPPORTED_URI),
    "labels": (b"x,s3://pets/x.jpg,a;;b,", LineFault.BAD_LABELS),
}


@pytest.mark.parametrize("size", [300, 1_000_000])
@pytest.mark.parametrize("kind", CSV_ROWS)
def test_a_bad_row_becomes_one_error_and_harms_no_other_row(kind: str, size: int) -> None:
    bad, code = CSV_ROWS[kind]
    good = [f"good-{number},s3://pets/{number}.jpg,,".encode() for number in range(1_200)]
    manifest = b"\n".join([b"custom_id,uri,labels,note", *good[:700], bad, *good[700:]])

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
