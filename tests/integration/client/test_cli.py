"""The command line, as a shell sees it: what it prints where, and its exit codes."""

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from labelyard import Client, ClientSettings
from labelyard.ledger import Ledger, connect
from labelyard.ledger.set_aside import SetAside, SetAsideMessage
from labelyard.messages import Result as JobResult
from labelyard.queues import Queue
from labelyard.schemas import schema_text
from labelyard.testing import sample_result
from labelyard_worker.local.servers import ValkeyServer
from tests.support.buckets import Bucket
from tests.support.command_line import lines, run, worker

pytestmark = pytest.mark.usefixtures("service_environment")

PHOTO = "s3://photos/cat.jpg"
ANIMALS = ("--labels", "cat, dog,a bowl of soup")


@pytest.fixture
def ledger() -> Iterator[Ledger]:
    """The worker's side."""
    used = ClientSettings()
    with connect(used) as connection:
        yield Ledger(connection, used)


@pytest.fixture
def photos(tmp_path: Path, bucket: Bucket, monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """Three local files, two of them with the same content, and a bucket to put them in."""
    monkeypatch.setenv("LABELYARD_UPLOAD_BUCKET", bucket.name)
    paths = [tmp_path / name for name in ("a.jpg", "b.JPG", "same-as-a.jpg")]
    for path, content in zip(paths, (b"A", b"B", b"A"), strict=True):
        path.write_bytes(content)
    return paths


def submitted(*args: object) -> list[str]:
    return run("submit", *args, *ANIMALS).stdout.split()


def test_pictures_are_classified_and_shown_as_a_table(ledger: Ledger) -> None:
    with worker(ledger):
        result = run("classify", PHOTO, *ANIMALS)

    assert result.exit_code == 0
    assert PHOTO in result.stdout
    assert "a bowl of soup" in result.stdout
    assert "0.500" in result.stdout
    assert result.stderr.startswith("1 image, 0 failed, ")


def test_json_prints_a_result_of_the_contract_on_each_line(ledger: Ledger) -> None:
    photos = [f"s3://photos/{n}.jpg" for n in range(130)]

    with worker(ledger):
        result = run("classify", *photos, *ANIMALS, "--json")

    results = [JobResult.model_validate(line) for line in lines(result)]
    assert result.exit_code == 0
    assert sorted(len(one.images) for one in results) == [2, 64, 64]
    assert {image.uri for one in results for image in one.images} == set(photos)


def test_a_picture_that_fails_is_shown_beside_the_others_and_ends_with_1(ledger: Ledger) -> None:
    with worker(ledger):
        result = run("classify", PHOTO, "s3://photos/gone.jpg", *ANIMALS)

    assert result.exit_code == 1
    assert "image_not_found" in result.stdout
    assert "0.500" in result.stdout


def test_local_files_are_uploaded_once_for_each_content(
    ledger: Ledger, photos: list[Path], bucket: Bucket
) -> None:
    with worker(ledger):
        results = [run("classify", *photos, PHOTO, *ANIMALS, "--json") for _ in range(2)]

    assert [result.exit_code for result in results] == [0, 0]
    [first] = lines(results[0])
    keys = bucket.keys()
    assert len(keys) == 2
    assert {bucket.get(key) for key in keys} == {b"A", b"B"}
    assert all(key.startswith("uploads/") and key.endswith(".jpg") for key in keys)
    assert [image["id"] for image in first["images"]] == [*map(str, photos), PHOTO]
    assert first["images"][0]["uri"] == first["images"][2]["uri"]


def test_the_upload_bucket_is_made_when_it_is_missing(
    ledger: Ledger, photos: list[Path], s3: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LABELYARD_UPLOAD_BUCKET", "made-by-the-cli")

    with worker(ledger):
        result = run("classify", photos[0], *ANIMALS)

    assert result.exit_code == 0
    assert s3.list_objects_v2(Bucket="made-by-the-cli")["KeyCount"] == 1
    s3.delete_bucket(Bucket="made-by-the-cli")


@pytest.mark.parametrize(
    ("variables", "complaint"),
    [
        ({"AWS_ACCESS_KEY_ID": "wrong"}, "service_config: S3 refused"),
        ({"AWS_ACCESS_KEY_ID": ""}, "service_config: no S3 credentials"),
        ({"LABELYARD_S3_ENDPOINT_URL": "nonsense"}, "service_config: LABELYARD_S3_ENDPOINT_URL"),
    ],
)
def test_a_refused_upload_says_what_to_set(
    photos: list[Path],
    monkeypatch: pytest.MonkeyPatch,
    variables: dict[str, str],
    complaint: str,
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)

    result = run("submit", photos[0], *ANIMALS)

    assert result.exit_code == 2
    assert result.stderr.startswith(complaint)
    assert result.stderr.count("\n") == 1


def test_submit_prints_ids_to_wait_for(ledger: Ledger) -> None:
    job_ids = submitted(PHOTO, "s3://photos/dog.jpg")

    with worker(ledger):
        waited = run("wait", *job_ids, "--timeout-s", 10, "--json")
    read = run("result", *job_ids, "--json")

    assert len(job_ids) == 1
    assert lines(waited) == lines(read)
    assert [image["id"] for image in lines(read)[0]["images"]] == [PHOTO, "s3://photos/dog.jpg"]


def test_a_result_that_is_not_there_yet_ends_with_3() -> None:
    [job_id] = submitted(PHOTO)

    result = run("result", job_id)

    assert result.exit_code == 3
    assert result.stderr == f"result_timeout: {job_id}: not final after 0 s\n"


def test_a_cancelled_job_has_no_result() -> None:
    [job_id] = submitted(PHOTO)

    cancelled, result = run("cancel", job_id), run("result", job_id)

    assert (cancelled.exit_code, cancelled.stdout) == (0, f"{job_id} cancelled\n")
    assert (result.exit_code, result.stderr) == (1, f"job_cancelled: {job_id}\n")


def test_cancelling_goes_on_after_a_job_that_cannot_be_cancelled(ledger: Ledger) -> None:
    [done] = submitted(PHOTO)
    with worker(ledger):
        run("wait", done)
    [late] = submitted(PHOTO)

    result = run("cancel", "nothing", done, late)

    assert result.exit_code == 1
    assert result.stdout == f"{done} succeeded\n{late} cancelled\n"
    assert result.stderr == "job_not_found: nothing\n"


def test_the_state_of_a_job_is_shown() -> None:
    [job_id] = submitted(PHOTO, "--queue", "bulk")

    for_people, for_programs = run("status", job_id), run("status", job_id, "--json")

    assert job_id in for_people.stdout
    [fields] = lines(for_programs)
    assert (fields["state"], fields["queue"], fields["images"]) == ("pending", "bulk", 1)


def test_the_state_of_the_service_is_shown() -> None:
    submitted(PHOTO, "s3://photos/dog.jpg")

    result = run("status", "--json")

    [fields] = lines(result)
    assert result.exit_code == 0
    expected = {
        "ledger": "ok",
        "open_images": 2,
        "open_jobs": 1,
        "totals": {},
        "image_totals": {},
        "dead_letters": 0,
        "set_aside": 0,
        "set_aside_dropped": 0,
        "deliveries": {
            "pending": 0,
            "dead": 0,
            "delivered": 0,
            "refused": 0,
            "given_up": 0,
            "dropped": 0,
        },
        "backlog": [{"queue": "interactive", "tenant": "default", "images": 2, "jobs": 1}],
        "breakers": {},
        "workers": [],
        "broker": "ok",
        "queues": {**dict.fromkeys(Queue, 0), "interactive": 1},
    }
    assert {name: fields.get(name) for name in expected} == expected
    assert fields.keys() - expected.keys() == {"oldest_open_s", "advice"}


def test_a_server_that_is_away_is_named_and_ends_with_3(
    own_valkey: ValkeyServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    own_valkey.kill()
    monkeypatch.setenv("LABELYARD_PUBLISH_TIMEOUT_S", "0.2")
    monkeypatch.setenv("LABELYARD_BROKER_URL", own_valkey.url)
    status = run("status", "--json")
    accepted = run("submit", PHOTO, *ANIMALS)
    monkeypatch.setenv("LABELYARD_LEDGER_URL", own_valkey.url)
    refused = run("submit", PHOTO, *ANIMALS)

    [fields] = lines(status)
    assert (status.exit_code, fields["ledger"]) == (3, "ok")
    assert fields["broker"].startswith("broker_unavailable: ")
    assert accepted.exit_code == 0
    assert accepted.stderr.startswith("broker_unavailable: the jobs are accepted")
    assert refused.exit_code == 3
    assert refused.stderr.startswith("ledger_unavailable: ")
    assert refused.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("args", "complaint"),
    [
        (["classify", PHOTO], "name the labels with --labels, --label or --labels-file"),
        (["classify", "nowhere.jpg", *ANIMALS], "nowhere.jpg: there is no such file"),
        (["classify", "/", *ANIMALS], "/ is a folder: name its pictures"),
        (["classify", PHOTO, "--labels", "cat,cat"], "two labels have the same name"),
        (["classify", PHOTO, *ANIMALS, "--template", "no slot"], "templates.0"),
        (["classify", PHOTO, "--labels-file", "nowhere.txt"], "nowhere.txt"),
        (["dead", "replay"], "name the jobs, or add --all"),
    ],
)
def test_wrong_input_is_one_clear_line_and_ends_with_2(args: list[str], complaint: str) -> None:
    result = run(*args)

    assert result.exit_code == 2
    assert result.stderr.startswith("invalid_message: ")
    assert complaint in result.stderr
    assert result.stderr.count("\n") == 1
    assert result.stdout == ""


def test_labels_and_templates_come_from_files_and_options(tmp_path: Path) -> None:
    plain, full = tmp_path / "labels.txt", tmp_path / "labels.json"
    plain.write_text("cat\n\n a bowl of soup \n", encoding="utf-8")
    full.write_text('{"labels": [{"name": "cat", "threshold": 0.4}], "scoring": "sigmoid"}')

    options = ("--labels-file", plain, "--template", "a sketch of {}.", "--template", "{}!")
    by_line = run("submit", PHOTO, *options)
    by_json = run("submit", PHOTO, "--labels-file", full, "--top-k", 1)

    with Client() as client:
        first, second = [
            client.status(result.stdout.strip()).job() for result in (by_line, by_json)
        ]
    by_line_set, by_json_set = [job.model_dump()["label_set"] for job in (first, second)]
    assert [label["name"] for label in by_line_set["labels"]] == ["cat", "a bowl of soup"]
    assert by_line_set["templates"] == ("a sketch of {}.", "{}!")
    assert (by_json_set["scoring"], by_json_set["labels"][0]["threshold"]) == ("sigmoid", 0.4)
    assert (first.top_k, second.top_k) == (5, 1)


@pytest.mark.allow_persistent_keys("label sets stay until somebody deletes them")
def test_a_label_set_is_registered_listed_shown_and_used(tmp_path: Path) -> None:
    file = tmp_path / "animals.txt"
    file.write_text("cat\ndog\n", encoding="utf-8")

    reference = run("label-sets", "register", "animals", file).stdout.strip()
    listed = lines(run("label-sets", "list", "--json"))
    shown = [run("label-sets", "show", name) for name in (reference, "animals", "other")]
    [job_id] = run("submit", PHOTO, "--labels", reference).stdout.split()

    assert listed == [{"name": "animals", "reference": reference}]
    assert reference[-20:] in "".join(run("label-sets", "list").stdout.split())
    assert shown[0].stdout == shown[1].stdout
    assert [label["name"] for label in json.loads(shown[0].stdout)["labels"]] == ["cat", "dog"]
    assert (shown[2].exit_code, shown[2].stderr) == (2, "unknown_label_set: other\n")
    with Client() as client:
        assert client.status(job_id).job().label_set == reference


def test_messages_set_aside_are_counted_listed_shown_replayed_and_purged(ledger: Ledger) -> None:
    kept = SetAside(ledger.client, ClientSettings())
    first, second, third = (
        SetAsideMessage("unknown task", "labelyard.bulk", 3, raw)
        for raw in (b"{1}", b"{2}", b"\xff{")
    )
    for message in (first, second, third):
        kept.add(message)

    counted = lines(run("status", "--json"))[0]["set_aside"]
    listed = lines(run("set-aside", "list", "--json"))
    table = run("set-aside", "list")
    shown = lines(run("set-aside", "show", first.id, "--json"))[0]
    content = run("set-aside", "show", third.id)
    replayed = run("set-aside", "replay", first.id)
    purged = run("set-aside", "purge", "--all")

    assert (counted, [one["id"] for one in listed]) == (3, [third.id, second.id, first.id])
    assert (first.id in table.stdout, "unknown task" in table.stdout) == (True, True)
    assert (shown["reason"], shown["raw_base64"]) == ("unknown task", "ezF9")
    assert "\\xff{" in content.stdout
    assert replayed.stdout == f"{first.id} sent\n"
    assert purged.stdout == f"{third.id} purged\n{second.id} purged\n"
    assert lines(run("status", "--json"))[0]["queues"]["bulk"] == 1
    assert lines(run("set-aside", "list", "--json")) == []


@pytest.mark.parametrize("arguments", [("show", "x"), ("replay", "x")])
def test_a_message_that_was_not_set_aside_is_an_error(arguments: tuple[str, ...]) -> None:
    result = run("set-aside", *arguments)

    assert (result.exit_code, "no message was set aside as x" in result.stderr) == (1, True)


@pytest.mark.parametrize("command", ["replay", "purge"])
def test_it_must_be_said_which_messages_set_aside_are_meant(command: str) -> None:
    result = run("set-aside", command)

    assert (result.exit_code, "add --all" in result.stderr) == (2, True)


def test_dead_letters_are_listed_shown_replayed_and_purged(ledger: Ledger) -> None:
    [first], [second], [third] = [submitted(PHOTO) for _ in range(3)]
    for job_id in (first, second, third):
        result = sample_result("failed").model_copy(update={"job_id": job_id})
        ledger.finish(job_id, result, is_dead=True)

    listed = lines(run("dead", "list", "--json"))
    table = run("dead", "list")
    shown = lines(run("dead", "show", first, "--json"))
    replayed = run("dead", "replay", first)
    purged = run("dead", "purge", "--all")
    unknown = run("dead", "show", second)

    assert [letter["job_id"] for letter in listed] == [first, second, third]
    assert first[:8] in table.stdout
    assert shown[0]["message"]["images"][0]["uri"] == PHOTO
    assert replayed.stdout == f"{first} pending\n"
    assert purged.stdout == f"{second} purged\n{third} purged\n"
    assert (unknown.exit_code, unknown.stderr) == (
        1,
        f"job_not_found: {second} is not a dead letter\n",
    )
    assert run("dead", "list", "--json").stdout == ""


def test_the_schema_of_a_message_is_printed() -> None:
    assert run("schema", "job").stdout == schema_text("job")


def test_a_shell_sees_one_line_and_a_code_and_no_traceback() -> None:
    """Through the installed command."""
    command = [str(Path(sys.executable).with_name("labelyard")), "result", "nothing"]

    ended = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)

    assert (ended.returncode, ended.stdout) == (1, "")
    assert ended.stderr == "job_not_found: nothing\n"


def test_settings_of_the_worker_in_the_same_shell_do_no_harm(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("LABELYARD_CHECKPOINT", "lite")

    assert run("status").exit_code == 0


def test_a_setting_that_is_refused_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LABELYARD_NAMESPACE", "no spaces")

    result = run("status")

    assert result.exit_code == 2
    assert result.stderr.startswith("service_config: LABELYARD_NAMESPACE: ")
