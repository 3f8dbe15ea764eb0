"""Bad lines of manifests, each kind with its code, alone and mixed among good ones."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, Literal

from labelyard.runs.line_faults import MAX_LINE_BYTES, LineFault
from tests.support.manifests import REFERENCE, line_of

ManifestForm = Literal["jsonl", "csv"]
CSV_HEADER: Final = b"custom_id,uri,labels,text"
GOOD_PREFIX: Final = "good-"
#: A kind of 1 MiB is there in every tenth round only.
HUGE: Final = "huge_line"

BAD_JSON_LINES: Final = {
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
    "number_as_text": (line_of("x", text=7), LineFault.WRONG_TYPE),
    "false_as_text": (line_of("x", text=False), LineFault.WRONG_TYPE),
    "list_as_text": (line_of("x", text=["red", "shoe"]), LineFault.WRONG_TYPE),
    "long_text": (line_of("x", text="t" * 2_049), LineFault.FIELD_TOO_LONG),
    "huge_column": (line_of("x", note="n" * 20_000), LineFault.COLUMNS_TOO_LARGE),
}

BAD_CSV_ROWS: Final = {
    "too_few": (b"x", LineFault.BAD_ROW),
    "too_many": (b"x,s3://pets/x.jpg,,,5", LineFault.BAD_ROW),
    "stray_quote": (b'x,s3://pets/x.jpg,,"a"b', LineFault.BAD_ROW),
    "unclosed": (b'x,s3://pets/x.jpg,,"a', LineFault.BAD_ROW),
    "empty": (b"", LineFault.EMPTY_LINE),
    "bad_utf_8": (b"\xff,s3://pets/x.jpg,,", LineFault.BAD_ENCODING),
    "nul": (b"x\0,s3://pets/x.jpg,,", LineFault.BAD_ENCODING),
    "huge_line": (b"x" * (MAX_LINE_BYTES + 1), LineFault.LINE_TOO_LONG),
    "huge_cell": (b"x,s3://pets/x.jpg,," + b"n" * 200_000, LineFault.FIELD_TOO_LONG),
    "long_text": (b"x,s3://pets/x.jpg,," + b"t" * 2_049, LineFault.FIELD_TOO_LONG),
    "no_id": (b",s3://pets/x.jpg,,", LineFault.EMPTY_FIELD),
    "no_uri": (b"x,,,", LineFault.EMPTY_FIELD),
    "control": (b"x\x07,s3://pets/x.jpg,,", LineFault.CONTROL_CHARACTERS),
    "repeated": (b"good-1,s3://pets/x.jpg,,", LineFault.DUPLICATE_CUSTOM_ID),
    "ftp": (b"x,ftp://pets/x.jpg,,", LineFault.UNSUPPORTED_URI),
    "labels": (b"x,s3://pets/x.jpg,a;;b,", LineFault.BAD_LABELS),
}

BAD_LINES: Final = {"jsonl": BAD_JSON_LINES, "csv": BAD_CSV_ROWS}


@dataclass
class MixedManifest:
    """A manifest in which good lines, bad lines and lines with bad pictures take turns.

    Attributes:
        lines: Its lines, from line 1.
        good: Line of each good one by its id.
        bad: Code of each line that names no picture, by its number.
        failing: Code of each line whose picture has no scores, by its number.
    """

    lines: list[bytes] = field(default_factory=list)
    good: dict[str, int] = field(default_factory=dict)
    bad: dict[int, str] = field(default_factory=dict)
    failing: dict[int, str] = field(default_factory=dict)

    @property
    def body(self) -> bytes:
        """The bytes of the manifest."""
        return b"\n".join([*self.lines, b""])

    @property
    def errors(self) -> dict[int, str]:
        """Code of each line that is not good, by its number."""
        return self.bad | self.failing


def mixed_manifest(
    form: ManifestForm,
    uris: Sequence[str],
    *,
    rounds: int,
    failing: Sequence[tuple[Mapping[str, str], str]] = (),
) -> MixedManifest:
    """Mix lines of every kind, each behind a good one.

    Args:
        uris: Addresses of good pictures, which take turns.
        rounds: How often each kind is there.
        failing: Address of each picture without scores, perhaps with a ``label_set``, and the code.
    """
    made = MixedManifest()
    if form == "csv":
        made.lines.append(CSV_HEADER)

    def add_good() -> None:
        custom_id = f"{GOOD_PREFIX}{len(made.good)}"
        uri = uris[len(made.good) % len(uris)]
        made.lines.append(written(form, custom_id, {"uri": uri}))
        made.good[custom_id] = len(made.lines)

    for number in range(rounds):
        for bad, code in kinds_of(form, number):
            add_good()
            made.lines.append(bad)
            made.bad[len(made.lines)] = code
        for fields, code in failing:
            add_good()
            made.lines.append(written(form, f"failing-{len(made.lines)}", fields))
            made.failing[len(made.lines)] = code
    add_good()
    return made


def kinds_of(form: ManifestForm, number: int) -> Iterator[tuple[bytes, str]]:
    """Yield the bad lines of one round with their codes."""
    for kind, (bad, code) in BAD_LINES[form].items():
        if kind != HUGE or not number % 10:
            yield bad, code


def written(form: ManifestForm, custom_id: str, fields: Mapping[str, str]) -> bytes:
    """Write a line that names a picture."""
    if form == "csv":
        return f"{custom_id},{fields['uri']},,".encode()
    return json.dumps({"custom_id": custom_id, **fields}).encode()
