"""A producer imports little: its backend must start fast, without what only workers need."""

import json
import subprocess
import sys

import pytest

HEAVY = (
    "torch",
    "PIL",
    "boto3",
    "numpy",
    "transformers",
    "typer",
    "rich",
    "celery",
    "kombu",
    "amqp",
)
LIST_MODULES = "import json, sys; print(json.dumps(sorted(sys.modules)))"


def modules_after(statement: str) -> set[str]:
    """List the modules that a fresh process has imported after *statement*."""
    listed = subprocess.run(
        [sys.executable, "-c", f"{statement}; {LIST_MODULES}"],
        check=True,
        capture_output=True,
        text=True,
        timeout=60,
    )
    return set(json.loads(listed.stdout))


@pytest.mark.parametrize(
    "statement",
    [
        "import labelyard",
        "import labelyard; [getattr(labelyard, name) for name in labelyard.__all__]",
        "import labelyard.testing",
        "import labelyard; labelyard.Client().close()",
        "import labelyard; labelyard.AsyncClient()",
    ],
)
def test_producers_load_none_of_the_heavy_libraries(statement: str) -> None:
    assert not modules_after(statement) & set(HEAVY)


def test_importing_the_package_alone_loads_no_library_at_all() -> None:
    assert not modules_after("import labelyard") & {"pydantic", "redis", "kombu"}


@pytest.mark.parametrize("library", ["torch", "PIL", "boto3"])
def test_the_command_line_loads_none_of_them_before_it_must(library: str) -> None:
    assert library not in modules_after("import labelyard.cli")


def test_celery_s_clients_load_the_application_without_the_model_s_libraries() -> None:
    """``inspect``, ``status``, ``events`` and flower build it, too, and wait for its imports."""
    modules = modules_after("import labelyard_worker; labelyard_worker.app.tasks")

    assert "celery" in modules
    assert not modules & {"torch", "transformers", "numpy", "PIL", "boto3", "obstore"}


def test_the_package_names_what_it_does_not_have() -> None:
    import labelyard

    with pytest.raises(AttributeError, match="has no attribute 'Clint'"):
        labelyard.Clint  # noqa: B018 - the access is the test


BARE = """
import sys
from importlib.abc import MetaPathFinder

class Missing(MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {missing}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)

sys.meta_path.insert(0, Missing())
"""


def run_without(missing: set[str], program: str) -> "subprocess.CompletedProcess[str]":
    """Run *program* as if the libraries in *missing* were not installed."""
    return subprocess.run(
        [sys.executable, "-c", BARE.format(missing=missing) + program],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@pytest.mark.parametrize("missing", ["typer", "rich"])
def test_the_command_without_its_extra_says_what_to_install(missing: str) -> None:
    ended = run_without({missing}, "from labelyard.__main__ import main; main()")

    assert ended.returncode == 2
    assert ended.stderr.splitlines() == [
        "The command labelyard needs libraries that are not installed: pip install 'labelyard[cli]'"
    ]


INTERRUPTED_IMPORT = """
import sys
from importlib.abc import MetaPathFinder

class Interrupting(MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name == "typer":
            raise KeyboardInterrupt

sys.meta_path.insert(0, Interrupting())
"""


@pytest.mark.parametrize("package", ["labelyard", "labelyard_worker"])
def test_ctrl_c_while_the_command_loads_is_no_traceback(package: str) -> None:
    program = f"{INTERRUPTED_IMPORT}\nfrom {package}.__main__ import main; main()"

    ended = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False
    )

    assert (ended.returncode, ended.stderr) == (130, "")


def test_the_worker_without_its_extra_says_what_to_install() -> None:
    ended = run_without({"typer"}, "from labelyard_worker.__main__ import main; main()")

    assert ended.returncode == 2
    assert "pip install 'labelyard[worker]'" in ended.stderr
    assert "Traceback" not in ended.stderr


def test_a_worker_without_the_model_s_libraries_ends_with_what_to_install() -> None:
    program = """
from labelyard_worker.runtime import Runtime
from labelyard_worker.settings import WorkerSettings
Runtime(WorkerSettings(health_port=-1), load=lambda _: None).open()
"""
    ended = run_without({"torch"}, program)

    assert ended.returncode == 1
    assert "labelyard-worker cannot start: No module named 'torch'" in ended.stderr
    assert "pip install 'labelyard[worker]'" in ended.stderr
    assert "Traceback" not in ended.stderr


@pytest.mark.parametrize(
    ("missing", "variables", "advice"),
    [
        ("kombu", {"LABELYARD_BROKER_URL": "amqp://127.0.0.1//"}, "labelyard[rabbitmq]"),
        ("amqp", {"LABELYARD_BROKER_URL": "amqps://127.0.0.1//"}, "labelyard[rabbitmq]"),
    ],
)
def test_rabbitmq_without_its_extra_is_a_setting_that_is_refused(
    missing: str, variables: dict[str, str], advice: str
) -> None:
    program = f"""
import os
from labelyard import Client
from labelyard.errors import ServiceConfigError
os.environ.update({variables})
try:
    Client()
except ServiceConfigError as error:
    print(error)
"""
    ended = run_without({missing}, program)

    assert advice in ended.stdout


def test_uploads_without_boto3_say_what_to_install() -> None:
    program = """
import pathlib
from labelyard.errors import ServiceConfigError
from labelyard.settings import ClientSettings
from labelyard.uploads import upload_files
try:
    upload_files([pathlib.Path("a.jpg")], ClientSettings())
except ServiceConfigError as error:
    print(error)
"""
    ended = run_without({"boto3"}, program)

    assert "uploads need boto3: pip install 'labelyard[cli]'" in ended.stdout


def test_a_client_for_redis_works_without_the_workers_libraries() -> None:
    ended = run_without(
        {"kombu", "celery", "amqp", "vine", "packaging", "boto3", "typer", "rich"},
        "from labelyard import Client; Client().close(); print('closed')",
    )

    assert ended.stdout.strip() == "closed"
