"""A running local stack is found by the commands alone, and only if nothing else is configured."""

import json
import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from labelyard import Client
from labelyard.cli import app
from labelyard.local_stack import (
    StackState,
    announce,
    announcements,
    find_stack,
    has_addresses,
    process_started_at,
    withdraw,
)

AWAY = "redis://:secret@127.0.0.1:9"


@pytest.fixture(autouse=True)
def user(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Give the test a home of its own."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    monkeypatch.setenv("LABELYARD_PUBLISH_TIMEOUT_S", "0.1")
    return tmp_path


def start_stack(data_dir: Path, *, pid: int | None = None, **variables: str) -> StackState:
    """Write what a running stack writes; nobody answers at its addresses."""
    own = os.getpid() if pid is None else pid
    addresses = {"LABELYARD_BROKER_URL": f"{AWAY}/0", "LABELYARD_LEDGER_URL": f"{AWAY}/1"}
    state = StackState(
        pid=own,
        started_at=process_started_at(own) or 0,
        variables={**addresses, "AWS_ACCESS_KEY_ID": "theirs", **variables},
        health_url="http://127.0.0.1:9",
    )
    data_dir.mkdir(parents=True, exist_ok=True)
    state.write(data_dir)
    return state


def test_an_announced_stack_is_found_until_it_is_withdrawn(user: Path) -> None:
    state = start_stack(user / "stack")
    announce(user / "stack")

    found = find_stack()
    withdraw()

    assert found is not None
    assert (found.data_dir, found.state) == (user / "stack", state)
    assert find_stack() is None
    assert list(announcements().iterdir()) == []


def test_what_is_written_is_for_its_user_alone(user: Path) -> None:
    start_stack(user / "stack")
    announce(user / "stack")

    [file] = announcements().iterdir()

    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert stat.S_IMODE(announcements().stat().st_mode) == 0o700
    assert "secret" not in file.read_text()


def test_a_stack_that_was_killed_is_ignored_and_its_file_goes_with_the_next_start(
    user: Path,
) -> None:
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    start_stack(user / "dead", pid=dead.pid)
    announcements().mkdir(parents=True)
    stale = announcements() / f"{dead.pid}.json"
    stale.write_text(json.dumps({"data_dir": str(user / "dead")}))

    assert find_stack() is None

    start_stack(user / "new")
    announce(user / "new")

    assert not stale.exists()
    found = find_stack()
    assert found is not None
    assert found.data_dir == user / "new"


def test_a_file_that_others_may_write_is_not_believed(user: Path) -> None:
    """It decides where pictures are sent."""
    start_stack(user / "stack")
    announce(user / "stack")
    [file] = announcements().iterdir()

    for path, mode in ((file, 0o622), (user / "stack" / "stack.json", 0o660)):
        path.chmod(mode)
        assert find_stack() is None
        path.chmod(0o600)

    assert find_stack() is not None


@pytest.mark.parametrize("content", ["", "[]", "{", '{"data_dir": 3}', '{"data_dir": "/nowhere"}'])
def test_a_file_that_cannot_be_read_is_no_stack(content: str) -> None:
    announcements().mkdir(parents=True)
    (announcements() / f"{os.getpid()}.json").write_text(content)

    assert find_stack() is None


def test_the_stack_on_the_default_folder_comes_before_a_later_one(
    user: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as later:
        start_stack(user / "data" / "labelyard")
        announce(user / "data" / "labelyard")
        start_stack(user / "other", pid=later.pid)
        monkeypatch.setattr(os, "getpid", lambda: later.pid)
        announce(user / "other")

        found = find_stack()
        monkeypatch.setenv("XDG_DATA_HOME", str(user / "elsewhere"))
        newest = find_stack()
        later.communicate(b"\n")

    assert found is not None
    assert newest is not None
    assert found.data_dir == user / "data" / "labelyard"
    assert newest.data_dir == user / "other"


@pytest.mark.parametrize(
    ("variables", "is_set"),
    [
        ({"LABELYARD_BROKER_URL": "redis://h"}, True),
        ({"LABELYARD_LEDGER_URL": "redis://h"}, True),
        ({"LABELYARD_S3_ENDPOINT_URL": "http://h"}, True),
        ({"LABELYARD_S3_ENDPOINT_URL": "", "LABELYARD_NAMESPACE": "x"}, False),
        ({"AWS_ENDPOINT_URL": "http://h", "OTHER_URL": "x"}, False),
    ],
)
def test_any_address_of_labelyard_counts_as_configured(
    variables: dict[str, str], is_set: bool
) -> None:
    assert has_addresses(variables) is is_set


def test_settings_of_the_user_stay_and_those_of_aws_are_the_stack_s(user: Path) -> None:
    start_stack(user / "stack", LABELYARD_NAMESPACE="theirs", LABELYARD_RESULT_BUCKETS="r")
    announce(user / "stack")
    found = find_stack()
    assert found is not None

    environment = found.environment(
        {
            "PATH": "/bin",
            "LABELYARD_NAMESPACE": "mine",
            "AWS_ACCESS_KEY_ID": "mine",
            "AWS_SESSION_TOKEN": "mine",
            "AWS_PROFILE": "work",
        }
    )

    assert environment["LABELYARD_NAMESPACE"] == "mine"
    assert environment["LABELYARD_RESULT_BUCKETS"] == "r"
    assert environment["AWS_ACCESS_KEY_ID"] == "theirs"
    assert environment["PATH"] == "/bin"
    assert not {"AWS_SESSION_TOKEN", "AWS_PROFILE"} & environment.keys()


@pytest.fixture
def stack(user: Path) -> Path:
    start_stack(user / "stack")
    announce(user / "stack")
    return user / "stack"


def run(*args: str) -> str:
    """Run a command that fails, because no server answers."""
    before = dict(os.environ)
    ended = CliRunner().invoke(app, list(args))
    assert dict(os.environ) == before
    return ended.stderr


def test_a_command_says_once_which_stack_it_uses(stack: Path) -> None:
    lines = run("result", "a", "b").splitlines()

    assert lines[0] == f"using the local stack on {stack}"
    assert lines[1].startswith("ledger_unavailable: ")
    assert "127.0.0.1:9" in lines[1]
    assert len(lines) == 2


@pytest.mark.parametrize("args", [("--quiet", "result", "a"), ("-q", "dead", "list")])
def test_quiet_leaves_the_line_out(stack: Path, args: tuple[str, ...]) -> None:
    assert run(*args).startswith("ledger_unavailable: ")
    assert find_stack() is not None


@pytest.mark.parametrize("args", [("schema", "job"), ("result", "-h"), ("dead", "--help")])
def test_a_command_that_needs_no_server_looks_for_none(stack: Path, args: tuple[str, ...]) -> None:
    assert run(*args) == ""


def test_a_configured_command_uses_what_is_configured(
    stack: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LABELYARD_LEDGER_URL", "redis://127.0.0.1:7/1")

    line = run("result", "a")

    assert line.startswith("ledger_unavailable: ")
    assert "127.0.0.1:7" in line
    assert str(stack) not in line


def test_a_program_s_client_never_uses_it(stack: Path) -> None:
    with Client() as client:
        assert client.settings.ledger_url == "redis://127.0.0.1:6379/1"


def test_without_servers_and_stack_the_error_says_how_to_start_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def nobody_answers(*_: object) -> None:
        from labelyard.errors import LedgerUnavailableError

        raise LedgerUnavailableError("nobody answers")

    monkeypatch.setattr("labelyard.client.Client.status", nobody_answers)

    lines = run("status", "a").splitlines()

    assert len(lines) == 1
    assert lines[0].startswith("ledger_unavailable: nobody answers; no LABELYARD_*_URL is set")
    assert "labelyard-worker up" in lines[0]
