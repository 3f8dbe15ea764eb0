"""A stage with two workers that the scenarios share."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.chaos.play import Play, playing
from tests.chaos.stage import Stage, set_stage
from tests.conftest import SESSION_SERVERS

# A job may take several times the visibility timeout.
SCENARIO_SETTINGS = {
    "LABELYARD_VISIBILITY_TIMEOUT_S": "4",
    "LABELYARD_JOB_TIMEOUT_S": "15",
    "LABELYARD_RECONCILE_AFTER_S": "3",
}


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    """Run servers and two workers, which scenarios break and which come again."""
    folder = tmp_path_factory.mktemp("chaos")
    with set_stage(folder, workers=2, settings=SCENARIO_SETTINGS) as stage:
        servers = [stage.broker, stage.ledger, stage.storage, *(s.worker for s in stage.slots)]
        SESSION_SERVERS.extend(servers)
        yield stage
        for server in servers:
            SESSION_SERVERS.remove(server)


@pytest.fixture
def play(stage: Stage, record_property: Callable[[str, Any], None]) -> Iterator[Play]:
    """Give a stage at rest, and check that it comes to rest again."""
    with playing(stage, record_property) as play:
        yield play
