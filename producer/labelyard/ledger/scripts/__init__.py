"""The Lua scripts of the ledger, each one atomic change; read once when this is imported.

A record's states and the scripts that change them::

    pending ──start──▶ running ──finish──▶ succeeded | partial | failed
       ▲                  │
       └─── release ◀─────┘          pending | running ──finish──▶ cancelled | expired

The first final state stands: each script looks before it writes. The head of each file names its
KEYS, its ARGV and what it returns; ``commands.py`` builds the arguments. Two kinds of comment in
a file are replaced when it is read: ``-- @include FILE`` by that file, and ``-- @constants NAMES``
by the values of these names in ``limits.py``.
"""

import json
import re
from collections.abc import Mapping
from importlib.resources import files
from typing import Final, Literal

from labelyard.ledger import limits

ScriptName = Literal[
    "open",
    "start",
    "release",
    "finish",
    "replay",
    "purge",
    "forget",
    "sent",
    "crowd",
    "take_deliveries",
    "hold_deliveries",
    "settle_deliveries",
    "replay_deliveries",
    "purge_deliveries",
    "lead",
    "take_due",
    "list_overdue",
    "take_passed",
    "add_set_aside",
    "remove_set_aside",
    "drop_lost",
    "add_missed",
    "join_events",
    "read_events",
    "hold_events",
    "leave_events",
    "ack_gap",
    "delete_event_group",
    "trim_events",
    "claim_object_event",
    "settle_object_event",
    "erase_events",
    "open_run",
    "plan_shards",
    "open_shard",
    "reopen_shards",
    "begin_shard",
    "finish_shard",
    "fail_shard",
    "split_shard",
    "steer_run",
    "finish_run",
    "register_label_set",
    "delete_label_set",
    "move_alias",
    "add_counts",
]
_INCLUDE: Final = re.compile(r"^-- @include (\w+\.lua)$", re.MULTILINE)
_CONSTANTS: Final = re.compile(r"^-- @constants (.+)$", re.MULTILINE)


def source_of(file_name: str) -> str:
    """Return the text of a script file as it is written."""
    return files(__name__).joinpath(file_name).read_text(encoding="utf-8")


def script_text(file_name: str) -> str:
    """Return the text of a script as Redis runs it, with its prelude and its constants."""
    text = _INCLUDE.sub(lambda match: script_text(match[1]), source_of(file_name))
    return _CONSTANTS.sub(lambda match: _declare(match[1]), text)


def _declare(names: str) -> str:
    values = ", ".join(json.dumps(getattr(limits, name.strip())) for name in names.split(","))
    return f"local {names} = {values}"


def _read_all() -> dict[str, str]:
    names = sorted(entry.name for entry in files(__name__).iterdir())
    return {
        name.removesuffix(".lua"): script_text(name)
        for name in names
        if name.endswith(".lua") and not name.startswith("_")
    }


#: Text of each script as Redis runs it, by the name of its file.
SCRIPTS: Final[Mapping[str, str]] = _read_all()
