"""Text of ``docs/ledger-keys.md``, from the docstrings of the classes that name the keys."""

import inspect
import re
from collections.abc import Iterator
from functools import cached_property
from typing import Final, NamedTuple, TypeAlias

from labelyard.ledger.keys import CacheKeys, LedgerKeys
from labelyard.settings import PREFIX
from labelyard.tenant_lines.keys import BrokerKeys
from labelyard_worker.settings import WorkerSettings

Keys: TypeAlias = LedgerKeys | CacheKeys | BrokerKeys

PARTS: Final = ("Type", "Holds", "Writer", "TTL")
HEAD: Final = """\
# Keys in Redis

<!-- Generated from producer/labelyard/ledger/keys.py and producer/labelyard/tenant_lines/keys.py: change their docstrings, then run make docs. -->

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
    BrokerKeys: """\
## The broker: `LABELYARD_BROKER_URL`

With Redis as the broker. `{queue}` is `interactive`, `bulk`, `quarantine` or `control`. The lists and what is unacknowledged are named as kombu names them, so that stock Celery producers and tools find them.
""",
}


class KeyEntry(NamedTuple):
    """One key as its docstring describes it.

    Attributes:
        name: Its attribute or method.
        pattern: Its string, with ``{…}`` for what varies.
        summary: First line of the docstring.
        parts: ``Type``, ``Holds``, ``Writer`` and ``TTL``.
    """

    name: str
    pattern: str
    summary: str
    parts: dict[str, str]


def entries(cls: type[Keys]) -> Iterator[KeyEntry]:
    """Read the keys of a class from its docstrings, in their order."""
    keys = cls("{namespace}")
    for name, member in members(cls):
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


def members(cls: type) -> Iterator[tuple[str, object]]:
    """Yield the members of a class by name: those of the classes that it joins come first."""
    for joined in cls.__bases__:
        yield from members(joined)
    yield from vars(cls).items()


def parts_of(text: str) -> dict[str, str]:
    """Read the named parts of a key's docstring."""
    found = re.findall(r"^(\w+): (.+(?:\n {4}.+)*)", text, flags=re.MULTILINE)
    return {name: with_variables(" ".join(meaning.split())) for name, meaning in found}


def key_page() -> str:
    """Write docs/ledger-keys.md."""
    return "\n".join([HEAD, *map(section, SECTIONS)])


def section(cls: type[Keys]) -> str:
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
