"""One service and two workers, one of them without a checkpoint, for all end-to-end tests."""

from collections.abc import Iterator

import pytest

from labelyard import Client
from labelyard_worker.local.worker_process import WorkerProcess
from tests.conftest import SESSION_SERVERS
from tests.e2e.instant import InstantService, instant_service
from tests.support.service import READY_WITHIN_S, Service, running_service


@pytest.fixture(scope="session")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """Run servers that the end-to-end tests share."""
    with running_service(tmp_path_factory.mktemp("service")) as running:
        SESSION_SERVERS.extend((running.valkey, running.seaweed))
        yield running
        SESSION_SERVERS.remove(running.valkey)
        SESSION_SERVERS.remove(running.seaweed)


@pytest.fixture(scope="session")
def worker(service: Service) -> Iterator[WorkerProcess]:
    """Run a worker that the end-to-end tests share; nobody stops it."""
    with service.worker().start(within_s=READY_WITHIN_S) as process:
        SESSION_SERVERS.append(process)
        yield process
        SESSION_SERVERS.remove(process)


@pytest.fixture(scope="session")
def instant(service: Service) -> Iterator[InstantService]:
    """Run a worker without a real model, which tests may order to misbehave or restart."""
    with instant_service(service) as running:
        SESSION_SERVERS.append(running.worker)
        yield running
        SESSION_SERVERS.remove(running.worker)


@pytest.fixture
def client(service: Service) -> Iterator[Client]:
    """Connect a producer."""
    with service.client() as producer:
        yield producer
