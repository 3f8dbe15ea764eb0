"""Each script of the tenants' lines describes its keys and arguments, and each key has its page."""

import re
from typing import get_args

import pytest
from docs.key_page import entries

from labelyard.tenant_lines.keys import BrokerKeys
from labelyard.tenant_lines.scripts import SCRIPTS, ScriptName, source_of


def test_every_script_has_a_name() -> None:
    assert set(SCRIPTS) == set(get_args(ScriptName))


@pytest.mark.parametrize("name", sorted(SCRIPTS))
def test_the_head_of_a_script_names_what_it_uses(name: str) -> None:
    text = source_of(f"{name}.lua")

    for table in ("KEYS", "ARGV"):
        described = set(re.findall(rf"^-- {table}\[(\d+)(?:\.\.)?\]  \w", text, flags=re.MULTILINE))
        code = re.sub(r"--.*", "", text)
        used = set(re.findall(rf"{table}\[(\d+)\]", code))
        assert used <= described, table
        assert bool(described) == (table in code), table
    assert re.search(r"^-- Returns ", text, flags=re.MULTILINE)


def test_every_key_of_the_broker_is_described_in_full() -> None:
    described = list(entries(BrokerKeys))

    assert all(list(entry.parts) == ["Type", "Holds", "Writer", "TTL"] for entry in described)
    public = {name for name in vars(BrokerKeys) if not name.startswith("_")}
    assert public - {entry.name for entry in described} == {"lists"}
