"""The wait of a command: progress, no worker, time limits, Ctrl-C, and the summary."""

import os
import pty
import select
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from labelyard import Client, ClientSettings
from labelyard.cli import interrupts, job_wait
from labelyard.ledger import Ledger, connect
from labelyard.ledger.maintenance import MaintenanceLedger
from labelyard.ledger.workers import WorkerInfo
from tests.support.command_line import run, worker
from tests.support.waiting import wait_until

pytestmark = pytest.mark.usefixtures("service_environment")

CAT, GONE = "s3://photos/cat.jpg", "s3://photos/gone.jpg"
ANIMALS = ("--labels", "cat,dog")
LABELYARD = str(Path(sys.executable).with_name("labelyard"))


@pytest.fixture
def ledger() -> Iterator[Ledger]:
    """The worker's side."""
    used = ClientSettings()
    with connect(used) as connection:
        yield Ledger(connection, used)


@pytest.fixture
def looked(monkeypatch: pytest.MonkeyPatch) -> threading.Event:
    """Have commands look for workers at once; the event is set after a look."""
    event, stock = threading.Event(), Client.workers

    def workers(client: Client, **options: Any) -> list[WorkerInfo]:
        found = stock(client, **options)
        event.set()
        return found

    monkeypatch.setattr(job_wait, "NO_WORKER_AFTER_S", 0.0)
    monkeypatch.setattr(Client, "workers", workers)
    return event


def test_without_a_worker_the_wait_says_so_once_and_goes_on(
    ledger: Ledger, looked: threading.Event, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LABELYARD_NAMESPACE", "shop")
    used = ClientSettings()
    shop = Ledger(ledger.client, used)
    with worker(shop, after=looked):
        result = run("classify", CAT, *ANIMALS)

    [notice, summary] = result.stderr.splitlines()
    assert result.exit_code == 0
    assert notice.startswith("no worker is alive in the namespace shop of redis://127.0.0.1:")
    assert "labelyard-worker start" in notice
    assert summary.startswith("1 image, 0 failed, ")


def test_with_a_worker_the_wait_says_nothing(ledger: Ledger, looked: threading.Event) -> None:
    MaintenanceLedger(ledger).renew_presence("gpu-1", (), ttl_s=60, details='{"state": "ready"}')
    with worker(ledger, after=looked):
        result = run("wait", *run("submit", CAT, *ANIMALS).stdout.split())

    assert result.stderr.count("\n") == 1
    assert result.stderr.startswith("1 image, 0 failed, ")


def test_the_summary_counts_images_without_labels(ledger: Ledger) -> None:
    [cancelled] = run("submit", CAT, CAT.replace("cat", "dog"), *ANIMALS).stdout.split()
    run("cancel", cancelled)
    [partial] = run("submit", CAT, GONE, *ANIMALS).stdout.split()

    with worker(ledger):
        result = run("wait", cancelled, partial)

    assert result.exit_code == 1
    assert result.stderr.splitlines()[-1].startswith("4 images, 3 failed, ")


@pytest.mark.parametrize("place", ["before", "after"])
def test_quiet_leaves_only_results_and_errors(ledger: Ledger, place: str) -> None:
    command = ("classify", CAT, GONE, *ANIMALS)

    with worker(ledger):
        result = run("-q", *command) if place == "before" else run(*command, "--quiet")

    assert (result.exit_code, result.stderr) == (1, "")
    assert "image_not_found" in result.stdout


@pytest.mark.parametrize("command", ["classify", "rescore"])
def test_a_timeout_says_which_jobs_go_on_and_how_to_fetch_them(command: str) -> None:
    result = run(command, CAT, *ANIMALS, "--timeout-s", 0.01)

    with Client() as client:
        [job] = client.list_jobs().jobs
    assert result.exit_code == 3
    assert result.stderr.splitlines() == [
        f"result_timeout: {job.job_id}: not final after 0.01 s",
        f"1 job goes on; get the results with: labelyard wait {job.job_id}",
    ]


def interrupted(*command: str) -> "subprocess.CompletedProcess[str]":
    """Run a command, and send it what Ctrl-C sends once its job is accepted."""
    with subprocess.Popen(
        [LABELYARD, *command], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        with Client() as client:
            wait_until(lambda: client.open_images() == 1)
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=60)
    return subprocess.CompletedProcess(command, process.returncode, out, err)


def test_ctrl_c_names_the_jobs_that_go_on() -> None:
    ended = interrupted("classify", CAT, *ANIMALS)

    with Client() as client:
        [job] = client.list_jobs().jobs
    assert (ended.returncode, ended.stdout, job.state) == (130, "", "pending")
    assert ended.stderr.splitlines()[-1].startswith("interrupted: 1 job ")
    assert ended.stderr.endswith(f"get the results with: labelyard wait {job.job_id}\n")


def test_ctrl_c_cancels_the_jobs_if_that_is_wanted() -> None:
    ended = interrupted("classify", CAT, *ANIMALS, "--cancel-on-interrupt")

    with Client() as client:
        [job] = client.list_jobs().jobs
    assert (ended.returncode, job.state) == (130, "cancelled")
    assert ended.stderr == f"interrupted: 1 job cancelled: {job.job_id}\n"


class Interrupted:
    """Object whose destructor is interrupted, as those of redis-py's parsers may be."""

    def __del__(self) -> None:
        signal.raise_signal(signal.SIGINT)


def test_ctrl_c_is_not_lost_in_a_destructor(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(interrupts, "SOON_S", 0.01)

    def wait_for_ever() -> None:
        with interrupts.lasting_interrupts():
            del [Interrupted()][0]
            threading.Event().wait(60)

    with pytest.raises(KeyboardInterrupt):
        wait_for_ever()

    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


class HalfMade:
    """Object that is interrupted while it is made."""

    def __init__(self) -> None:
        self.is_whole = False
        signal.raise_signal(signal.SIGINT)
        self.is_whole = True


def test_ctrl_c_leaves_no_object_half_made() -> None:
    made: list[HalfMade] = []

    def make_and_wait() -> None:
        with interrupts.lasting_interrupts():
            made.append(HalfMade())
            threading.Event().wait(60)

    with pytest.raises(KeyboardInterrupt):
        make_and_wait()

    assert [one.is_whole for one in made] == [True]


def on_a_terminal(*command: str) -> tuple[str, str]:
    """Run a command with a terminal as standard error; return its output and what that shows."""
    ours, theirs = pty.openpty()
    with subprocess.Popen(
        [LABELYARD, *command],
        stdout=subprocess.PIPE,
        stderr=theirs,
        env={**os.environ, "TERM": "xterm"},
    ) as process:
        os.close(theirs)
        shown = b""
        while select.select([ours], [], [], 60)[0]:
            try:
                shown += os.read(ours, 65536)
            except OSError:  # the command has ended
                break
        assert process.stdout is not None
        printed = process.stdout.read().decode()
    os.close(ours)
    return printed, shown.decode()


def test_a_terminal_shows_progress_and_the_results_stay_clean(ledger: Ledger) -> None:
    with worker(ledger):
        printed, shown = on_a_terminal("classify", CAT, GONE, *ANIMALS, "--csv")

    assert "images" in shown
    assert "2/2" in shown
    assert "2 images, 1 failed, " in shown
    assert "\x1b" not in printed
    assert len(printed.splitlines()) == 3
