"""Registry of named label sets: each version is kept under the digest of its content."""

import threading
from collections import OrderedDict
from typing import Any

import redis
from pydantic import ValidationError

from labelyard.arguments import text, writing
from labelyard.errors import AliasConflictError, InvalidMessageError, UnknownLabelSetError
from labelyard.forking import call_in_child
from labelyard.label_sets.answers import AnswerRegistry
from labelyard.label_sets.arguments import (
    check_registration,
    checked_notes,
    checked_reference,
)
from labelyard.label_sets.diff import LabelSetDiff, compare_label_sets
from labelyard.label_sets.digest import label_set_bytes, label_set_digest
from labelyard.ledger.redis_errors import ledger_errors_as_ours
from labelyard.messages import LabelSet, refusal_of

CACHED_BYTES = 32 * 1024 * 1024


class LabelSetRegistry(AnswerRegistry):
    """Named label sets, kept in the ledger's Redis until somebody deletes them.

    A reference names one version for ever, ``moderation@sha256:…``: registering other
    labels under the same name makes another version, and jobs that refer to the
    first go on to mean the first. An alias, ``moderation@prod``, can be moved to another version.
    """

    def __init__(self, connection: "redis.Redis", *, namespace: str) -> None:
        """Use the ledger's connection and namespace."""
        super().__init__(connection, namespace=namespace)
        self._lock = threading.Lock()
        self._cached: OrderedDict[str, tuple[LabelSet, int]] = OrderedDict()
        self._cached_bytes = 0
        call_in_child(self._renew)

    def _renew(self) -> None:
        """Replace the lock in a forked child: a thread of the parent may hold the old one."""
        self._lock = threading.Lock()

    def register(
        self,
        name: str,
        label_set: LabelSet,
        *,
        parent: str | None = None,
        author: str = "",
        note: str = "",
    ) -> str:
        """Keep *label_set* under *name*, as its newest version.

        Args:
            name: Lower-case letters, digits, ``.``, ``_`` and ``-``; up to 64.
            label_set: Up to 10,000 labels, and up to 100,000 prompts after templates.
            parent: Reference of the version that it was made from, for :meth:`log`.
            author: Who registers it; up to 100 characters.
            note: Why; up to 1,000 characters.

        Returns:
            The reference to put into jobs, ``name@sha256:…``.

        Raises:
            InvalidMessageError: The name is not allowed, or the set makes too many prompts.
            LedgerUnavailableError: Redis gave no answer; nothing was registered.
        """
        check_registration(name, label_set)
        notes = checked_notes(author, note)
        with writing("label_set"):
            digest = label_set_digest(label_set)
            stored = label_set.model_dump_json(exclude_defaults=True)
        reference = f"{name}@{digest}"
        made_from = "" if parent is None else checked_reference(parent)
        self._run(self._commands.register(reference, stored, parent=made_from, **notes))
        return reference

    def get(self, reference: str) -> LabelSet:
        """Read the label set that *reference* names; 32 MiB of the last ones stay in memory.

        Raises:
            UnknownLabelSetError: No label set with this digest is registered, or another one
                is stored under it.
            InvalidMessageError: It was registered under a contract that allowed more.
            LedgerUnavailableError: Redis gave no answer.
        """
        if (cached := self._from_cache(text(reference, name="reference"))) is not None:
            return cached
        digest = checked_reference(reference).partition("@")[2]
        with ledger_errors_as_ours():
            stored: Any = self._redis.get(self._keys.label_set(digest))
        if stored is None:
            raise UnknownLabelSetError(reference)
        try:
            label_set = LabelSet.model_validate_json(stored)
        except ValidationError as error:
            raise InvalidMessageError(
                f"{reference} cannot be used any more, register it again: {refusal_of(error).args[0]}"
            ) from error
        if label_set_digest(label_set) != digest:
            raise UnknownLabelSetError(f"{reference}: another set is stored: register it again")
        self._cache(reference, label_set)
        return label_set

    def delete(self, reference: str) -> None:
        """Delete the version that *reference* names.

        Jobs that still refer to it fail with ``unknown_label_set``, except in a worker that
        has the set in memory. Labels that another name refers to, too, are kept.

        Raises:
            UnknownLabelSetError: No label set is registered under *reference*.
            AliasConflictError: An alias names it, or has it as its canary.
            LedgerUnavailableError: Redis gave no answer; the set may have been deleted.
        """
        verdict, *aliases = self._run(self._commands.delete(text(reference, name="reference")))
        if verdict == "missing":
            raise UnknownLabelSetError(reference)
        if verdict == "in_use":
            raise AliasConflictError(
                f"{aliases[0]} names {reference}: move or remove the alias first"
            )
        self._drop_cached(reference)

    def names(self) -> list[str]:
        """List the names of registered label sets, in alphabetical order."""
        return sorted({reference.partition("@")[0] for reference in self._references()})

    def versions(self, name: str) -> list[str]:
        """List the references under *name*, the newest last."""
        text(name, name="name")
        return [ref for ref in self._references() if ref.partition("@")[0] == name]

    def diff(self, first: str, second: str) -> LabelSetDiff:
        """Return the differences between two versions.

        Args:
            first: A version, as :meth:`resolve` takes it.
            second: Another version, or one of another label set.

        Raises:
            UnknownLabelSetError: One of them is not registered.
        """
        return compare_label_sets(self.get(self.resolve(first)), self.get(self.resolve(second)))

    def _from_cache(self, reference: str) -> LabelSet | None:
        with self._lock:
            if reference not in self._cached:
                return None
            self._cached.move_to_end(reference)
            return self._cached[reference][0]

    def _drop_cached(self, reference: str) -> None:
        with self._lock:
            _, freed_bytes = self._cached.pop(reference, (None, 0))
            self._cached_bytes -= freed_bytes

    def _cache(self, reference: str, label_set: LabelSet) -> None:
        size_bytes = label_set_bytes(label_set)
        with self._lock:
            _, before_bytes = self._cached.pop(reference, (None, 0))
            self._cached[reference] = (label_set, size_bytes)
            self._cached_bytes += size_bytes - before_bytes
            while self._cached_bytes > CACHED_BYTES:
                _, (_, freed_bytes) = self._cached.popitem(last=False)
                self._cached_bytes -= freed_bytes
