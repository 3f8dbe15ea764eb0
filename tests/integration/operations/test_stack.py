"""The embedded stack: its owner, the processes it keeps running, and its error texts."""

import json
import os
import signal
import stat
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from typer.testing import CliRunner

from labelyard.local_stack import StackState, default_data_dir, process_started_at
from labelyard_worker import cli
from labelyard_worker.jobs.delivery.signature import webhook_keys
from labelyard_worker.local import stack as stack_module
from labelyard_worker.local.servers import ServerStartError, ValkeyServer
from labelyard_worker.local.stack import BUCKETS, Stack, detach, take_down
from tests.support.processes import processes_on
from tests.support.waiting import wait_until

run = CliRunner().invoke


def state_of(pid: int, *, started_at: int | None = None) -> StackState:
    return StackState(
        pid=pid,
        started_at=process_started_at(pid) or 0 if started_at is None else started_at,
        variables={"LABELYARD_BROKER_URL": "redis://127.0.0.1:1/0", "AWS_SECRET_ACCESS_KEY": "x y"},
        health_url="http://127.0.0.1:9",
    )


@pytest.fixture
def sleeper() -> Iterator["subprocess.Popen[bytes]"]:
    """Run a process that does nothing."""
    with subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"]) as process:
        yield process
        process.kill()


def test_the_state_of_a_running_stack_is_found_again(tmp_path: Path) -> None:
    state = state_of(os.getpid())

    state.write(tmp_path)

    assert StackState.read(tmp_path) == state


def test_the_state_is_for_its_user_alone(tmp_path: Path) -> None:
    """The state file holds credentials."""
    state_of(os.getpid()).write(tmp_path)

    assert stat.S_IMODE((tmp_path / "stack.json").stat().st_mode) == 0o600


def test_a_later_process_with_the_same_id_is_not_taken_for_the_stack(tmp_path: Path) -> None:
    state_of(os.getpid(), started_at=1).write(tmp_path)

    assert StackState.read(tmp_path) is None


@pytest.mark.parametrize("content", [None, "", "[]", '{"pid": 1}', "{"])
def test_without_a_readable_state_no_stack_runs(tmp_path: Path, content: str | None) -> None:
    if content is not None:
        (tmp_path / "stack.json").write_text(content)

    assert StackState.read(tmp_path) is None
    assert take_down(tmp_path) is False


def test_a_stack_is_taken_down_by_sigterm(
    tmp_path: Path, sleeper: "subprocess.Popen[bytes]"
) -> None:
    state_of(sleeper.pid).write(tmp_path)

    is_down = take_down(tmp_path)

    assert is_down
    assert sleeper.wait() == -signal.SIGTERM


def test_a_process_that_is_gone_has_no_start(sleeper: "subprocess.Popen[bytes]") -> None:
    assert process_started_at(sleeper.pid)

    sleeper.kill()

    wait_until(lambda: process_started_at(sleeper.pid) is None)  # not even as a zombie


def test_data_goes_where_the_users_data_goes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    assert default_data_dir() == tmp_path / "labelyard"

    monkeypatch.delenv("XDG_DATA_HOME")
    assert default_data_dir() == Path.home() / ".local/share/labelyard"


@pytest.mark.parametrize("command", ["env", "status", "down"])
def test_commands_that_need_a_stack_say_that_there_is_none(tmp_path: Path, command: str) -> None:
    done = run(cli.app, [command, "--data", str(tmp_path)])

    assert done.exit_code == 1
    assert done.stderr.startswith(f"no_stack: none runs on {tmp_path}")


def test_env_prints_lines_that_a_shell_reads_back(tmp_path: Path) -> None:
    state_of(os.getpid()).write(tmp_path)

    printed = run(cli.app, ["env", "--data", str(tmp_path)]).stdout

    script = printed + '\nprintf "%s" "$AWS_SECRET_ACCESS_KEY"'
    assert subprocess.check_output(["sh", "-c", script], text=True) == "x y"


@pytest.mark.parametrize("command", ["env", "status"])
def test_env_and_status_name_the_address_of_the_metrics(tmp_path: Path, command: str) -> None:
    state = state_of(os.getpid())
    state.write(tmp_path)

    done = run(cli.app, [command, "--data", str(tmp_path)])

    assert f"metrics: {state.health_url}/metrics (LABELYARD_HEALTH_PORT)" in done.output


def test_status_shows_no_secret_and_ends_with_1_when_no_worker_answers(tmp_path: Path) -> None:
    state_of(os.getpid()).write(tmp_path)

    done = run(cli.app, ["status", "--data", str(tmp_path)])

    assert done.exit_code == 1
    assert "LABELYARD_BROKER_URL=redis://" in done.stdout
    assert "x y" not in done.output
    assert "no worker answers" in done.stderr


def test_a_second_stack_on_the_same_data_is_refused(tmp_path: Path) -> None:
    state_of(os.getpid()).write(tmp_path)

    done = run(cli.app, ["up", "--data", str(tmp_path)])

    assert done.exit_code == 1
    assert "labelyard-worker down" in done.stderr


@pytest.fixture
def servers(tmp_path: Path) -> Iterator[Stack]:
    """Run a stack's servers, without a worker."""
    stack = Stack(tmp_path)
    yield stack
    stack.stop()


def test_what_died_is_started_again_on_its_port_with_its_data(servers: Stack) -> None:
    servers.keep_running()
    port = servers.valkey.port
    servers._make_buckets()
    servers.valkey.kill()
    servers.seaweed.kill()

    servers.keep_running()

    assert servers.valkey.is_ready()
    assert servers.valkey.port == port
    with closing(servers.seaweed.s3_client()) as s3:
        names = {bucket["Name"] for bucket in s3.list_buckets()["Buckets"]}
    assert names == set(BUCKETS)


def test_buckets_that_are_there_are_kept(servers: Stack) -> None:
    servers.keep_running()
    servers._make_buckets()

    servers._make_buckets()

    with closing(servers.seaweed.s3_client()) as s3:
        assert len(s3.list_buckets()["Buckets"]) == len(BUCKETS)


def test_a_stack_that_does_not_start_shows_the_end_of_its_log(tmp_path: Path) -> None:
    with (
        ValkeyServer(tmp_path / "valkey"),
        pytest.raises(ServerStartError, match=r"another server runs on .*; stop it"),
    ):
        detach(tmp_path)

    assert StackState.read(tmp_path) is None


def test_a_stack_that_takes_too_long_is_stopped_and_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stack_module, "UP_WITHIN_S", 0.5)

    with pytest.raises(ServerStartError, match="took too long"):
        detach(tmp_path)

    wait_until(lambda: processes_on(tmp_path) == [])


def test_a_stack_that_is_ended_while_it_starts_leaves_nothing(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "labelyard_worker", "up", "--data", str(tmp_path)]
    with subprocess.Popen(command, stderr=subprocess.DEVNULL) as supervisor:
        wait_until((tmp_path / "worker" / "worker.log").exists, within_s=30)

        supervisor.terminate()

    assert supervisor.returncode == 128 + signal.SIGTERM
    wait_until(lambda: processes_on(tmp_path) == [])


def test_a_folder_that_cannot_be_made_is_a_sentence_and_no_traceback(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")

    done = run(cli.app, ["up", "--detach", "--data", str(tmp_path / "file" / "below")])

    assert done.exit_code == 1
    assert str(tmp_path / "file") in done.stderr


def test_the_state_names_all_that_leads_to_the_servers_and_signs_webhooks(
    servers: Stack, monkeypatch: pytest.MonkeyPatch
) -> None:
    servers.keep_running()

    variables = servers.variables

    assert variables["LABELYARD_BROKER_URL"] != variables["LABELYARD_LEDGER_URL"]
    assert all("127.0.0.1" in value for name, value in variables.items() if "URL" in name)
    assert json.dumps(variables)
    (key,) = webhook_keys(variables["LABELYARD_WEBHOOK_SECRET"])
    assert (variables["LABELYARD_WEBHOOK_HOSTS"], len(key)) == ("127.0.0.1", 32)
    assert servers.variables == variables
    monkeypatch.setenv("LABELYARD_WEBHOOK_SECRET", "whsec_b3Vycw==")
    assert servers.variables["LABELYARD_WEBHOOK_SECRET"] == "whsec_b3Vycw=="
