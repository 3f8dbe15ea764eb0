"""The Lua scripts of the tenants' lines, each one atomic; read once when this is imported.

The head of each file names its KEYS, its ARGV and what it returns. The comment
``-- @include FILE`` in a file is replaced by that file when it is read.
"""

import re
from collections.abc import Mapping
from importlib.resources import files
from typing import Final, Literal

ScriptName = Literal[
    "claim", "restore", "lengths", "oldest", "search", "purge", "merge", "write_weights"
]
_INCLUDE: Final = re.compile(r"^-- @include (\w+\.lua)$", re.MULTILINE)


def source_of(file_name: str) -> str:
    """Return the text of a script file as it is written."""
    return files(__name__).joinpath(file_name).read_text(encoding="utf-8")


def script_text(file_name: str) -> str:
    """Return the text of a script as Redis runs it, with the files that it includes."""
    return _INCLUDE.sub(lambda match: source_of(match[1]), source_of(file_name))


def _read_all() -> dict[str, str]:
    names = sorted(entry.name for entry in files(__name__).iterdir())
    return {
        name.removesuffix(".lua"): script_text(name)
        for name in names
        if name.endswith(".lua") and not name.startswith("_")
    }


#: Text of each script as Redis runs it, by the name of its file.
SCRIPTS: Final[Mapping[str, str]] = _read_all()
