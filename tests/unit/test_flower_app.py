"""deploy/flower/flower_app.py, which does not import labelyard, agrees with it."""

import importlib.util
import re
from pathlib import Path
from types import ModuleType

import pytest

from labelyard.queues import kombu_queues
from labelyard_worker.broker.remote_control import build_control_settings

FOLDER = Path(__file__).parents[2] / "deploy/flower"
NAMESPACE = "photos"


@pytest.fixture
def flower_app(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """Load the application as Flower's container does."""
    monkeypatch.setenv("LABELYARD_BROKER_URL", "redis://127.0.0.1:1/0")
    monkeypatch.setenv("LABELYARD_NAMESPACE", NAMESPACE)
    spec = importlib.util.spec_from_file_location("flower_app", FOLDER / "flower_app.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_flower_uses_the_exchanges_of_the_workers(flower_app: ModuleType) -> None:
    expected = build_control_settings(NAMESPACE, is_on=True)
    del expected["worker_enable_remote_control"]

    assert {name: flower_app.app.conf[name] for name in expected} == expected


def test_flower_shows_the_queues_of_the_namespace(flower_app: ModuleType) -> None:
    expected = [queue.name for queue in kombu_queues(NAMESPACE, "redis://")]

    assert [queue.name for queue in flower_app.app.conf.task_queues] == expected


def test_flower_runs_the_versions_that_workers_are_tested_with() -> None:
    pins = (FOLDER.parents[1] / "constraints.txt").read_text(encoding="utf-8").split()
    installed = re.findall(r"\S+==\S+", (FOLDER / "Dockerfile").read_text(encoding="utf-8"))

    assert [pin for pin in installed if not pin.startswith("flower==")]
    assert set(installed) - set(pins) == {"flower==2.2.0"}


def test_flower_cannot_change_anything_by_default() -> None:
    command = (FOLDER / "Dockerfile").read_text(encoding="utf-8").rpartition("\nCMD ")[2]

    assert "--read-only" in command
