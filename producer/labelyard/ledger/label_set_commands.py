"""Calls of the scripts that keep label sets and move their aliases, built from named fields."""

from typing import TYPE_CHECKING, Any, Literal

from labelyard.ledger.commands import Command, new_call_id
from labelyard.ledger.keys import LedgerKeys
from labelyard.ledger.scripts import SCRIPTS

if TYPE_CHECKING:
    import redis

AliasAction = Literal["move", "canary", "end_canary", "remove"]


class LabelSetCommands:
    """Builds the calls for one namespace."""

    def __init__(self, keys: LedgerKeys) -> None:
        self._keys = keys

    def register(
        self, reference: str, stored: str, *, parent: str, author: str, note: str
    ) -> Command:
        """Keep a label set under a name."""
        keys = [
            self._keys.label_set(reference.partition("@")[2]),
            self._keys.label_set_names,
            self._keys.label_set_version(reference),
        ]
        return Command("register_label_set", keys, [stored, reference, parent, author, note])

    def delete(self, reference: str) -> Command:
        """Delete a version of a label set, unless an alias names it."""
        digest = reference.partition("@")[2]
        keys = [
            self._keys.label_set(digest),
            self._keys.label_set_names,
            self._keys.label_set_version(reference),
            self._keys.label_set_aliases,
        ]
        return Command("delete_label_set", keys, [reference, digest])

    def move_alias(
        self,
        action: AliasAction,
        alias: str,
        *,
        reference: str = "",
        share: float | None = None,
        expect: str = "",
        author: str = "",
        note: str = "",
    ) -> Command:
        """Move an alias, begin or end its canary, or remove it."""
        keys = [
            self._keys.label_set_aliases,
            self._keys.label_set_moves(alias),
            self._keys.label_set_names,
        ]
        written = "" if share is None else repr(share)
        return Command(
            "move_alias",
            keys,
            [action, alias, reference, written, expect, author, note, new_call_id()],
        )


def run_command(connection: "redis.Redis", command: Command) -> list[Any]:
    """Run a script on a connection that is not a ledger's, and return its answer."""
    script = connection.register_script(SCRIPTS[command.script])
    answer: list[Any] = script(keys=command.keys, args=command.args)
    return answer
