"""Command and environment of Compose, Kubernetes and systemd, started by hand.

Only addresses, credentials, ports and the model are put in: no container engine runs here.
"""

import os
import re
import signal
import sys
import urllib.request
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import pytest

from labelyard_worker.local.worker_process import WorkerProcess
from tests.conftest import SESSION_SERVERS
from tests.support import pictures
from tests.support.service import READY_WITHIN_S, Service
from tests.support.waiting import wait_until
from tests.unit import test_deploy_files as compose
from tests.unit import test_kubernetes_files as kubernetes
from tests.unit import test_systemd_unit as systemd

ROOT: Final = Path(__file__).parents[2]
LABELS: Final = ["a cat", "a dog"]
WITHOUT_WEIGHTS: Final = ROOT / "tests/support/apps/without_weights"
UPLOADS: Final = "labelyard-uploads"


@dataclass(frozen=True)
class Deployment:
    """Processes that a supervisor would start.

    Attributes:
        stop_within_s: Seconds from SIGTERM to SIGKILL.
    """

    command: tuple[str, ...]
    environment: Mapping[str, str]
    stop_within_s: float


class DeployedWorker(WorkerProcess):
    """A worker with the environment of its deployment and nothing of ours."""

    def _environment(self) -> dict[str, str]:
        return {**self._variables, "LABELYARD_HEALTH_PORT": str(self.port)}


def image_command(arguments: list[str] | None = None) -> tuple[str, ...]:
    """Return the command of the image, with its own or other arguments."""
    text = (ROOT / "deploy/Dockerfile").read_text(encoding="utf-8")
    entry, default = (
        re.findall(rf"^{name} \[(.*)\]$", text, re.MULTILINE)[-1] for name in ("ENTRYPOINT", "CMD")
    )
    words = [word.strip('"') for word in f"{entry}, {default}".split(", ")]
    return tuple(words if arguments is None else [words[0], *arguments])


def deployments() -> dict[str, Deployment]:
    """Read the three kinds of deployment from their files."""
    service = compose.WORKERS["worker"]
    pod = kubernetes.POD["spec"]
    [exec_start] = systemd.values("ExecStart")
    [stop_s] = systemd.values("TimeoutStopSec")
    return {
        "compose": Deployment(
            image_command(service.get("command")),
            {**compose.example_variables(active_only=True), **service["environment"]},
            compose.seconds(service["stop_grace_period"]),
        ),
        "kubernetes": Deployment(
            image_command(kubernetes.CONTAINER["args"]),
            {**kubernetes.SETTINGS, **kubernetes.SECRETS, "LABELYARD_DEVICE": "cpu"},
            pod["terminationGracePeriodSeconds"],
        ),
        "systemd": Deployment(tuple(exec_start.split()), systemd.environment(), float(stop_s)),
    }


def substituted(name: str, given: Mapping[str, str], service: Service) -> dict[str, str]:
    """Put in what differs between this machine and theirs."""
    return {
        **given,
        **{key: value for key, value in service.variables.items() if key in given},
        "AWS_ACCESS_KEY_ID": service.seaweed.access_key_id,
        "AWS_SECRET_ACCESS_KEY": service.seaweed.secret_access_key,
        "LABELYARD_RESULT_BUCKETS": given["LABELYARD_RESULT_BUCKETS"],
        "LABELYARD_NAMESPACE": name,
        "LABELYARD_HEALTH_HOST": "127.0.0.1",
        "PYTHONPATH": os.pathsep.join(map(str, (WITHOUT_WEIGHTS, ROOT))),
        "TEST_FLAGS": str(service.folder),
        "PATH": os.environ["PATH"],
        "HOME": str(service.folder),
    }


def program_here(command: tuple[str, ...]) -> tuple[str, ...]:
    """Put in the program of this installation."""
    program = Path(sys.executable).with_name(Path(command[0]).name)
    return (str(program), *command[1:])


DEPLOYMENTS: Final = deployments()


@pytest.fixture(scope="module")
def workers(service: Service) -> Iterator[dict[str, DeployedWorker]]:
    """Start all of them at once: each takes seconds."""
    with suppress(service.s3.exceptions.BucketAlreadyOwnedByYou):
        service.s3.create_bucket(Bucket=UPLOADS)
    workers = {
        name: DeployedWorker(
            service.folder / f"as-{name}",
            variables=substituted(name, one.environment, service),
            command=program_here(one.command),
        )
        for name, one in DEPLOYMENTS.items()
    }
    with ExitStack() as stack, ThreadPoolExecutor() as threads:
        for worker in workers.values():
            stack.callback(worker.stop)
        list(threads.map(lambda worker: worker.start(within_s=READY_WITHIN_S), workers.values()))
        SESSION_SERVERS.extend(workers.values())
        yield workers
        for worker in workers.values():
            SESSION_SERVERS.remove(worker)


@pytest.mark.parametrize("name", DEPLOYMENTS)
def test_worker_starts_works_is_scraped_and_drains_as_it_is_deployed(
    name: str, workers: dict[str, DeployedWorker], service: Service
) -> None:
    worker = workers[name]
    service.s3.put_object(Bucket=UPLOADS, Key="picture.jpg", Body=pictures.jpeg())

    with service.client(namespace=name) as client:
        result = client.classify([f"s3://{UPLOADS}/picture.jpg"], labels=LABELS, timeout_s=60)
    with urllib.request.urlopen(f"{worker.health_url}/metrics", timeout=10) as answer:
        scraped = answer.read().decode()
    guardian = worker._guardian
    assert guardian is not None
    os.kill(worker.pid, signal.SIGTERM)
    wait_until(lambda: not worker.is_running(), within_s=DEPLOYMENTS[name].stop_within_s)

    assert result.status == "succeeded"
    assert 'labelyard_images_total{outcome="succeeded"' in scraped
    assert guardian.returncode == 0
    assert "worker_drains" in worker.log_path.read_text()
