"""Celery's remote control: off by default, within a namespace, and no job is lost by it."""

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import pytest
from celery import Celery

from labelyard_worker.local.worker_process import WorkerProcess
from tests.e2e.instant import COMMAND, ROOT, SETTINGS, InstantService
from tests.support.service import READY_WITHIN_S
from tests.support.waiting import wait_until

LABELS = ["a cat", "a dog"]
INSPECT_PING = """
import sys
from celery.__main__ import main
sys.argv = ["celery", "-A", "labelyard_worker", "inspect", "ping"]
try:
    main()
finally:
    print("heavy:", sorted({"torch", "transformers", "numpy"} & set(sys.modules)))
"""


@contextmanager
def controlled(instant: InstantService, namespace: str) -> Iterator[WorkerProcess]:
    """Run a worker of its own namespace, with remote control, on the same Redis."""
    settings = {**SETTINGS, "namespace": namespace, "remote_control": "1"}
    worker = instant.service.worker(
        name=namespace,
        command=COMMAND,
        variables={
            "PYTHONPATH": str(ROOT),
            "TEST_EFFECTS": str(instant.service.folder / "effects.log"),
            "TEST_FLAGS": str(instant.flags),
        },
        **settings,
    )
    with worker.start(within_s=READY_WITHIN_S):
        yield worker


@pytest.fixture(scope="module")
def workers(instant: InstantService) -> Iterator[dict[str, WorkerProcess]]:
    with ExitStack() as stack:
        yield {
            namespace: stack.enter_context(controlled(instant, namespace))
            for namespace in ("ours", "theirs")
        }


def remote(instant: InstantService, exchange: str) -> Celery:
    app = Celery("operator", broker=instant.service.variables["LABELYARD_BROKER_URL"])
    app.conf.control_exchange = exchange
    return app


@pytest.mark.usefixtures("workers")
def test_only_workers_of_the_namespace_hear_a_command(instant: InstantService) -> None:
    """The suite's worker, whose remote control is off, gets no command."""

    def answers(exchange: str) -> int:
        return len(remote(instant, exchange).control.ping(timeout=1.0))

    for exchange in ("ours.celery", "theirs.celery"):
        wait_until(lambda exchange=exchange: answers(exchange) == 1)  # type: ignore[misc]
    assert [answers(exchange) for exchange in ("instant.celery", "celery")] == [0, 0]


@pytest.mark.usefixtures("workers")
def test_a_revoked_job_is_cancelled_and_others_go_on(instant: InstantService) -> None:
    with instant.service.client(namespace="ours") as client:
        slow = client.submit([instant.picture()], LABELS, tenant="slow-60")
        wait_until(lambda: slow.state() == "running")

        remote(instant, "ours.celery").control.revoke(slow.id, terminate=True)

        wait_until(lambda: slow.state() == "cancelled")
        after = client.classify([instant.picture()], LABELS, timeout_s=20)
        assert after.status == "succeeded"


@pytest.mark.usefixtures("workers")
def test_celery_inspect_ping_is_answered_and_loads_no_model(instant: InstantService) -> None:
    variables = {**instant.service.variables, "LABELYARD_NAMESPACE": "ours"}

    ended = subprocess.run(
        [sys.executable, "-c", INSPECT_PING],
        env={**os.environ, **variables},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )

    assert ended.returncode == 0, ended.stderr
    assert "pong" in ended.stdout
    assert "heavy: []" in ended.stdout


@pytest.mark.parametrize("command", ["pool_shrink", "rate_limit", "cancel_consumer", "time_limit"])
@pytest.mark.usefixtures("workers")
def test_commands_that_would_lose_jobs_do_not_exist(instant: InstantService, command: str) -> None:
    app = remote(instant, "ours.celery")

    replies = app.control.broadcast(command, reply=True, timeout=0.5)

    assert not any("ok" in answer for reply in replies for answer in reply.values())


def test_a_shutdown_ends_the_workers_of_its_namespace_alone(
    instant: InstantService, workers: dict[str, WorkerProcess]
) -> None:
    with controlled(instant, "ending") as ending:
        remote(instant, "celery").control.shutdown()
        remote(instant, "ending.celery").control.shutdown()

        wait_until(lambda: not ending.is_running())
    assert all(worker.is_running() for worker in workers.values())
    assert instant.worker.is_running()
