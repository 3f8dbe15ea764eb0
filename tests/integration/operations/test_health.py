"""Probes over HTTP return whether a worker is alive and ready, and why not."""

import json
import socket
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import closing
from types import SimpleNamespace
from typing import Any

import pytest
from typer.testing import CliRunner

from labelyard.command_group import CommandError
from labelyard.errors import BrokerUnavailableError, LedgerUnavailableError, ServiceConfigError
from labelyard_worker import cli
from labelyard_worker.broker.thread_pool import PoolUsage
from labelyard_worker.operations import health
from labelyard_worker.operations.health import Health, Server
from tests.support.answering import answering, reply

Change = Callable[[SimpleNamespace], object]


def sound_parts() -> SimpleNamespace:
    """Stand in for all parts of a worker that health checks; each is well."""
    return SimpleNamespace(
        batcher=SimpleNamespace(failed=None, is_alive=True),
        text_vectors=SimpleNamespace(is_alive=True),
        intake=SimpleNamespace(is_alive=lambda: True),
        deliveries=SimpleNamespace(is_alive=True),
        watchdog=SimpleNamespace(hung=lambda: None),
        executor=SimpleNamespace(last_finished_at=time.monotonic(), is_draining=False),
        broker=SimpleNamespace(count_queued=lambda: 3),
        ledger=SimpleNamespace(open_images=lambda: 0),
        stall_s=60.0,
    )


def serve(parts: SimpleNamespace, *, port: int = 0) -> Server | None:
    """Serve the health of *parts*."""
    return health.serve(Health(**vars(parts)), host="127.0.0.1", port=port)


@pytest.fixture
def parts() -> SimpleNamespace:
    return sound_parts()


@pytest.fixture
def server(parts: SimpleNamespace) -> Iterator[Server]:
    served = serve(parts)
    assert served is not None
    with closing(served):
        served.ready(pool_with(leaked=0))
        yield served


def pool_with(*, leaked: int) -> SimpleNamespace:
    return SimpleNamespace(usage=lambda: PoolUsage(total=4, busy=1, leaked=leaked))


def ask(server: Server, what: str) -> tuple[int, Any]:
    """Send a request as a probe does."""
    try:
        answer = urllib.request.urlopen(f"http://127.0.0.1:{server.port}{what}", timeout=5)
    except urllib.error.HTTPError as error:
        answer = error
    with answer:
        return answer.status, json.load(answer)


def raising(error: Exception) -> Callable[[], Any]:
    def fail() -> Any:
        raise error

    return fail


@pytest.mark.parametrize("probe", ["/live", "/ready", "/live?from=kubelet"])
def test_a_sound_worker_lives_and_takes_jobs(server: Server, probe: str) -> None:
    assert ask(server, probe) == (200, {"ok": True, "why": []})


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (
            lambda it: setattr(it.batcher, "failed", RuntimeError("CUDA error")),
            "the model failed: CUDA error",
        ),
        (lambda it: setattr(it.batcher, "is_alive", False), "a model thread is dead"),
        (lambda it: setattr(it.intake, "is_alive", lambda: False), "the intake is dead"),
        (lambda it: setattr(it.watchdog, "hung", lambda: "job a hangs"), "job a hangs"),
        (
            lambda it: setattr(it.executor, "last_finished_at", time.monotonic() - 61),
            "messages wait, and no job finished for 60 s",
        ),
    ],
    ids=["model failed", "model thread dead", "intake dead", "hang", "stall"],
)
def test_what_only_a_restart_cures_is_told_by_both_probes(
    server: Server, parts: SimpleNamespace, change: Change, why: str
) -> None:
    change(parts)

    assert ask(server, "/live") == (503, {"ok": False, "why": [why]})
    assert ask(server, "/ready") == (503, {"ok": False, "why": [why]})


def test_a_slot_that_leaked_ends_a_workers_life(server: Server) -> None:
    server.ready(pool_with(leaked=2))

    assert ask(server, "/live")[1]["why"] == ["2 slots of the pool leaked"]


@pytest.mark.parametrize(
    "waiting",
    [
        lambda: 0,
        raising(BrokerUnavailableError("away")),
        raising(ConnectionError("away")),
    ],
    ids=["nothing waits", "broker away", "connection lost"],
)
def test_a_worker_that_has_nothing_to_do_lives(
    server: Server, parts: SimpleNamespace, waiting: Callable[[], int]
) -> None:
    parts.executor.last_finished_at -= 3600
    parts.broker.count_queued = waiting

    assert ask(server, "/live")[0] == 200


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (
            lambda it: setattr(it.executor, "is_draining", True),
            "the worker is shutting down",
        ),
        (
            lambda it: setattr(it.ledger, "open_images", raising(LedgerUnavailableError("away"))),
            "ledger_unavailable: away",
        ),
    ],
    ids=["draining", "ledger away"],
)
def test_what_passes_makes_a_worker_unready_and_not_dead(
    server: Server, parts: SimpleNamespace, change: Change, why: str
) -> None:
    change(parts)

    assert ask(server, "/ready") == (503, {"ok": False, "why": [why]})
    assert ask(server, "/live")[0] == 200


def test_a_worker_is_not_ready_before_it_consumes(parts: SimpleNamespace) -> None:
    served = serve(parts)
    assert served is not None

    with closing(served):
        assert ask(served, "/ready")[1]["why"] == ["the worker does not consume yet"]
        assert ask(served, "/live")[0] == 200


def test_another_path_says_which_there_are(server: Server) -> None:
    assert ask(server, "/health") == (404, {"paths": ["/live", "/ready"]})


def test_a_port_that_is_taken_stops_the_start_with_what_to_do(parts: SimpleNamespace) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]

        with pytest.raises(ServiceConfigError, match=f"127.0.0.1:{port} .* LABELYARD_HEALTH_PORT"):
            serve(parts, port=port)


def test_it_can_be_switched_off(parts: SimpleNamespace) -> None:
    assert serve(parts, port=-1) is None


def test_the_command_says_yes(server: Server, capsys: pytest.CaptureFixture[str]) -> None:
    cli.probe("live", f"http://127.0.0.1:{server.port}")

    assert capsys.readouterr().out == "live: yes\n"


def test_the_command_says_why_not_and_ends_with_1(server: Server, parts: SimpleNamespace) -> None:
    parts.executor.is_draining = True

    ended = CliRunner().invoke(cli.app, ["ready", "--url", f"http://127.0.0.1:{server.port}"])

    assert (ended.exit_code, ended.stderr) == (1, "ready: the worker is shutting down\n")


@pytest.mark.parametrize("url", ["http://127.0.0.1:9", "http://127.0.0.1:-1", "nowhere"])
def test_the_command_says_that_nobody_answers(url: str) -> None:
    ended = CliRunner().invoke(cli.app, ["live", "--url", url])

    assert ended.exit_code == 1
    assert ended.stderr.startswith(f"live: no worker answers at {url}")
    assert ended.stderr.count("\n") == 1


@pytest.mark.parametrize("body", [b"<html>", b"[]", b'{"status": "up"}'])
@pytest.mark.parametrize("status", [200, 404])
def test_the_command_is_not_fooled_by_another_server(status: int, body: bytes) -> None:
    with (
        answering(lambda request: reply(request, status, body)) as port,
        pytest.raises(CommandError, match="live: no worker answers"),
    ):
        cli.probe("live", f"http://127.0.0.1:{port}")
