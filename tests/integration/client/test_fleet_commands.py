"""Commands about the whole service, as a shell sees them: workers, jobs, status, cancel, forget."""

import json
import os
import pty
import select
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from labelyard import Client, ClientSettings
from labelyard.cli import app
from labelyard.ledger import Ledger, connect
from labelyard.ledger.maintenance import MaintenanceLedger
from labelyard.testing import sample_result
from labelyard_worker.local.servers import ValkeyServer

pytestmark = pytest.mark.usefixtures("service_environment")

PHOTO = "s3://photos/cat.jpg"
ANIMALS = ("--labels", "cat,dog")
GPU = {
    "host": "gpu-1",
    "device": "cuda:0",
    "device_name": "NVIDIA H100",
    "device_memory_bytes": 80 * 2**30,
    "checkpoint": "google/siglip2-base-patch16-224",
    "fingerprint": "sha256:a",
    "dtype": "bfloat16",
    "version": "0.1.0",
    "concurrency": 64,
    "state": "ready",
    "queues": ["interactive", "bulk"],
}
LABELYARD = str(Path(sys.executable).with_name("labelyard"))


@pytest.fixture
def ledger() -> Iterator[Ledger]:
    """The worker's side."""
    used = ClientSettings()
    with connect(used) as connection:
        yield Ledger(connection, used)


def run(*args: object, answer: str | None = None) -> Result:
    return CliRunner().invoke(app, [str(arg) for arg in args], input=answer)


def lines(result: Result) -> list[dict[str, Any]]:
    return [json.loads(line) for line in result.stdout.splitlines()]


def submit(*, tenant: str = "shop", queue: str = "interactive", images: int = 1) -> str:
    with Client(ClientSettings(tenant=tenant)) as client:
        pictures = [f"s3://photos/{n}.jpg" for n in range(images)]
        return client.submit(pictures, labels=["a", "b"], queue=queue).id  # type: ignore[arg-type]


def show_worker(
    ledger: Ledger, name: str = "gpu-1-77-ab", *running: str, **details: object
) -> None:
    """Give one sign of life of a worker."""
    text = json.dumps({**GPU, **details})
    MaintenanceLedger(ledger).renew_presence(name, running, ttl_s=60, details=text)


def advice(*args: object) -> str:
    return " ".join(lines(run("status", "--json", *args))[0]["advice"])


def test_workers_are_listed_for_people_and_for_programs(ledger: Ledger) -> None:
    show_worker(ledger, "gpu-1-77-ab", "job-a", open_breakers=["fetch pets"], open_breaker_count=3)

    table, objects = run("workers"), lines(run("workers", "--json"))

    [titles, row] = table.stdout.splitlines()
    assert titles.startswith("worker ")
    assert row.split()[:3] == ["gpu-1-77-ab", "ready", "1/64"]
    assert "cuda:0 NVIDIA H100 80 GiB" in row
    assert row.endswith("fetch pets and 2 more")
    assert (objects[0]["name"], objects[0]["running"]) == ("gpu-1-77-ab", ["job-a"])


def test_a_lost_worker_is_listed_unless_only_live_ones_are_wanted(ledger: Ledger) -> None:
    show_worker(ledger)
    ledger.client.delete(ledger.keys.worker("gpu-1-77-ab"))

    with_lost, live = run("workers"), run("workers", "--live")

    assert " lost " in with_lost.stdout
    assert "No worker of this namespace is alive" in with_lost.stderr
    assert live.stdout == ""
    assert "labelyard-worker start" in live.stderr


def test_jobs_are_listed_newest_first_by_state_tenant_queue_and_time() -> None:
    first, second = submit(tenant="shop"), submit(tenant="blog", queue="bulk", images=3)
    run("cancel", first)

    def ids(*options: str) -> list[str]:
        return [job["job_id"] for job in lines(run("jobs", "--json", *options))]

    assert ids() == [second, first]
    assert ids("--state", "cancelled") == [first]
    assert ids("--tenant", "blog", "--queue", "bulk") == [second]
    assert ids("--since", "1h", "--limit", "1") == [second]
    assert ids("--since", "2100-01-01T00:00:00Z") == []
    table = run("jobs")
    assert [row.split()[:3] for row in table.stdout.splitlines()[1:]] == [
        [second, "pending", "3"],
        [first, "cancelled", "1"],
    ]


def test_a_list_of_jobs_notes_that_it_may_be_longer_or_is_empty() -> None:
    assert run("jobs").stderr == "No job matches.\n"
    submit()

    full = run("jobs", "--limit", 1)

    assert full.stderr == "This is the newest job; --limit shows more.\n"


@pytest.mark.parametrize(
    ("args", "complaint"),
    [
        (["jobs", "--since", "yesterday"], "--since yesterday: write 10m, 2h, 3d"),
        (["jobs", "--since", "2026-03-01T09:30:00"], "has no offset: add Z"),
        (["jobs", "--since", "5y"], "--since 5y: write"),
        (["cancel"], "name the jobs, or add --all"),
        (["cancel", "x", "--all"], "name the jobs, or add --all"),
        (["cancel", "x", "--tenant", "shop"], "--tenant and --queue go with --all"),
        (["cancel", "--all"], "add --yes"),
        (["label-sets", "delete", "animals"], "names no version"),
    ],
)
def test_wrong_input_is_one_clear_line_and_ends_with_2(args: list[str], complaint: str) -> None:
    result = run(*args)

    assert result.exit_code == 2
    assert complaint in result.stderr
    assert result.stderr.count("\n") == 1
    assert result.stdout == ""


def test_all_open_jobs_of_a_tenant_or_a_queue_are_cancelled() -> None:
    kept, shop, bulk = submit(tenant="blog"), submit(), submit(tenant="blog", queue="bulk")

    by_tenant = run("cancel", "--all", "--tenant", "shop", "--yes")
    by_queue = run("cancel", "--all", "--queue", "bulk", "--yes", "--json")

    states = {job["job_id"]: job["state"] for job in lines(run("jobs", "--json"))}
    assert states == {kept: "pending", shop: "cancelled", bulk: "cancelled"}
    assert by_tenant.stdout == "1 job cancelled\n"
    assert lines(by_queue) == [{"cancelled": 1}]


@pytest.mark.parametrize(("answer", "state", "code"), [("n", "pending", 1), ("y", "cancelled", 0)])
def test_cancelling_all_asks_on_a_terminal_with_the_numbers(
    answer: str, state: str, code: int
) -> None:
    job_id = submit(images=5)

    output, exit_code = on_terminal(
        "cancel", "--all", "--tenant", "shop", until="?", press=answer + "\n"
    )

    assert "Cancel 1 open job of shop with 5 images?" in output
    assert exit_code == code
    with Client() as client:
        assert client.status(job_id).state == state


def test_a_job_is_erased_and_an_unknown_one_is_named() -> None:
    job_id = submit()

    erased = run("forget", "nothing", job_id)

    assert (erased.exit_code, erased.stdout) == (1, f"{job_id} erased\n")
    assert erased.stderr == "job_not_found: nothing\n"
    assert lines(run("jobs", "--json")) == []


@pytest.mark.allow_persistent_keys("label sets stay until somebody deletes them")
def test_a_label_set_is_deleted_by_its_reference(tmp_path: Path) -> None:
    file = tmp_path / "animals.txt"
    file.write_text("cat\ndog\n", encoding="utf-8")
    reference = run("label-sets", "register", "animals", file).stdout.strip()

    deleted = run("label-sets", "delete", reference)
    again = run("label-sets", "delete", reference)

    assert deleted.stdout == f"{reference} deleted\n"
    assert again.exit_code == 1
    assert again.stderr.startswith("unknown_label_set: ")
    assert run("label-sets", "list", "--json").stdout == ""


def test_a_service_without_faults_is_shown_as_well(ledger: Ledger) -> None:
    show_worker(ledger)
    submit(images=3)

    page = run("status")

    assert page.exit_code == 0
    assert "All is well." in page.stdout
    [row] = [line for line in page.stdout.splitlines() if line.startswith("interactive")]
    assert row.split()[1:4] == ["1", "1", "3"]
    assert "google/siglip2-base-patch16-224" in page.stdout


def test_status_advises_on_each_thing_that_is_not_well(ledger: Ledger) -> None:
    nobody = advice()
    show_worker(ledger, "a", state="draining", open_breakers=["fetch pets"], open_breaker_count=1)
    draining = advice()
    show_worker(ledger, "b", fingerprint="sha256:b", version="0.2.0", has_atomic_claim=False)
    show_worker(ledger, "c")
    ledger.client.delete(ledger.keys.worker("c"))
    job_id = submit()
    result = sample_result("failed").model_copy(update={"job_id": job_id})
    ledger.finish(job_id, result, is_dead=True)
    late = submit()
    [entry] = ledger.client.zrange(ledger.keys.open_by_age("interactive"), 0, -1)  # type: ignore[misc]
    ledger.client.zincrby(ledger.keys.open_by_age("interactive"), -3600, entry)

    everything = advice()

    assert "No worker of this namespace is alive" in nobody
    assert "No worker takes jobs now: 0 start and 1 shut down" in draining
    assert "fails as a whole now: fetch pets" in draining
    for part in (
        "1 worker ended without a shutdown in the last hour, c on gpu-1",
        "Workers serve different checkpoints",
        "Workers run different versions",
        "LABELYARD_ATOMIC_CLAIM is off",
        "1 dead letter: `labelyard dead list`",
        "The oldest interactive job is 60 min old",
    ):
        assert part in everything
    assert late in [job["job_id"] for job in lines(run("jobs", "--json", "--state", "pending"))]


def test_a_service_whose_servers_are_away_is_described_as_far_as_it_answers(
    own_valkey: ValkeyServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    own_valkey.kill()
    monkeypatch.setenv("LABELYARD_LEDGER_URL", own_valkey.url)

    page = run("status")

    assert page.exit_code == 3
    assert "ledger_unavailable" in page.stdout
    assert "LABELYARD_LEDGER_URL" in page.stdout
    assert "interactive" in page.stdout  # the broker's queues


def test_top_prints_one_frame_without_a_terminal(ledger: Ledger) -> None:
    show_worker(ledger)
    submit(images=3)

    frame, fields = run("top"), lines(run("top", "--json"))[0]

    assert frame.exit_code == 0
    assert "open images 3" in frame.stdout
    assert "gpu-1-77-ab" in frame.stdout
    assert (fields["jobs_per_s"], fields["open_images"]) == (0.0, 3)


def test_top_survives_a_ledger_that_goes_away_and_comes_back(
    own_valkey: ValkeyServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LABELYARD_LEDGER_URL", own_valkey.url)
    with Terminal("top", "--every-s", "0.2") as terminal:
        terminal.wait_for("open images")
        own_valkey.kill()
        terminal.wait_for("ledger_unavailable")
        own_valkey.start()
        terminal.wait_for("open images")
        terminal.press("q")

        assert terminal.wait() == 0


def test_top_ends_cleanly_with_ctrl_c() -> None:
    with Terminal("top") as terminal:
        terminal.wait_for("open images")
        terminal.press("\x03")

        assert terminal.wait() == 0
        assert "Traceback" not in terminal.output


class Terminal:
    """The command in a pseudo terminal."""

    def __init__(self, *args: str) -> None:
        self._fd, theirs = pty.openpty()
        self.output = ""
        self._process = subprocess.Popen(
            [LABELYARD, *args],
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
            env={**os.environ, "TERM": "xterm", "COLUMNS": "80", "LINES": "24"},
            start_new_session=True,
            preexec_fn=_take_terminal,
        )
        os.close(theirs)

    def __enter__(self) -> "Terminal":
        return self

    def __exit__(self, *error: object) -> None:
        self._process.kill()
        self._process.wait()
        os.close(self._fd)

    def wait_for(self, text: str, *, within_s: float = 60.0) -> None:
        """Read until *text* comes, from now on."""
        seen, until = "", time.monotonic() + within_s
        while text not in seen:
            assert time.monotonic() < until, f"{text!r} is not in {seen[-2000:]!r}"
            seen += self._read()
        self.output += seen

    def press(self, keys: str) -> None:
        os.write(self._fd, keys.encode())

    def wait(self, *, within_s: float = 60.0) -> int:
        """Wait for the end of the process; return its exit code."""
        until = time.monotonic() + within_s
        while self._process.poll() is None and time.monotonic() < until:
            self.output += self._read()
        return self._process.wait(timeout=1)

    def _read(self) -> str:
        ready, _, _ = select.select([self._fd], [], [], 0.1)
        try:
            return os.read(self._fd, 65536).decode(errors="replace") if ready else ""
        except OSError:  # the other side is closed
            return ""


def _take_terminal() -> None:
    import fcntl
    import termios

    fcntl.ioctl(0, termios.TIOCSCTTY, 0)


def on_terminal(*args: str, until: str, press: str) -> tuple[str, int]:
    """Run a command in a terminal, press keys once *until* is shown; return output and code."""
    with Terminal(*args) as terminal:
        terminal.wait_for(until)
        terminal.press(press)
        code = terminal.wait()
        return terminal.output, code
