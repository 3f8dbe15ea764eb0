"""Sources of runs in real storage: listings and manifests, whole and from a checkpoint."""

import gzip
import io
import json
from dataclasses import replace
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from labelyard.runs.lines import PlannedLine
from labelyard.s3_client import S3Credentials
from labelyard_worker.intake.sources.s3_clients import open_signer
from labelyard_worker.intake.sources.s3_settings import S3Settings
from labelyard_worker.local.servers import SeaweedServer
from labelyard_worker.runs.sources import listing, manifest_object, run_sources
from labelyard_worker.runs.sources.plan_parts import RunSourceError
from labelyard_worker.runs.sources.run_sources import SourceOpener
from tests.support.buckets import Bucket
from tests.support.manifests import codes_of, line_of, lines_of, parts_of

ODD_KEYS = ["a b+c.jpg", "ü/猫.jpg", "a//b.jpg", "%41.jpg", "q?x=1&y.jpg", "~!*'().jpg"]


@pytest.fixture
def opener(seaweed: SeaweedServer) -> SourceOpener:
    keys = S3Credentials(seaweed.access_key_id, seaweed.secret_access_key)
    return SourceOpener(S3Settings(seaweed.endpoint_url, "us-east-1", credentials=keys))


def ids_of(source: Any, *, max_lines: int = 1_000) -> list[str]:
    lines = lines_of(source, max_lines=max_lines)
    assert all(isinstance(line, PlannedLine) for line in lines)
    assert [line.line for line in lines] == list(range(1, len(lines) + 1))
    return [line.custom_id or "" for line in lines]


@pytest.mark.parametrize(
    ("pattern", "wanted"),
    [
        ("", ["a.jpg", "p/1.jpg", "p/2.png", "p/q/3.jpg", "pq.jpg"]),
        ("p/", ["p/1.jpg", "p/2.png", "p/q/3.jpg"]),
        ("p", ["p/1.jpg", "p/2.png", "p/q/3.jpg", "pq.jpg"]),
        ("p/*.jpg", ["p/1.jpg"]),
        ("p/**/*.jpg", ["p/1.jpg", "p/q/3.jpg"]),
        ("**/[0-2].*", ["p/1.jpg", "p/2.png"]),
        ("p/q/3.jpg", ["p/q/3.jpg"]),
        ("nothing/", []),
    ],
)
def test_a_pattern_selects_keys(
    bucket: Bucket, opener: SourceOpener, pattern: str, wanted: list[str]
) -> None:
    for key in ["a.jpg", "p/1.jpg", "p/2.png", "p/q/3.jpg", "pq.jpg"]:
        bucket.put(key, b"x")

    source = opener.open(f"s3://{bucket.name}/{pattern}", form="prefix")

    assert ids_of(source) == wanted


@pytest.mark.parametrize("stop_after", [0, 1, 3])
def test_a_listing_goes_on_behind_a_key_on_any_page(
    bucket: Bucket, opener: SourceOpener, monkeypatch: pytest.MonkeyPatch, stop_after: int
) -> None:
    monkeypatch.setattr(listing, "KEYS_AT_ONCE", 7)
    for number in range(40):
        bucket.put(f"p/{number:02d}.jpg", b"x" if number != 23 else b"")
    uri = f"s3://{bucket.name}/p/*.jpg"
    whole = list(parts_of(opener.open(uri, form="prefix"), max_lines=9))

    checkpoint = json.loads(json.dumps(whole[stop_after].checkpoint))
    source = opener.open(uri, form="prefix", checkpoint=checkpoint)

    assert sum(part.lines for part in whole) == 40
    assert list(parts_of(source, max_lines=9)) == whole[stop_after + 1 :]


def test_keys_that_obstore_refuses_are_listed_and_folders_are_not(
    bucket: Bucket, opener: SourceOpener, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(listing, "KEYS_AT_ONCE", 3)
    for key in ["folder/", *ODD_KEYS]:
        bucket.put(key, b"" if key == "folder/" else b"x")

    source = opener.open(f"s3://{bucket.name}/", form="prefix")

    assert sorted(ids_of(source)) == sorted(set(bucket.keys()) - {"folder/"})


def parquet_of(ids: list[str]) -> bytes:
    file = io.BytesIO()
    columns = {
        "custom_id": ids,
        "uri": [f"s3://pets/{one}.jpg" for one in ids],
        "n": len(ids) * [1],
    }
    pq.write_table(pa.table(columns), file, row_group_size=100)
    return file.getvalue()


def csv_of(ids: list[str]) -> bytes:
    return b"\n".join([b"custom_id,uri,n", *(f"{i},s3://pets/{i}.jpg,1".encode() for i in ids)])


def jsonl_of(ids: list[str]) -> bytes:
    return b"\n".join(line_of(one, n=1) for one in ids)


MANIFESTS = {
    "m.jsonl": ("jsonl", jsonl_of),
    "m.jsonl.gz": ("jsonl", lambda ids: gzip.compress(jsonl_of(ids))),
    "odd//key 猫.csv": ("csv", csv_of),
    "m.parquet": ("parquet", parquet_of),
}


@pytest.mark.parametrize("key", MANIFESTS)
def test_a_manifest_is_read_in_ranges_and_goes_on_behind_a_checkpoint(
    bucket: Bucket, opener: SourceOpener, monkeypatch: pytest.MonkeyPatch, key: str
) -> None:
    monkeypatch.setattr(manifest_object, "RANGE_BYTES", 1_000)
    form, write = MANIFESTS[key]
    uri = bucket.put(key, write([f"{n}" for n in range(500)]))

    whole = list(parts_of(opener.open(uri, form=form, columns=["n"]), max_lines=150))
    again = opener.open(uri, form=form, columns=["*"], checkpoint=whole[1].checkpoint)

    assert [part.images for part in whole] == [150, 150, 150, 50]
    assert b'"columns":{"n":' in whole[0].body
    assert [p.lines for p in parts_of(again, max_lines=150)] == [150, 50]


@pytest.mark.parametrize("key", ["lists/m.jsonl", "lists//m.jsonl", "%41/m?x=1.jsonl"])
def test_a_manifest_is_read_under_any_key_and_boto3_opens_for_odd_ones_alone(
    bucket: Bucket, opener: SourceOpener, monkeypatch: pytest.MonkeyPatch, key: str
) -> None:
    bucket.put(key, b'{"custom_id": "a", "uri": "s3://b/a.jpg"}\n')
    opened: list[S3Settings] = []

    def open_noted(settings: S3Settings) -> Any:
        opened.append(settings)
        return open_signer(settings)

    monkeypatch.setattr(run_sources, "open_signer", open_noted)

    source = opener.open(f"s3://{bucket.name}/{key}", form="jsonl")

    assert ids_of(source) == ["a"]
    assert bool(opened) is ("//" in key)


def test_a_manifest_that_changes_is_refused(
    bucket: Bucket, opener: SourceOpener, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(manifest_object, "RANGE_BYTES", 1_000)
    uri = bucket.put("m.jsonl", jsonl_of([f"{n}" for n in range(500)]))
    source = opener.open(uri, form="jsonl")
    part = source.take(5)
    assert part is not None

    bucket.put("m.jsonl", jsonl_of([f"other-{n}" for n in range(500)]))

    with pytest.raises(RunSourceError, match="was changed"):
        lines_of(source)
    with pytest.raises(RunSourceError, match="was changed"):
        opener.open(uri, form="jsonl", checkpoint=part.checkpoint)


def test_a_manifest_of_a_missing_object_or_a_foreign_bucket_is_refused(
    bucket: Bucket, opener: SourceOpener
) -> None:
    limited = SourceOpener(replace(opener.settings, allowed_buckets=("others",)))

    with pytest.raises(RunSourceError, match="no such object"):
        opener.open(bucket.uri("m.jsonl"), form="jsonl")
    with pytest.raises(RunSourceError, match="LABELYARD_ALLOWED_BUCKETS"):
        limited.open(bucket.uri("m.jsonl"), form="jsonl")


def test_repeated_ids_and_bad_lines_have_their_numbers_in_a_parquet_file(
    bucket: Bucket, opener: SourceOpener
) -> None:
    uri = bucket.put("m.parquet", parquet_of(["a", "b", "a", ""]))

    lines = lines_of(opener.open(uri, form="parquet"))

    assert codes_of(lines) == {3: "duplicate_custom_id", 4: "empty_field"}
