"""Commands on the page ``docs/commands.md`` are taken by the program, and their tables are its own."""

import os
import re
import shlex
from collections.abc import Iterator
from typing import Any

import pytest
import typer
from docs.command_page import BLOCK, PAGE, rerun

from labelyard.cli import app, dead, fleet, label_sets, listing, service_page, set_aside, top_page
from labelyard.cli.tables import Column

#: Commands about the whole service; the page shows each.
SHOWN = {
    *("status", "workers", "jobs", "why", "cancel", "forget", "top"),
    *("label-sets register", "label-sets list", "label-sets delete"),
}
TABLES = (
    *(dead.COLUMNS, fleet.COLUMNS, label_sets.COLUMNS, listing.COLUMNS, set_aside.COLUMNS),
    *(service_page.WORKER_COLUMNS, service_page.QUEUE_COLUMNS),
    *(top_page.WORKER_COLUMNS, top_page.TENANT_COLUMNS),
)


def blocks() -> Iterator[list[str]]:
    for block in BLOCK.finditer(PAGE.read_text(encoding="utf-8")):
        if block[1]:
            yield block[1].splitlines()


def calls() -> list[list[str]]:
    """Return the arguments of each call of ``labelyard`` that the page shows."""
    found = []
    for line in (line for block in blocks() for line in block if line.startswith("$ ")):
        for call in re.findall(r"\blabelyard ([^|)]+)", line):
            found.append(shlex.split(call))
    return found


def parse(args: list[str]) -> str:
    """Parse a call as the program does, without running it; return the command's name."""
    command: Any = typer.main.get_command(app)
    names: list[str] = []
    while hasattr(command, "commands"):
        names.append(args[0])
        command, args = command.commands[args[0]], args[1:]
    command.make_context(names[-1], list(args))
    return " ".join(names)


def test_every_command_about_the_service_is_shown_with_options_that_exist() -> None:
    assert {parse(args) for args in calls()} >= SHOWN


def test_every_command_on_the_page_has_its_output_but_for_assignments() -> None:
    for block in blocks():
        for line, following in zip(block, [*block[1:], "$ "], strict=True):
            is_silent = re.match(r"\$ (?:\w+=\$\(|printf )", line) is not None
            assert not line.startswith("$ ") or is_silent == following.startswith("$ "), line


def titles_of(line: str) -> list[str]:
    return re.split(r"\s{2,}", line.strip())


def test_the_titles_of_the_tables_are_those_of_the_program() -> None:
    first = {columns[0].title for columns in TABLES}
    known = {column.title for columns in TABLES for column in columns}
    shown = [
        titles_of(line)
        for block in blocks()
        for line in block
        if titles_of(line)[0] in first and len(known & {*titles_of(line)}) > 1
    ]

    assert len(shown) > 8
    assert [titles for titles in shown if not any(is_part(titles, one) for one in TABLES)] == []


def is_part(titles: list[str], columns: tuple[Column, ...]) -> bool:
    """Return whether *titles* are those of *columns*, some of them left out."""
    kept = [column.title for column in columns if column.title in titles]
    needed = {column.title for column in columns if column.rank == 0}
    return kept == titles and needed <= set(titles)


@pytest.mark.parametrize(
    ("page", "expected"),
    [
        ("```console\n$ echo a; echo b\nold\n```", "```console\n$ echo a; echo b\na\nb\n```"),
        ("```console\n$ exit_with() { return $1; }\n$ exit_with 3\n```", "[exit code 3]\n```"),
        ("<!-- run: X=seen -->\n```console\n$ echo $X\n```", "$ echo $X\nseen\n```"),
        ("```console\n$ printf '\\033[1mbold\\033[0m  \\n'\n```", "\nbold\n```"),
        ("```bash\n$ echo a\n```", "```bash\n$ echo a\n```"),
    ],
)
def test_a_page_is_run_again_in_one_shell(page: str, expected: str) -> None:
    assert rerun(page, os.environ).endswith(expected)
