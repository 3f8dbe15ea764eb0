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
    """List what a fresh process has imported after *statement*."""
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


def test_the_package_names_what_it_does_not_have() -> None:
    import labelyard

    with pytest.raises(AttributeError, match="has no attribute 'Clint'"):
        labelyard.Clint  # noqa: B018 - the access is the test
