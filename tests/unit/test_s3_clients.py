"""S3 clients are opened in one file of each package, so that all have the same settings."""

import ast
from pathlib import Path

ROOT = Path(__file__).parents[2]
PLACES = {
    "producer/labelyard/s3_client.py",
    "worker/labelyard_worker/intake/sources/s3_clients.py",
    # A tutorial's worker, which the benchmark compares with, opens its own.
    "benchmarks/systems/pipeline.py",
    # Fills a server of the benchmark's own with 100,000 objects.
    "benchmarks/runs/rig.py",
}
FOLDERS = ("producer", "worker", "benchmarks", "tests/support", "tests/chaos")
MAKERS = {"client", "create_client", "resource"}


def opens_client(node: ast.AST) -> bool:
    """Return whether a call is ``S3Store(…)``, or ``….client("s3", …)`` on anything."""
    if not isinstance(node, ast.Call):
        return False
    name = getattr(node.func, "attr", getattr(node.func, "id", ""))
    is_s3 = any(isinstance(one, ast.Constant) and one.value == "s3" for one in node.args)
    return name == "S3Store" or (name in MAKERS and is_s3)


def test_s3_clients_are_opened_in_one_file_of_each_package() -> None:
    paths = [path for folder in FOLDERS for path in (ROOT / folder).rglob("*.py")]

    places = {
        path.relative_to(ROOT).as_posix()
        for path in paths
        if any(map(opens_client, ast.walk(ast.parse(path.read_text("utf-8")))))
    }

    assert places == PLACES
