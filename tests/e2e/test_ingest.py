"""A picture that is stored in SeaweedFS gets its labels through ``labelyard ingest``."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from labelyard import Client
from tests.e2e.instant import NAMESPACE, InstantService
from tests.support import pictures
from tests.support.service import NOTIFIED_SECRET, PICTURES, RESULTS, WATCHED
from tests.support.waiting import wait_until

TIMEOUT_S = 30.0
RULES = f"""
[[rules]]
name = "watched"
bucket = "{PICTURES}"
prefix = "{WATCHED}"
suffix = ".jpg"
labels = ["a cat", "a dog"]
tenant = "shop"
pin = true
deliver = {{ object_uri = "s3://{RESULTS}/labels/{{key}}.json" }}
"""


@contextmanager
def ingest_process(folder: Path, instant: InstantService) -> Iterator["subprocess.Popen[bytes]"]:
    """Run the command while the block runs, and end it with SIGTERM."""
    rules, log = folder / "rules.toml", folder / "ingest.log"
    rules.write_text(RULES)
    port = instant.service.notified_port
    command = [
        sys.executable,
        "-m",
        "labelyard",
        "ingest",
        "--rules",
        str(rules),
        "--port",
        f"{port}",
    ]
    variables = {"LABELYARD_NAMESPACE": NAMESPACE, "LABELYARD_INGEST_SECRET": NOTIFIED_SECRET}
    with log.open("wb") as output:
        process = subprocess.Popen(
            command,
            env={**os.environ, **instant.service.variables, **variables},
            stdout=output,
            stderr=output,
        )
        try:
            wait_until(lambda: "ingest_started" in log.read_text() or process.poll() is not None)
            assert process.poll() is None, log.read_text()
            yield process
        finally:
            process.send_signal(signal.SIGTERM)
            code = process.wait(timeout=TIMEOUT_S)
    assert (code, "ingest_stopped" in log.read_text()) == (0, True), log.read_text()


def result_of(instant: InstantService, key: str) -> dict[str, Any]:
    """Wait for the result that is delivered for *key*."""
    results = instant.service.results
    wait_until(lambda: f"labels/{key}.json" in results.keys("labels/"), within_s=TIMEOUT_S)
    content: dict[str, Any] = json.loads(results.get(f"labels/{key}.json"))
    return content


@pytest.fixture
def producer(instant: InstantService) -> Iterator[Client]:
    with instant.client() as client:
        yield client


def test_a_stored_picture_gets_its_labels_at_the_address_that_the_rule_names(
    tmp_path: Path, instant: InstantService, producer: Client
) -> None:
    key = f"{WATCHED}a b c+d%é & {os.urandom(4).hex()}.jpg"
    with ingest_process(tmp_path, instant):
        instant.picture(key)
        instant.service.pictures.put(f"{WATCHED}notes.txt", b"no picture")
        result = result_of(instant, key)

    [image] = result["images"]
    assert image["id"] == f"s3://{PICTURES}/{key}"
    assert (result["status"], image["error"]) == ("succeeded", None)
    assert {label["name"] for label in image["labels"]} == {"a cat", "a dog"}
    assert producer.status(result["job_id"]).tenant == "shop"


def test_an_upload_in_parts_and_a_picture_that_is_written_again_get_one_job_each(
    tmp_path: Path, instant: InstantService, producer: Client
) -> None:
    s3, key = instant.service.s3, f"{WATCHED}{os.urandom(4).hex()}.jpg"
    part = pictures.jpeg() + os.urandom(8)
    with ingest_process(tmp_path, instant):
        upload = s3.create_multipart_upload(Bucket=PICTURES, Key=key)
        where = {"Bucket": PICTURES, "Key": key, "UploadId": upload["UploadId"]}
        etag = s3.upload_part(**where, PartNumber=1, Body=part)["ETag"]
        parts = {"Parts": [{"ETag": etag, "PartNumber": 1}]}
        s3.complete_multipart_upload(**where, MultipartUpload=parts)
        first = result_of(instant, key)
        s3.delete_object(Bucket=RESULTS, Key=f"labels/{key}.json")
        tags = {"TagSet": [{"Key": "seen", "Value": "yes"}]}
        s3.put_object_tagging(Bucket=PICTURES, Key=key, Tagging=tags)
        instant.picture(key)
        second = result_of(instant, key)

    found = producer.list_jobs(tenant="shop", limit=1000).jobs
    jobs = [one.job_id for one in found if key in producer.status(one.job_id).message]
    assert sorted(jobs) == sorted([first["job_id"], second["job_id"]])
    assert [one["images"][0]["error"] for one in (first, second)] == [None, None]
    assert first["images"][0]["sha256"] != second["images"][0]["sha256"]
