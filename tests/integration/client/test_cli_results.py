"""Results as tables, JSON, JSON lines and CSV, and the options that make label sets."""

import csv
import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from labelyard import Client, ClientSettings
from labelyard.cli.result_output import to_cell
from labelyard.ledger import Ledger, connect
from labelyard.messages import Job
from tests.support.command_line import lines, run, worker

pytestmark = pytest.mark.usefixtures("service_environment")

CAT, GONE = "s3://photos/cat.jpg", "s3://photos/gone.jpg"
ANIMALS = ("--labels", "cat,dog")


@pytest.fixture
def ledger() -> Iterator[Ledger]:
    """The worker's side."""
    used = ClientSettings()
    with connect(used) as connection:
        yield Ledger(connection, used)


def table_of(text: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(text)))


def submitted_job(*args: object) -> Job:
    result = run("submit", CAT, *args)
    assert result.exit_code == 0, result.stderr
    with Client() as client:
        return client.status(result.stdout.strip()).job()


def test_csv_has_a_heading_and_a_line_for_each_image(ledger: Ledger) -> None:
    with worker(ledger):
        result = run("classify", CAT, GONE, *ANIMALS, "--csv", "-q")

    cat, gone = table_of(result.stdout)
    assert list(cat) == [
        *("job_id", "id", "uri", "status", "label", "score", "matched"),
        *("abstained", "error", "message", "abstained_because", "fit"),
        *("node", "node_score", "parents", "label_2", "score_2"),
    ]
    assert (cat["id"], cat["status"], cat["label"], cat["score"]) == (
        CAT,
        "succeeded",
        "cat",
        "0.5",
    )
    assert (cat["label_2"], cat["score_2"], cat["error"]) == ("dog", "0.25", "")
    assert (gone["status"], gone["label"], gone["error"]) == ("failed", "", "image_not_found")
    assert (result.exit_code, result.stderr) == (1, "")


def test_jsonl_has_an_object_for_each_image_with_lists_of_labels(ledger: Ledger) -> None:
    with worker(ledger):
        result = run("classify", CAT, GONE, *ANIMALS, "--jsonl")

    cat, gone = lines(result)
    assert cat["labels"] == [{"name": "cat", "score": 0.5}, {"name": "dog", "score": 0.25}]
    assert (cat["label"], cat["matched"], cat["abstained"]) == ("cat", ["cat"], False)
    assert (gone["labels"], gone["label"], gone["error"]) == ([], None, "image_not_found")


@pytest.mark.parametrize("form", ["csv", "jsonl"])
def test_a_job_without_a_result_has_a_line_for_each_of_its_images(form: str) -> None:
    [job_id] = run("submit", CAT, GONE, *ANIMALS).stdout.split()
    run("cancel", job_id)

    result = run("result", job_id, f"--{form}")

    rows = table_of(result.stdout) if form == "csv" else lines(result)
    assert [(row["id"], row["error"]) for row in rows] == [
        (CAT, "job_cancelled"),
        (GONE, "job_cancelled"),
    ]
    assert (result.exit_code, result.stderr) == (1, f"job_cancelled: {job_id}\n")


def test_results_of_several_jobs_make_one_table_as_wide_as_the_widest(ledger: Ledger) -> None:
    job_ids = [
        run("submit", CAT, "--labels", labels).stdout.strip() for labels in ("a", "a,b,c", "a,b")
    ]

    with worker(ledger):
        result = run("wait", *job_ids, "--csv")

    rows = table_of(result.stdout)
    assert sorted(row["label_3"] for row in rows) == ["", "", "c"]
    assert {row["job_id"] for row in rows} == set(job_ids)


@pytest.mark.parametrize("name", ["r.csv", "r.jsonl", "r.json", "r.txt"])
def test_a_file_gets_what_standard_output_would(ledger: Ledger, tmp_path: Path, name: str) -> None:
    file = tmp_path / name
    form = () if name != "r.txt" else ("--jsonl",)

    with worker(ledger):
        result = run("classify", CAT, *ANIMALS, "--output", file, *form)

    text = file.read_text()
    assert (result.exit_code, result.stdout) == (0, "")
    if name == "r.csv":
        assert table_of(text)[0]["label"] == "cat"
    else:
        [fields] = [json.loads(line) for line in text.splitlines()]
        assert ("images" in fields) == (name == "r.json")


@pytest.mark.parametrize(
    ("args", "complaint"),
    [
        (("--csv", "--json"), "choose one of --csv and --json"),
        (("--output", "results"), "--output results: add --csv, --jsonl or --json"),
        (("--output", "/nowhere/r.csv"), "--output /nowhere/r.csv: No such file or directory"),
        (("--csv", "--output", "/"), "--output /: Is a directory"),
    ],
)
def test_a_place_that_cannot_be_written_is_refused_before_anything_is_submitted(
    args: tuple[str, ...], complaint: str
) -> None:
    result = run("classify", CAT, *ANIMALS, *args)

    assert (result.exit_code, result.stderr) == (2, f"invalid_message: {complaint}\n")
    with Client() as client:
        assert client.open_images() == 0


def test_a_full_disk_is_a_sentence_that_says_how_to_read_the_results_again() -> None:
    [job_id] = run("submit", CAT, *ANIMALS).stdout.split()
    with connect(ClientSettings()) as connection, worker(Ledger(connection, ClientSettings())):
        result = run("wait", job_id, "--jsonl", "--output", "/dev/full")

    assert result.exit_code == 1
    assert result.stderr.splitlines() == [
        "output_failed: /dev/full: [Errno 28] No space left on device",
        f"get the results with: labelyard wait {job_id}",
    ]


@pytest.mark.parametrize("text", ["=1+1", "+1", "-1", "@SUM(A1)", "\t=1", "\r=1"])
def test_foreign_text_is_no_formula_in_a_spreadsheet(text: str) -> None:
    assert to_cell(text) == f"'{text}"


@pytest.mark.parametrize(
    ("value", "cell"),
    [
        (None, ""),
        (True, "true"),
        (False, "false"),
        (0.25, "0.25"),
        ("a, b", "a, b"),
        ("1=1", "1=1"),
        ("a\x1b[31mb", "a�[31mb"),
    ],
)
def test_other_cells_are_as_they_are(value: Any, cell: str) -> None:
    assert to_cell(value) == cell


def test_an_id_that_would_be_a_formula_is_defused_in_csv_and_exact_in_jsonl(
    ledger: Ledger,
) -> None:
    with Client() as client:
        job = client.submit([("=HYPERLINK(1)", CAT)], ["-cat", "dog"])
    with worker(ledger):
        [row] = table_of(run("wait", job.id, "--csv").stdout)
        [exact] = lines(run("result", job.id, "--jsonl"))

    assert (row["id"], row["label"]) == ("'=HYPERLINK(1)", "'-cat")
    assert (exact["id"], exact["label"]) == ("=HYPERLINK(1)", "-cat")


def test_labels_come_from_both_options_and_one_may_hold_a_comma() -> None:
    job = submitted_job("--labels", "cat, dog", "--label", "a bowl, empty", "--label", "-")

    names = [label.name for label in job.label_set.labels]  # type: ignore[union-attr]
    assert names == ["cat", "dog", "a bowl, empty", "-"]


def test_threshold_scoring_and_abstain_become_the_label_set_s(tmp_path: Path) -> None:
    options = ("--threshold", 0.3, "--scoring", "sigmoid", "--abstain", "a photo of nothing")
    (tmp_path / "labels.txt").write_text("cat\ndog\n")

    by_option = submitted_job(*ANIMALS, *options).label_set
    by_file = submitted_job("--labels-file", tmp_path / "labels.txt", *options).label_set

    assert by_option == by_file
    assert by_option.model_dump(exclude_defaults=True) == {  # type: ignore[union-attr]
        "labels": ({"name": "cat", "threshold": 0.3}, {"name": "dog", "threshold": 0.3}),
        "scoring": "sigmoid",
        "abstain": ("a photo of nothing",),
    }


@pytest.mark.parametrize(
    ("args", "complaint"),
    [
        (("--threshold", "2"), "usage_error: --threshold must be at most 1"),
        (("--threshold", "nan"), "usage_error: --threshold must be at"),
        (("--scoring", "best"), "usage_error: --scoring: "),
        (("--abstain", "0.3"), "invalid_message: --abstain 0.3: write a sentence that means none"),
        (("--label", ""), "invalid_message: "),
        (("--labels-file", "x.txt"), "invalid_message: name the labels with --labels, --label or"),
    ],
)
def test_an_option_that_makes_no_label_set_is_one_line(
    args: tuple[str, ...], complaint: str
) -> None:
    result = run("submit", CAT, *ANIMALS, *args)

    assert result.exit_code == 2
    assert result.stderr.startswith(complaint)
    assert result.stderr.count("\n") == 1


@pytest.mark.parametrize(
    "option", [("--threshold", "0.3"), ("--template", "{}"), ("--abstain", "x")]
)
def test_a_label_set_with_settings_of_its_own_takes_none(
    option: tuple[str, ...], tmp_path: Path
) -> None:
    (tmp_path / "set.json").write_text('{"labels": [{"name": "cat"}]}')
    sources = (("--labels", f"pets@sha256:{'0' * 64}"), ("--labels-file", tmp_path / "set.json"))

    for source in sources:
        result = run("submit", CAT, *source, *option)
        assert (result.exit_code, "change them there" in result.stderr) == (2, True)
