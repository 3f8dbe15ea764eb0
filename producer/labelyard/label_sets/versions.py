"""Versions of label sets and their aliases, as the registry describes them."""

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Final, Literal, TypeGuard

from labelyard.ledger.redis_errors import foreign_content

_ALIAS: Final = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}@[a-z0-9][a-z0-9._-]{0,63}")
_HASH_SPACE: Final = 2**64

#: What moved an alias: ``move`` to another version; ``canary`` and ``end_canary``; ``remove``.
MoveAction = Literal["move", "canary", "end_canary", "remove"]


@dataclass(frozen=True, slots=True)
class LabelSetVersion:
    """One version of a label set.

    Attributes:
        reference: ``name@sha256:…``.
        created_at: When it was registered first, in seconds since the epoch; ``None`` if it was
            registered before versions were described.
        parent: Reference of the version that it was made from, or ``None``.
        author: Who registered it; empty if nobody is named.
        note: Why; empty if there is none.
        metrics: Figures of an evaluation, by name; empty if none were attached.
        aliases: Aliases that name the version now.
    """

    reference: str
    created_at: float | None = None
    parent: str | None = None
    author: str = ""
    note: str = ""
    metrics: Mapping[str, Any] = field(default_factory=dict)
    aliases: tuple[str, ...] = ()

    def fields(self) -> dict[str, Any]:
        """Describe the version for programs."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class Alias:
    """Name for a version of a label set, which can be moved to another version.

    Use it in place of a label set: jobs made of it name the version that it named when it was read.

    Attributes:
        name: ``moderation@prod``: the name of the label set, and the alias.
        reference: Version that it names.
        canary: Version that a share of the jobs is scored with, too; ``None`` if there is none.
        share: That share, 0 to 1.
        moved_at: When it was moved last, in seconds since the epoch.
        moves: How often it was moved.
        author: Who moved it last; empty if nobody is named.
        note: Why; empty if there is none.
    """

    name: str
    reference: str
    canary: str | None = None
    share: float = 0.0
    moved_at: float = 0.0
    moves: int = 0
    author: str = ""
    note: str = ""

    def fields(self) -> dict[str, Any]:
        """Describe the alias for programs."""
        return asdict(self)

    def canary_of(self, job_id: str) -> str | None:
        """Return the version that the job is scored with, too, or ``None``.

        The choice depends on alias, canary and id alone: a job that is submitted again is scored
        by the same versions.
        """
        if self.canary is None:
            return None
        drawn = hashlib.sha256(f"{self.name} {self.canary} {job_id}".encode()).digest()[:8]
        is_chosen = int.from_bytes(drawn, "big") < self.share * _HASH_SPACE
        return self.canary if is_chosen else None


@dataclass(frozen=True, slots=True)
class AliasMove:
    """One move of an alias.

    Attributes:
        at: When, in seconds since the epoch.
        action: ``move``, ``canary``, ``end_canary`` or ``remove``.
        reference: Version that it was moved to, or that became its canary; empty if none.
        before: Version that it named before; empty if it was made.
        share: Share of a canary, or ``None``.
        author: Who moved it; empty if nobody is named.
        note: Why; empty if there is none.
    """

    at: float
    action: MoveAction
    reference: str
    before: str
    share: float | None = None
    author: str = ""
    note: str = ""

    def fields(self) -> dict[str, Any]:
        """Describe the move for programs."""
        return asdict(self)


def is_alias(labels: Any) -> TypeGuard[str]:
    """Return whether *labels* is the name of an alias, ``name@alias``."""
    return isinstance(labels, str) and _ALIAS.fullmatch(labels) is not None


def read_alias(name: str, stored: str) -> Alias:
    """Read an alias as the ledger holds it.

    Raises:
        LedgerUnavailableError: It cannot be read.
    """
    try:
        known = json.loads(stored)
        return Alias(
            name=name,
            reference=str(known["reference"]),
            canary=known.get("canary"),
            share=float(known.get("share", 0.0)),
            moved_at=float(known["moved_at"]),
            moves=int(known["moves"]),
            author=str(known.get("author", "")),
            note=str(known.get("note", "")),
        )
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise foreign_content(name) from error


def read_version(
    reference: str, stored: Mapping[str, str], aliases: tuple[str, ...]
) -> LabelSetVersion:
    """Read a version as the ledger holds it.

    Raises:
        LedgerUnavailableError: It cannot be read.
    """
    try:
        created_at = stored.get("created_at")
        return LabelSetVersion(
            reference=reference,
            created_at=None if created_at is None else float(created_at),
            parent=stored.get("parent"),
            author=stored.get("author", ""),
            note=stored.get("note", ""),
            metrics=json.loads(stored.get("metrics", "{}")),
            aliases=aliases,
        )
    except ValueError as error:
        raise foreign_content(reference) from error


def read_move(entry_id: str, stored: Mapping[str, str]) -> AliasMove:
    """Read a move as the ledger holds it.

    Raises:
        LedgerUnavailableError: It cannot be read.
    """
    try:
        share = stored.get("share")
        action: Any = stored["action"]
        return AliasMove(
            at=int(entry_id.partition("-")[0]) / 1000,
            action=action,
            reference=stored["reference"],
            before=stored["before"],
            share=None if share is None else float(share),
            author=stored["author"],
            note=stored["note"],
        )
    except (ValueError, KeyError) as error:
        raise foreign_content(entry_id) from error
