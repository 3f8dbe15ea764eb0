"""``labelyard run report`` on output and pictures in a bucket, and what it says of those it lacks."""

import subprocess
import sys
from pathlib import Path

import pytest

from labelyard import Client, Label
from labelyard.label_sets import as_label_set
from tests.support import pictures
from tests.support.buckets import Bucket
from tests.support.command_line import lines, run
from tests.support.run_output import LABELS, scored, write_run

WITHOUT_PILLOW = """
import sys
sys.modules["PIL"] = None
from labelyard.cli import app
app(sys.argv[1:])
"""


@pytest.fixture
def output(bucket: Bucket, tmp_path: Path, service_environment: dict[str, str]) -> str:
    """Output of a run of 12 pictures, in a bucket as they are; two pictures are gone, one is text."""
    scores = [(LABELS[line % 2], 0.5 + line / 40) for line in range(1, 13)]
    uris = [bucket.uri(f"pictures/{line}.jpg") for line in range(1, 13)]
    for line in range(3, 13):
        body = b"no picture" if line == 3 else pictures.jpeg((320, 200), seed=line)
        bucket.put(f"pictures/{line}.jpg", body)
    scored_lines = [
        scored(line, score, uri=uri)
        for line, score, uri in zip(range(1, 13), scores, uris, strict=True)
    ]
    for file in write_run(tmp_path / "run", scored_lines).iterdir():
        bucket.put(f"runs/1/{file.name}", file.read_bytes())
    bucket.put("runs/1/_plan/shard-00000.jsonl.gz", b"not for the report")
    return bucket.uri("runs/1/")


def test_output_in_a_bucket_is_read_with_its_pictures(output: str, tmp_path: Path) -> None:
    page = tmp_path / "page.html"

    done = run("run", "report", output, "-o", page)

    assert done.exit_code == 0, done.output
    assert "12 lines, 9 pictures, 3 not readable" in done.stdout
    text = page.read_text()
    assert text.count("<img ") == 9
    assert "Some pictures are not shown" in text
    assert "S3: NoSuchKey (2)" in text
    assert "not a picture that can be decoded (1)" in text


def test_a_run_is_named_by_its_id_and_its_registered_label_set_is_known(
    output: str, tmp_path: Path, bucket: Bucket
) -> None:
    page = tmp_path / "page.html"
    known = as_label_set([Label(name=name, threshold=0.62) for name in LABELS])
    bucket.put("runs/1/manifest.json", b"{}")
    with Client() as client:
        reference = client.label_sets.register("animals", known)
        handle = client.runs.start(bucket.uri("pictures/*.jpg"), reference, out=output)

        done = run("run", "report", handle.id, "-o", page)

        assert "threshold 0.62" in page.read_text()
        client.label_sets.delete(reference)
        again = run("run", "report", handle.id, "-o", page, "--no-pictures")
    assert done.exit_code == again.exit_code == 0, done.output + again.output
    assert "12 lines, 9 pictures" in done.stdout


def test_without_pictures_nothing_but_the_output_is_read(output: str, tmp_path: Path) -> None:
    page = tmp_path / "page.html"

    done = run("run", "report", output.rstrip("/"), "-o", page, "--no-pictures", "--json")

    (printed,) = lines(done)
    assert printed["lines"] == 12
    assert printed["pictures"] == printed["pictures_missing"] == 0
    assert printed["size_bytes"] == page.stat().st_size
    assert "item-000007.jpg" in page.read_text()


def test_without_pillow_the_report_has_the_numbers_and_names_the_extra(
    output: str, tmp_path: Path
) -> None:
    page = tmp_path / "page.html"

    done = subprocess.run(
        [sys.executable, "-c", WITHOUT_PILLOW, "run", "report", output, "-o", str(page)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )

    assert done.returncode == 0, done.stderr
    assert "labelyard[report]" in page.read_text()


def test_without_the_right_to_read_pictures_the_report_says_so(
    output: str, tmp_path: Path, bucket: Bucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "copy"
    folder.mkdir()
    for key in bucket.keys("runs/1/"):
        (folder / Path(key).name).write_bytes(bucket.get(key))
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong")

    done = run("run", "report", folder, "-o", tmp_path / "page.html")

    assert done.exit_code == 0, done.output
    assert "No picture is shown" in (tmp_path / "page.html").read_text()
    assert "0 pictures, 12 not readable" in done.stdout


@pytest.mark.parametrize(
    ("source", "complaint"),
    [
        ("s3://photos-of-nobody/x/", "storage_unavailable"),
        ("s3://Not_A_Bucket!/x/", "invalid_message"),
        ("./no-such-folder", "invalid_message"),
        ("no-such-run", "run_not_found"),
    ],
)
def test_output_that_cannot_be_read_is_an_error_of_one_line(
    output: str, source: str, complaint: str, tmp_path: Path
) -> None:
    done = run("run", "report", source, "-o", tmp_path / "page.html")

    assert done.exit_code == {"invalid_message": 2, "storage_unavailable": 3}.get(complaint, 1)
    assert done.stderr.splitlines()[-1].startswith(complaint)
    assert not (tmp_path / "page.html").exists()
