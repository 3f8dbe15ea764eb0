"""Options of sockets to Redis have one place, so that no connection can hang for ever."""

import ast
from pathlib import Path

import pytest

from labelyard.redis_connections import SOCKET_OPTIONS, socket_timeouts
from labelyard_worker.celery_app import build_redis_options
from labelyard_worker.settings import WorkerSettings

ROOT = Path(__file__).parents[2]
OWNER = ROOT / "producer/labelyard/redis_connections.py"


def names_in(path: Path) -> set[str]:
    """Return the keyword arguments and strings of a file."""
    nodes = list(ast.walk(ast.parse(path.read_text("utf-8"))))
    keywords = {node.arg for node in nodes if isinstance(node, ast.keyword) and node.arg}
    return keywords | {str(node.value) for node in nodes if isinstance(node, ast.Constant)}


def test_no_other_file_sets_an_option_of_a_socket() -> None:
    sources = [*ROOT.glob("producer/**/*.py"), *ROOT.glob("worker/**/*.py")]

    setting = [path for path in sources if names_in(path) & SOCKET_OPTIONS.keys()]

    assert setting == [OWNER]


def test_celery_takes_them_from_there() -> None:
    options = build_redis_options(WorkerSettings())

    assert {name: options[name] for name in SOCKET_OPTIONS} == SOCKET_OPTIONS


@pytest.mark.parametrize(("timeout_s", "connect_s"), [(0.5, 0.5), (3.0, 3.0), (10.0, 3.0)])
def test_connecting_takes_no_longer_than_one_answer(timeout_s: float, connect_s: float) -> None:
    assert socket_timeouts(timeout_s) == {
        "socket_timeout": timeout_s,
        "socket_connect_timeout": connect_s,
    }
