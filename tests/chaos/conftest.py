"""Environment with two workers that the scenarios share."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.chaos.environment import Environment, start_environment
from tests.chaos.scenario_run import ScenarioRun, start_run
from tests.conftest import SESSION_SERVERS

# A job may take several times the visibility timeout.
SCENARIO_SETTINGS = {
    "LABELYARD_VISIBILITY_TIMEOUT_S": "4",
    "LABELYARD_JOB_TIMEOUT_S": "15",
    "LABELYARD_RECONCILE_AFTER_S": "3",
}


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Environment]:
    """Run servers and two workers, which scenarios break and which come again."""
    folder = tmp_path_factory.mktemp("chaos")
    with start_environment(folder, workers=2, settings=SCENARIO_SETTINGS) as environment:
        servers = [
            environment.broker,
            environment.ledger,
            environment.storage,
            *(s.worker for s in environment.slots),
        ]
        SESSION_SERVERS.extend(servers)
        yield environment
        for server in servers:
            SESSION_SERVERS.remove(server)


@pytest.fixture
def run(
    environment: Environment, record_property: Callable[[str, Any], None]
) -> Iterator[ScenarioRun]:
    """Lend an environment at rest, and check that it comes to rest again."""
    with start_run(environment, record_property) as run:
        yield run
