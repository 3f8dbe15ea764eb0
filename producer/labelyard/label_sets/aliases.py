"""Registry of the versions of label sets and of the aliases that name them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import redis

from labelyard.arguments import counted, text
from labelyard.errors import AliasConflictError, InvalidMessageError, UnknownLabelSetError
from labelyard.label_sets.arguments import check_alias, check_move, checked_notes, metrics_json
from labelyard.label_sets.versions import (
    Alias,
    AliasMove,
    LabelSetVersion,
    is_alias,
    read_alias,
    read_move,
    read_version,
)
from labelyard.ledger.commands import Command
from labelyard.ledger.keys import LedgerKeys
from labelyard.ledger.label_set_commands import AliasAction, LabelSetCommands, run_command
from labelyard.ledger.limits import MAX_ALIASES
from labelyard.ledger.redis_errors import ledger_errors_as_ours

LabelsOrAlias = TypeVar("LabelsOrAlias")


@dataclass(frozen=True, slots=True)
class AliasChange:
    """Change of an alias, checked.

    Attributes:
        action: ``move``, ``canary``, ``end_canary`` or ``remove``.
        alias: Its name.
        reference: Version to name, or to try as a canary; empty if there is none.
        share: Share of a canary, or ``None``.
        expect: Version that it must name now; ``-`` if it must not exist, empty for any.
        author: Who changes it; empty if nobody is named.
        note: Why; empty if there is none.
    """

    action: AliasAction
    alias: str
    reference: str = ""
    share: float | None = None
    expect: str = ""
    author: str = ""
    note: str = ""


class AliasRegistry:
    """Versions of label sets, and aliases that name them; part of ``client.label_sets``.

    An alias such as ``moderation@prod`` names one version at a time and moves to another in one
    step. Clients put the version into a job when they make it.
    """

    def __init__(self, connection: "redis.Redis", *, namespace: str) -> None:
        self._redis = connection
        self._keys = LedgerKeys(namespace)
        self._commands = LabelSetCommands(self._keys)

    def resolve(self, labels: str) -> str:
        """Return the reference of the version that *labels* names.

        Args:
            labels: A reference, which is returned as it is; an alias; or the name of a label
                set, for its newest version.

        Raises:
            UnknownLabelSetError: There is no such alias or name.
        """
        if "@sha256:" in text(labels, name="labels"):
            return labels
        if is_alias(labels):
            return self.alias(labels).reference
        newest = [one for one in self._references() if one.partition("@")[0] == labels]
        if not newest:
            raise UnknownLabelSetError(labels)
        return newest[-1]

    def alias(self, alias: str) -> Alias:
        """Read the alias *alias*, to put it in place of the labels of jobs.

        Raises:
            UnknownLabelSetError: There is no such alias.
        """
        check_alias(alias)
        if (found := self._find_alias(alias)) is None:
            raise UnknownLabelSetError(f"{alias}: there is no such alias")
        return found

    def aliases(self) -> list[Alias]:
        """List all aliases, in alphabetical order."""
        with ledger_errors_as_ours():
            stored: Any = self._redis.hgetall(self._keys.label_set_aliases)
        named = {as_text(name): as_text(content) for name, content in stored.items()}
        return [read_alias(name, named[name]) for name in sorted(named)]

    def promote(
        self,
        reference: str,
        alias: str,
        *,
        share: float | None = None,
        expect: str | None = None,
        author: str = "",
        note: str = "",
    ) -> Alias:
        """Move *alias* to a version of its label set, in one step; it is made if there is none.

        Args:
            reference: The version, as :meth:`resolve` takes it.
            alias: ``name@alias`` with the name of the label set. It may look like no digest.
            share: Instead of moving the alias, have this share of its jobs, up to 1, scored with
                the version, too, as a canary: answers stay those of the alias' version. A move
                ends the canary.
            expect: Reference that the alias must name now; ``""`` if it must not exist.
            author: Who moves it, for the record of moves.
            note: Why.

        Raises:
            UnknownLabelSetError: The version is not registered; or there is no such alias to
                have a canary.
            AliasConflictError: The alias names another version than expected.
            InvalidMessageError: The version is one of another label set, or a value is wrong.
        """
        version = self.resolve(reference)
        share = check_move(version, alias, share=share)
        wanted = "" if expect is None else text(expect, name="expect") or "-"
        action: AliasAction = "move" if share is None else "canary"
        notes = checked_notes(author, note)
        return self._change(
            AliasChange(action, alias, reference=version, share=share, expect=wanted, **notes)
        )

    def end_canary(self, alias: str, *, author: str = "", note: str = "") -> Alias:
        """End the canary of *alias*, if it has one.

        Raises:
            UnknownLabelSetError: There is no such alias.
        """
        check_alias(alias)
        return self._change(AliasChange("end_canary", alias, **checked_notes(author, note)))

    def remove_alias(self, alias: str, *, author: str = "", note: str = "") -> None:
        """Remove *alias*; the record of its moves is kept.

        Raises:
            UnknownLabelSetError: There is no such alias.
        """
        check_alias(alias)
        self._change(AliasChange("remove", alias, **checked_notes(author, note)))

    def moves(self, alias: str, *, limit: int = 100) -> list[AliasMove]:
        """List the moves of *alias*, the newest first; about 1,000 are kept."""
        check_alias(alias)
        with ledger_errors_as_ours():
            found: Any = self._redis.xrevrange(
                self._keys.label_set_moves(alias), count=counted(limit)
            )
        return [read_move(as_text(entry), as_texts(fields)) for entry, fields in found]

    def log(self, name: str) -> list[LabelSetVersion]:
        """List the versions of the label set *name*, the newest first.

        Raises:
            UnknownLabelSetError: There is no such label set.
        """
        text(name, name="name")
        named = [one for one in self._references() if one.partition("@")[0] == name]
        if not named:
            raise UnknownLabelSetError(name)
        return self._versions(named[::-1])

    def attach(self, reference: str, metrics: Mapping[str, Any]) -> LabelSetVersion:
        """Attach figures of an evaluation to a version, in place of earlier ones.

        Args:
            reference: The version, as :meth:`resolve` takes it.
            metrics: Up to 64 kB as JSON, such as ``evaluation.summary()``.

        Returns:
            The version.

        Raises:
            UnknownLabelSetError: The version is not registered.
            InvalidMessageError: *metrics* cannot be written as JSON, or is too large.
        """
        written = metrics_json(metrics)
        version = self.resolve(reference)
        if version not in self._references():
            raise UnknownLabelSetError(version)
        self._write_metrics(version, written)
        return self._versions([version])[0]

    def _find_alias(self, alias: str) -> Alias | None:
        with ledger_errors_as_ours():
            stored: Any = self._redis.hget(self._keys.label_set_aliases, alias)
        return None if stored is None else read_alias(alias, as_text(stored))

    def _write_metrics(self, version: str, metrics: str) -> None:
        with ledger_errors_as_ours():
            self._redis.hset(self._keys.label_set_version(version), "metrics", metrics)

    def _versions(self, references: Sequence[str]) -> list[LabelSetVersion]:
        aliases = self.aliases()
        with ledger_errors_as_ours(), self._redis.pipeline(transaction=False) as pipeline:
            for reference in references:
                pipeline.hgetall(self._keys.label_set_version(reference))
            found: list[Any] = pipeline.execute()
        return [
            read_version(
                reference,
                as_texts(stored),
                tuple(alias.name for alias in aliases if alias.reference == reference),
            )
            for reference, stored in zip(references, found, strict=True)
        ]

    def _references(self) -> list[str]:
        with ledger_errors_as_ours():
            stored: Any = self._redis.zrange(self._keys.label_set_names, 0, -1)
        return [as_text(item) for item in stored]

    def _run(self, command: Command) -> list[str]:
        with ledger_errors_as_ours():
            answer = run_command(self._redis, command)
        return [as_text(part) for part in answer]

    def _change(self, change: AliasChange) -> Alias:
        """Run the script that moves an alias; return it as it is now, or was if it is removed."""
        verdict, *rest = self._run(
            self._commands.move_alias(
                change.action,
                change.alias,
                reference=change.reference,
                share=change.share,
                expect=change.expect,
                author=change.author,
                note=change.note,
            )
        )
        if verdict != "moved":
            raise refusal_of_change(verdict, change, current=rest[0] if rest else "")
        stored, before = rest
        return read_alias(change.alias, stored) if stored else Alias(change.alias, before)


def read_alias_of(registry: AliasRegistry, labels: LabelsOrAlias) -> LabelsOrAlias | Alias:
    """Return the alias that *labels* names; anything else as it is.

    Raises:
        UnknownLabelSetError: There is no such alias.
    """
    return registry.alias(labels) if is_alias(labels) else labels


def refusal_of_change(
    verdict: str, change: AliasChange, *, current: str
) -> UnknownLabelSetError | AliasConflictError | InvalidMessageError:
    """Return the error for a change that the registry refuses.

    Args:
        verdict: ``unregistered``, ``missing``, ``full`` or ``conflict``, as the script returns it.
        current: Version that the alias names now; empty if there is no such alias.
    """
    if verdict == "unregistered":
        return UnknownLabelSetError(change.reference)
    if verdict == "missing":
        return UnknownLabelSetError(f"{change.alias}: there is no such alias")
    if verdict == "full":
        return InvalidMessageError(f"there are {MAX_ALIASES} aliases: remove some")
    names = f"it names {current}" if current else "there is no such alias"
    return AliasConflictError(f"{change.alias} is not what was expected: {names}")


def as_text(value: Any) -> str:
    """Return an answer of Redis as text, whether or not the connection decodes answers."""
    return value.decode() if isinstance(value, bytes) else str(value)


def as_texts(fields: Mapping[Any, Any]) -> dict[str, str]:
    """Return the fields of a hash or an entry as text."""
    return {as_text(name): as_text(value) for name, value in fields.items()}
