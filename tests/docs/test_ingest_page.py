"""The page about ``labelyard ingest``: its rules are valid, its output is real, its tables whole."""

import re
import tomllib
from pathlib import Path

import pytest
from docs.command_page import rerun

from labelyard.ingest.notifications import read_notification
from labelyard.ingest.rule_file import parse_rules
from labelyard.ingest.rules import IngestLimits, IngestRule, IngestRules
from labelyard.ingest.templates import PLACEHOLDERS
from tests.support.shell import fresh_environment

PAGE = (Path(__file__).parents[2] / "docs/ingest.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)


RULE_FILES = [block for block in blocks("toml") if "rules" in tomllib.loads(block)]


@pytest.mark.parametrize("text", RULE_FILES)
def test_the_rule_files_have_no_fault(text: str) -> None:
    assert parse_rules(text, name="rules.toml").rules


def test_the_output_of_check_is_what_it_prints(tmp_path: Path) -> None:
    [event], [console] = blocks("json"), blocks("console")
    read_notification(event.encode())
    files = f"cat > rules.toml <<'X'\n{RULE_FILES[0]}X\ncat > event.json <<'X'\n{event}X\n"
    (tmp_path / "files.sh").write_text(files)
    page = f"<!-- run: . {tmp_path}/files.sh -->\n```console\n{console}```"

    written = rerun(page, fresh_environment(tmp_path))

    assert written.partition("-->\n")[2] == f"```console\n{console}```"


def test_the_tables_have_every_field_and_placeholder() -> None:
    tops = [name for name in IngestRules.model_fields if name not in {"limits", "rules"}]
    limits = [f"limits.{name}" for name in IngestLimits.model_fields]
    in_tables = set(re.findall(r"`([\w.]+)`", "\n".join(re.findall(r"^\|.*", PAGE, re.MULTILINE))))

    assert {*tops, *limits, *IngestRule.model_fields} <= in_tables
    assert all(f"`{{{name}}}`" in PAGE for name in PLACEHOLDERS)
