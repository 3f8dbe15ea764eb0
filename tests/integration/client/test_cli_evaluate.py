"""``labelyard evaluate`` and ``compare`` on real servers: uploads, files, requirements and exit codes."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from labelyard import Client
from labelyard.label_sets import as_label_set
from labelyard.ledger import Ledger, connect
from labelyard.settings import ClientSettings
from tests.support import pictures
from tests.support.command_line import lines, run, worker

pytestmark = pytest.mark.allow_persistent_keys("registered label sets stay")


@pytest.fixture
def ledger(service_environment: dict[str, str]) -> Iterator[Ledger]:
    """Open the ledger, whose jobs the test ends as a worker would: the first label is the best."""
    settings = ClientSettings()
    connection = connect(settings)
    yield Ledger(connection, settings)
    connection.close()


@pytest.fixture
def manifest(tmp_path: Path) -> Path:
    """Three local pictures and one address, half of them cats."""
    for place in range(3):
        (tmp_path / f"{place}.jpg").write_bytes(pictures.jpeg((32, 24), seed=place))
    images = ["0.jpg", "1.jpg", "2.jpg", "s3://photos/3.jpg"]
    texts = [
        json.dumps({"image": image, "label": ("cat", "dog")[place % 2], "split": "test"})
        for place, image in enumerate(images)
    ]
    path = tmp_path / "manifest.jsonl"
    path.write_text("\n".join(texts))
    return path


@pytest.fixture
def labels(tmp_path: Path) -> Path:
    """A file of labels."""
    path = tmp_path / "pets.txt"
    path.write_text("cat\ndog\n")
    return path


def test_a_registered_set_is_evaluated_into_a_folder(
    ledger: Ledger, manifest: Path, tmp_path: Path
) -> None:
    with Client() as client:
        reference = client.label_sets.register("pets", as_label_set(["cat", "dog"]))

    with worker(ledger):
        done = run(
            "evaluate",
            "pets",
            manifest,
            "--require",
            "accuracy>=0.5",
            "-o",
            tmp_path / "a",
            "--json",
        )

    assert done.exit_code == 0, done.output
    [printed] = lines(done)
    assert (printed["reference"], printed["accuracy"], printed["n"]) == (reference, 0.5, 4)
    assert printed["folder"] == str(tmp_path / "a")
    report = json.loads((tmp_path / "a" / "report.json").read_text())
    assert report == {name: value for name, value in printed.items() if name != "folder"}
    predictions = (tmp_path / "a" / "predictions.jsonl").read_text()
    uris = [json.loads(line)["uri"] for line in predictions.splitlines()]
    assert [uri.startswith("s3://labelyard-uploads/uploads/") for uri in uris] == [True] * 3 + [
        False
    ]
    assert (tmp_path / "a" / "report.html").read_text().startswith("<!doctype html>")


def test_a_requirement_that_fails_ends_with_1_after_the_report(
    ledger: Ledger, manifest: Path, labels: Path, tmp_path: Path
) -> None:
    with worker(ledger):
        done = run(
            "evaluate", labels, manifest, "--require", "recall[dog]>=0.9", "-o", tmp_path / "a"
        )

    assert done.exit_code == 1
    assert "failed: recall[dog]>=0.9 (it is 0.000)" in done.stdout
    assert (tmp_path / "a" / "report.html").exists()


def test_a_picture_without_scores_is_reported_and_ends_with_1(
    ledger: Ledger, labels: Path, tmp_path: Path
) -> None:
    images = [
        {"image": "s3://photos/0.jpg", "label": "cat"},
        {"image": "s3://photos/gone.jpg", "label": "cat"},
    ]
    manifest = tmp_path / "manifest.jsonl"
    manifest.write_text("\n".join(map(json.dumps, images)))

    with worker(ledger):
        done = run("evaluate", labels, manifest, "-o", tmp_path / "a", "--no-pictures")

    assert done.exit_code == 1
    assert "no scores for 1 of 2 pictures, the first in line 2: " in done.stderr
    assert json.loads((tmp_path / "a" / "report.json").read_text())["failed"] == 1


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--require", "accuracy>=90"], "0.9 for 90 %"),
        (["--split", "tset"], "its splits are test"),
        (["--require", "recall[cow]>=0.5"], "no label 'cow'"),
        (["--out", "results/"], "out: "),
        (
            ["--out", "s3://results/a/", "--templates", "t.txt"],
            "--out does not go with --templates",
        ),
    ],
)
def test_what_is_wrong_is_found_before_a_job_is_submitted(
    ledger: Ledger, manifest: Path, labels: Path, options: list[str], said: str
) -> None:
    done = run("evaluate", labels, manifest, *options)

    assert (done.exit_code, said in done.stderr) == (2, True), done.output
    assert ledger.open_images() == 0


@pytest.mark.parametrize(
    ("options", "state", "said"),
    [
        ((), "planning", "evaluate again with the same manifest"),
        (("--cancel-on-interrupt",), "cancelling", "is cancelled"),
    ],
)
def test_an_interrupt_leaves_the_run_of_an_evaluation_or_cancels_it(
    ledger: Ledger,
    manifest: Path,
    labels: Path,
    options: tuple[str, ...],
    state: str,
    said: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def interrupted(*_: Any) -> Any:
        raise KeyboardInterrupt

    monkeypatch.setattr("labelyard.runs.client.Runs.watch", interrupted)

    done = run("evaluate", labels, manifest, "--out", "s3://results/a/", *options)

    assert (done.exit_code, said in done.stderr) == (130, True), done.output
    with Client() as client:
        [started] = client.runs.list()
    assert started.state == state
    assert f"run {started.run_id} " in done.stderr


def test_an_evaluation_that_is_started_again_goes_on_with_its_run(
    ledger: Ledger, manifest: Path, labels: Path
) -> None:
    command = ("evaluate", labels, manifest, "--out", "s3://results/a", "--timeout-s", 0)

    first, second = run(*command), run(*command)

    with Client() as client:
        [started] = client.runs.list()
    assert (first.exit_code, second.exit_code) == (3, 3), first.output
    assert f"labelyard run cancel {started.run_id}" in first.stderr
    assert f"goes on with run {started.run_id}, files below s3://results/a/" in second.stderr


def test_two_sets_are_compared_on_the_same_pictures(
    ledger: Ledger, manifest: Path, labels: Path, tmp_path: Path
) -> None:
    other = tmp_path / "other.txt"
    other.write_text("dog\ncat\n")

    with worker(ledger):
        done = run("compare", labels, other, manifest, "-o", tmp_path / "c", "--json")

    assert done.exit_code == 0, done.output
    [printed] = lines(done)
    assert (printed["n"], printed["flips"]) == (4, {"fixed": 2, "broken": 2, "changed": 0})
    assert printed["mcnemar_p"] == 1.0
    assert len((tmp_path / "c" / "flips.jsonl").read_text().splitlines()) == 4
    assert printed["folder"] == str(tmp_path / "c")


@pytest.mark.parametrize("name", ["cats", f"cats@sha256:{'0' * 64}", "gone.txt", "gone.json"])
def test_a_set_that_is_not_there_is_an_error_in_words(
    name: str, service_environment: Any, manifest: Path
) -> None:
    done = run("evaluate", name, manifest)

    assert done.exit_code == 2
    assert name in done.stderr
