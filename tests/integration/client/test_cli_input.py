"""Mistyped input is one line on standard error and an exit code, for every command."""

from pathlib import Path

import pytest
from typer.testing import CliRunner

from labelyard.cli import app

pytestmark = pytest.mark.usefixtures("service_environment")
PHOTO = "s3://photos/cat.jpg"
FILES = {
    "empty-name.json": b'{"labels": [{"name": ""}]}',
    "broken.json": b"{",
    "deep.json": b"[" * 100_000,
    "binary.json": b"\xff\xfe",
    "binary.txt": b"\xff\xfe",
    "empty.txt": b"",
}


@pytest.mark.parametrize(
    "command", [("submit", PHOTO, "--labels-file"), ("label-sets", "register", "pets")]
)
@pytest.mark.parametrize("name", [*FILES, "missing.txt"])
def test_a_file_without_a_label_set_is_one_line(
    command: tuple[str, ...], name: str, tmp_path: Path
) -> None:
    if name in FILES:
        (tmp_path / name).write_bytes(FILES[name])

    ended = CliRunner().invoke(app, [*command, str(tmp_path / name)])

    assert ended.exit_code == 2
    assert ended.stderr.startswith("invalid_message: ")
    assert ended.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (("submit", PHOTO, "--labels", "x" * 300), 2, "labels.0.name: is too long"),
        (("submit", PHOTO, "--labels", "a\udcff"), 2, "half of a surrogate pair"),
        (("submit", "s3://b/k\udcff", "--labels", "a"), 2, "half of a surrogate pair"),
        (("classify", "a\udcff.jpg", "--labels", "a"), 2, "there is no such file"),
        (("submit", PHOTO, "--labels", "a", "--expires-in-s", "inf"), 2, "expires_in_s: write"),
        (("submit", PHOTO, "--labels", "a", "--expires-in-s", "nan"), 2, "expires_in_s: write"),
        (("submit", PHOTO, "--labels", "a", "--top-k", "9" * 30), 2, "top_k: write a number"),
        (("rescore", PHOTO, "--labels", "a,a"), 2, "two labels have the same name"),
        (("dead", "list", "--limit", "9" * 30), 2, "limit: write a whole number"),
        (("set-aside", "list", "--limit", "9" * 30), 2, "limit: write a whole number"),
        (("status", "\udcff"), 1, "job_not_found"),
        (("cancel", "\udcff"), 1, "job_not_found"),
        (("wait", "\udcff"), 1, "job_not_found"),
        (("dead", "replay", "\udcff"), 1, "job_not_found"),
        (("set-aside", "show", "\udcff"), 1, "job_not_found"),
        (("label-sets", "show", "pets@sha256:\udcff"), 2, "half of a surrogate pair"),
    ],
    ids=lambda value: None,
)
def test_an_odd_argument_is_one_line(arguments: tuple[str, ...], code: int, said: str) -> None:
    ended = CliRunner().invoke(app, list(arguments))

    assert said in ended.stderr
    assert ended.exit_code == code
    assert ended.stderr.count("\n") == 1
