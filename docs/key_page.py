"""Text of ``docs/ledger-keys.md``, from the docstrings of ``labelyard/ledger/keys.py``."""

import inspect
import re
from collections.abc import Iterator
from functools import cached_property
from typing import Final, NamedTuple

from labelyard.ledger.keys import CacheKeys, LedgerKeys
from labelyard.settings import PREFIX
from labelyard_worker.settings import WorkerSettings

PARTS: Final = ("Type", "Holds", "Writer", "TTL")
HEAD: Final = """\
# Keys in Redis

<!-- Generated from producer/labelyard/ledger/keys.py: change its docstrings, then run make docs. -->

`{namespace}` is the value of `LABELYARD_NAMESPACE`. Times are seconds since the epoch, by Redis' own clock.
"""
SECTIONS: Final = {
    LedgerKeys: """\
## The ledger: `LABELYARD_LEDGER_URL`

Reading a key is harmless; only labelyard may write one. `labelyard status`, `labelyard why`, `labelyard dead` and `labelyard set-aside` read them for a person.
""",
    CacheKeys: """\
## Cached embeddings: `LABELYARD_EMBEDDINGS_URL`

This Redis may evict any of them: what is missing is computed again.
""",
}
FOOT: Final = """\
## The broker: `LABELYARD_BROKER_URL`

With Redis as the broker, these keys belong to kombu, which gives them no TTL: one list for each queue, `{namespace}.interactive`, `{namespace}.bulk`, `{namespace}.quarantine` and `{namespace}.control`; the hash `{namespace}.unacked` and the sorted set `{namespace}.unacked_index` of delivered messages that are not acknowledged; the lock `{namespace}.unacked_mutex`.
"""


class KeyEntry(NamedTuple):
    """One key as its docstring describes it.

    Attributes:
        name: Its attribute or method in ``keys.py``.
        pattern: Its string, with ``{…}`` for what varies.
        summary: First line of the docstring.
        parts: ``Type``, ``Holds``, ``Writer`` and ``TTL``.
    """

    name: str
    pattern: str
    summary: str
    parts: dict[str, str]


def entries(cls: type[LedgerKeys] | type[CacheKeys]) -> Iterator[KeyEntry]:
    """Read the keys of a class from its docstrings, in their order."""
    keys = cls("{namespace}")
    for name, member in vars(cls).items():
        function = member.func if isinstance(member, cached_property) else member
        if name.startswith("_") or not inspect.isfunction(function):
            continue
        text = inspect.cleandoc(function.__doc__ or "")
        if "\nType:" not in text:
            continue
        arguments = list(inspect.signature(function).parameters)[1:]
        value = getattr(keys, name)
        pattern = value(*(f"{{{argument}}}" for argument in arguments)) if arguments else value
        yield KeyEntry(name, pattern, text.partition("\n")[0], parts_of(text))


def parts_of(text: str) -> dict[str, str]:
    """Read the named parts of a key's docstring."""
    found = re.findall(r"^(\w+): (.+(?:\n {4}.+)*)", text, flags=re.MULTILINE)
    return {name: with_variables(" ".join(meaning.split())) for name, meaning in found}


def key_page() -> str:
    """Write docs/ledger-keys.md."""
    return "\n".join([HEAD, *map(section, SECTIONS), FOOT])


def section(cls: type[LedgerKeys] | type[CacheKeys]) -> str:
    """Write the table of one class's keys."""
    lines = [SECTIONS[cls], "| key | meaning | type | content | written by | TTL |"]
    lines.append("|---|---|---|---|---|---|")
    for entry in entries(cls):
        cells = (f"`{entry.pattern}`", entry.summary, *(entry.parts[name] for name in PARTS))
        lines.append("| " + " | ".join(cell.rstrip(".") for cell in cells) + " |")
    return "\n".join(lines) + "\n"


def with_variables(text: str) -> str:
    """Write the settings that a docstring names as variables."""
    return re.sub(
        r"`(\w+)`",
        lambda match: (
            f"`{PREFIX}{match[1].upper()}`" if match[1] in WorkerSettings.model_fields else match[0]
        ),
        text,
    )
