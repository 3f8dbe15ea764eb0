"""Files of a run, downloaded from a real SeaweedFS."""

from pathlib import Path

import pytest

from labelyard.runs.outputs import download_outputs
from labelyard.settings import ClientSettings
from labelyard_worker.local.servers import SeaweedServer
from tests.support.buckets import Bucket


def test_a_repeated_download_fetches_what_has_changed_and_nothing_else(
    bucket: Bucket, seaweed: SeaweedServer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", seaweed.endpoint_url)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", seaweed.access_key_id)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", seaweed.secret_access_key)
    out = bucket.uri("run/")
    bucket.put("run/summary.json", b'{"images": 1}')
    bucket.put("run/results-00000.jsonl", b"a result")
    bucket.put("run/_plan/shard-00000.jsonl.gz", b"of the workers")
    download_outputs(out, tmp_path, ClientSettings())
    kept = (tmp_path / "results-00000.jsonl").stat().st_ino

    bucket.put("run/summary.json", b'{"images": 2}')  # the same size
    bucket.put("run/results-00001.jsonl", b"a new result")
    paths = download_outputs(out, tmp_path, ClientSettings())

    assert (tmp_path / "summary.json").read_bytes() == b'{"images": 2}'
    assert (tmp_path / "results-00000.jsonl").stat().st_ino == kept
    assert [path.name for path in paths] == [
        "results-00000.jsonl",
        "results-00001.jsonl",
        "summary.json",
    ]
