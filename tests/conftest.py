"""Fixtures of every test, and the checks after each test."""

import gc
import logging
import os
from collections.abc import Iterator
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

import pytest
import redis
from hypothesis import settings

from labelyard_worker.local.servers import EmbeddedServer, SeaweedServer, ValkeyServer
from labelyard_worker.operations import logs
from tests.support import leaks
from tests.support.buckets import Bucket, fresh_bucket
from tests.support.variables import isolate, service_variables

SESSION_SERVERS: list[EmbeddedServer] = []

isolate(os.environ)  # at import: settings of libraries are read when test modules import them
gc.disable()  # until the tests are collected, of which nothing is garbage
settings.register_profile("labelyard", deadline=None)  # no test times speed
settings.load_profile("labelyard")


def pytest_addoption(parser: pytest.Parser) -> None:
    """Let the caller choose the device of ``tests/cuda``."""
    parser.addoption("--device", default="auto", help="of tests/cuda: auto, cpu or cuda")


def pytest_configure(config: pytest.Config) -> None:
    """Register the markers that the fixtures below look at."""
    config.addinivalue_line(
        "markers",
        "allow_persistent_keys(reason): the test leaves Redis keys without a TTL on purpose",
    )


#: Folders whose tests start servers and workers, and take longest.
SLOW_FOLDERS = ("chaos", "e2e", "docs", "model", "cuda", "integration")


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put the files that may take longest first, or one process would end long after the others.

    Their order is otherwise the random one, and files stay whole.
    """
    limits: dict[Path, float] = {}
    for item in items:
        marker = item.get_closest_marker("timeout")
        limit = float(marker.args[0]) if marker else 0.0
        limits[item.path] = max(limit, limits.get(item.path, 0.0))
    items.sort(key=lambda item: (-limits[item.path], _folder_rank(item.path)))


def pytest_collection_finish() -> None:
    """Search for garbage again, and never among the modules and the collected tests."""
    gc.collect()
    gc.freeze()
    gc.enable()


def _folder_rank(path: Path) -> int:
    folder = path.relative_to(Path(__file__).parent).parts[0]
    return SLOW_FOLDERS.index(folder) if folder in SLOW_FOLDERS else len(SLOW_FOLDERS)


@pytest.fixture(autouse=True)
def nothing_is_left_over() -> Iterator[None]:
    """Fail a test that leaves a thread or a process behind."""
    before = leaks.threads_and_processes(SESSION_SERVERS)

    yield

    left = leaks.left_over_since(before, SESSION_SERVERS)
    if left:
        pytest.fail("the test left behind: " + "; ".join(left), pytrace=False)


@pytest.fixture(autouse=True)
def loggers_are_as_before() -> Iterator[None]:
    """Restore the loggers after a test, whose handlers write to a closed stream."""
    loggers = [logging.getLogger(name) for name in ("", *logs.NAMES)]
    before = [(logger, logger.level, logger.handlers[:]) for logger in loggers]

    yield

    for logger, level, handlers in before:
        logger.setLevel(level)
        logger.handlers[:] = handlers


@pytest.fixture(scope="session")
def valkey(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ValkeyServer]:
    """Run the Valkey that all tests share; nobody stops it, see ``own_valkey``."""
    with ValkeyServer(tmp_path_factory.mktemp("valkey")) as server:
        SESSION_SERVERS.append(server)
        yield server
        SESSION_SERVERS.remove(server)


@pytest.fixture(scope="session")
def seaweed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SeaweedServer]:
    """Run the SeaweedFS that all tests share; nobody stops it, see ``own_seaweed``."""
    with SeaweedServer(tmp_path_factory.mktemp("seaweed")) as server:
        SESSION_SERVERS.append(server)
        yield server
        SESSION_SERVERS.remove(server)


@pytest.fixture
def own_valkey(tmp_path: Path) -> Iterator[ValkeyServer]:
    """Run a Valkey for one test, to be killed, filled or restarted."""
    with ValkeyServer(tmp_path / "valkey") as server:
        yield server


@pytest.fixture
def own_seaweed(tmp_path: Path) -> Iterator[SeaweedServer]:
    """Run a SeaweedFS for one test, to be killed or restarted."""
    with SeaweedServer(tmp_path / "seaweed") as server:
        yield server


@pytest.fixture
def clean_valkey(valkey: ValkeyServer, request: pytest.FixtureRequest) -> Iterator[ValkeyServer]:
    """Empty all databases of the session's Valkey, and check after the test that keys will go."""
    with ExitStack() as open_clients:
        client = open_clients.enter_context(redis.Redis.from_url(valkey.url_of(0)))
        client.flushall()

        yield valkey

        used = [
            open_clients.enter_context(redis.Redis.from_url(valkey.url_of(database)))
            for database in leaks.used_databases(client)
        ]
        immortal = leaks.keys_without_ttl(used)
    marker = request.node.get_closest_marker("allow_persistent_keys")
    if immortal and marker is None:
        pytest.fail(f"keys without a TTL: {', '.join(immortal)}", pytrace=False)


@pytest.fixture
def broker_url(clean_valkey: ValkeyServer) -> str:
    """Return the address of an empty database for messages."""
    return clean_valkey.url_of(leaks.BROKER_DATABASE)


@pytest.fixture
def ledger_url(clean_valkey: ValkeyServer) -> str:
    """Return the address of an empty database for job records."""
    return clean_valkey.url_of(1)


@pytest.fixture
def redis_url(clean_valkey: ValkeyServer) -> str:
    """Return the address of an empty database for anything else."""
    return clean_valkey.url_of(2)


@pytest.fixture
def broker_redis(broker_url: str) -> Iterator[redis.Redis]:
    """Open a client on the database of ``broker_url``; answers are bytes."""
    with redis.Redis.from_url(broker_url) as client:
        yield client


@pytest.fixture
def ledger_redis(ledger_url: str) -> Iterator[redis.Redis]:
    """Open a client on the database of ``ledger_url``; answers are bytes."""
    with redis.Redis.from_url(ledger_url) as client:
        yield client


@pytest.fixture
def redis_client(redis_url: str) -> Iterator[redis.Redis]:
    """Open a client on the database of ``redis_url``; answers are bytes."""
    with redis.Redis.from_url(redis_url) as client:
        yield client


@pytest.fixture(scope="session")
def s3(seaweed: SeaweedServer) -> Iterator[Any]:
    """Open a boto3 client with the right to everything on the session's SeaweedFS."""
    with closing(seaweed.s3_client()) as client:
        yield client


@pytest.fixture
def bucket(s3: Any) -> Iterator[Bucket]:
    """Make an empty bucket for one test."""
    with fresh_bucket(s3) as made:
        yield made


@pytest.fixture
def service_environment(
    seaweed: SeaweedServer, broker_url: str, ledger_url: str, monkeypatch: pytest.MonkeyPatch
) -> dict[str, str]:
    """Set the variables that lead producers and workers to the servers, and return them."""
    variables = service_variables(seaweed, broker_url=broker_url, ledger_url=ledger_url)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    return variables
