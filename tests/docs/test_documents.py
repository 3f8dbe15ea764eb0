"""Files, folders, links, variables, commands, events and make targets in the documents exist."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

import pytest
import typer

from labelyard.cli import app as producer_app
from labelyard.diagnosis import Situation
from labelyard.ledger.records import FINAL_STATES, State
from labelyard.settings import PREFIX, ClientSettings, unknown_variables
from labelyard_worker.cli import app as worker_app
from labelyard_worker.settings import REPLACED_VARIABLES, WorkerSettings

ROOT = Path(__file__).parents[2]
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("benchmarks/**/*.md")])
CODE = [ROOT / "producer/labelyard", ROOT / "worker/labelyard_worker"]
# A page may name a file as it is known in its package, for example broker/claim.py.
BASES = [ROOT, *CODE]
PREFIXES_IN_BUCKETS = {
    *("bucket/prefix/", "photos/labels/", "uploads/", "incoming/", "labelyard-uploads/incoming/"),
    *("_plan/", "retry-1/", "retry-2/", "label-sets/", "explanations/"),
}
every_page = pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))


def text_of(page: Path) -> str:
    return page.read_text(encoding="utf-8")


def code_in(page: Path) -> str:
    """Return the text of code blocks and of backquotes."""
    text = text_of(page)
    blocks = re.findall(r"^```\w*\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    prose = re.sub(r"^```\w*\n.*?^```", "", text, flags=re.MULTILINE | re.DOTALL)
    return "\n".join([*blocks, *re.findall(r"`([^`\n]+)`", prose)])


def python_blocks() -> Iterator[Any]:
    for page in PAGES:
        for number, block in enumerate(
            re.findall(r"^```python\n(.*?)^```", text_of(page), re.MULTILINE | re.DOTALL)
        ):
            yield pytest.param(block, id=f"{page.name}-{number}")


def commands_of(app: typer.Typer) -> set[str]:
    """Name the commands, and those of command groups as ``group command``."""
    command = typer.main.get_command(app)
    found = set()
    for name, one in getattr(command, "commands", {}).items():
        found |= {name} | {f"{name} {inner}" for inner in getattr(one, "commands", {})}
    return found


@every_page
def test_links_lead_somewhere(page: Path) -> None:
    targets = re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", text_of(page))

    assert [target for target in targets if not (page.parent / target).exists()] == []


def anchors_of(page: Path) -> set[str]:
    """Return the anchors of a page's headings, as GitHub makes them."""
    prose = re.sub(r"^```\w*\n.*?^```", "", text_of(page), flags=re.MULTILINE | re.DOTALL)
    titles = re.findall(r"^#+ (.+)$", prose, re.MULTILINE)
    return {re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-") for title in titles}


@every_page
def test_links_to_a_heading_find_it(page: Path) -> None:
    targets = re.findall(r"\]\(([^)#:]*)#([^)]+)\)", text_of(page))

    missing = [
        f"{path}#{anchor}"
        for path, anchor in targets
        if anchor not in anchors_of(page.parent / path if path else page)
    ]
    assert missing == []


def test_every_page_is_in_the_index() -> None:
    docs = ROOT / "docs"
    pages = {
        path.relative_to(docs).as_posix()
        for pattern in ("**/*.md", "*.json")
        for path in docs.glob(pattern)
    }

    linked = set(re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", text_of(docs / "README.md")))

    assert pages - linked == {"README.md"}


@every_page
def test_source_files_that_are_named_exist(page: Path) -> None:
    named = set(re.findall(r"(?<![\w/.-])[\w./-]*\w\.py\b", code_in(page)))

    assert {name for name in named if not any((base / name).exists() for base in BASES)} == set()


@every_page
def test_folders_that_are_named_exist(page: Path) -> None:
    named = set(re.findall(r"(?<![\w/.:*~-])((?:[\w.-]+/)+)(?![\w*.<{…])", code_in(page)))

    missing = {name for name in named if not any((base / name).is_dir() for base in BASES)}
    assert missing <= PREFIXES_IN_BUCKETS


@every_page
def test_variables_that_are_named_are_settings(page: Path) -> None:
    named = dict.fromkeys(re.findall(rf"\b{PREFIX}[A-Z0-9_]*[A-Z0-9]\b", text_of(page)), "")

    unknown = unknown_variables(named, [WorkerSettings, ClientSettings])

    if page.name == "CHANGELOG.md":  # it also names variables that are gone
        unknown -= REPLACED_VARIABLES.keys()
    assert unknown == set()


@every_page
@pytest.mark.parametrize(
    ("program", "app"), [("labelyard", producer_app), ("labelyard-worker", worker_app)]
)
def test_commands_that_are_shown_exist(page: Path, program: str, app: typer.Typer) -> None:
    pattern = rf"(?:^|[\s(/]){program} (?!import )([a-z][a-z-]*)(?: ([a-z][a-z-]*))?"
    shown = re.findall(pattern, code_in(page), re.MULTILINE)
    known = commands_of(app)
    groups = {name.partition(" ")[0] for name in known if " " in name}

    for name, inner in shown:
        assert name in known
        assert name not in groups or not inner or f"{name} {inner}" in known


@every_page
def test_make_targets_that_are_named_exist(page: Path) -> None:
    named = set(re.findall(r"\bmake (?:PYTHON=\S+ )?([a-z-]+)", code_in(page)))
    targets = set(re.findall(r"^([a-z-]+):", text_of(ROOT / "Makefile"), re.MULTILINE))

    assert named <= targets


def stuck_section() -> str:
    return (
        text_of(ROOT / "docs/operations.md")
        .partition("\n## A job is stuck\n")[2]
        .partition("\n## ")[0]
    )


def test_the_table_of_stuck_jobs_has_every_situation() -> None:
    rows = re.findall(r"^\| `([a-z_]+)` \|", stuck_section(), re.MULTILINE)

    assert sorted(rows) == sorted(Situation)


def test_the_diagram_of_states_has_the_states_of_the_code() -> None:
    arrows = re.findall(r"^    (\S+) --> ([a-z]+|\[\*\])", stuck_section(), re.MULTILINE)

    states = {state for arrow in arrows for state in arrow} - {"[*]"}
    final = {before for before, after in arrows if after == "[*]"}
    assert states == set(get_args(State))
    assert final == FINAL_STATES


def test_events_in_the_table_of_logs_are_logged() -> None:
    section = text_of(ROOT / "docs/operations.md").partition("\n## Logs\n")[2].partition("\n## ")[0]
    events = re.findall(r"`([a-z]+(?:_[a-z]+)+)`", section)
    sources = "".join(path.read_text(encoding="utf-8") for path in CODE[1].rglob("*.py"))

    assert events
    assert [event for event in events if f'"{event}"' not in sources] == []


@pytest.mark.parametrize("block", list(python_blocks()))
def test_python_in_the_documents_runs_as_far_as_it_needs_no_server(block: str) -> None:
    code = compile(block, "<document>", "exec")

    if "Client()" not in block and ".send_task(" not in block:
        names: dict[str, object] = {}
        exec(code, names)
        assert set(code.co_names) & set(names)  # it imports or defines what it shows
