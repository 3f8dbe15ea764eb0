"""Named label sets in memory, with their versions and aliases."""

import json
import time
from collections.abc import Sequence
from dataclasses import replace

from labelyard.arguments import counted
from labelyard.drift.baselines import read_baseline
from labelyard.drift.canary import CanaryReport
from labelyard.drift.counts import AnswerCounts
from labelyard.errors import AliasConflictError, UnknownLabelSetError
from labelyard.label_sets import LabelSetRegistry, check_registration, label_set_digest
from labelyard.label_sets.aliases import AliasChange, refusal_of_change
from labelyard.label_sets.arguments import check_alias, checked_notes
from labelyard.label_sets.versions import Alias, AliasMove, LabelSetVersion
from labelyard.ledger.limits import MAX_ALIASES
from labelyard.messages import LabelSet


class FakeLabelSets(LabelSetRegistry):
    """Named label sets, in memory."""

    def __init__(self) -> None:
        self._sets: dict[str, LabelSet] = {}
        self._descriptions: dict[str, LabelSetVersion] = {}
        self._aliases: dict[str, Alias] = {}
        self._moves: list[tuple[str, AliasMove]] = []
        self._hours: dict[str, dict[int, AnswerCounts]] = {}
        self._baselines: dict[str, tuple[AnswerCounts, float]] = {}

    def register(
        self,
        name: str,
        label_set: LabelSet,
        *,
        parent: str | None = None,
        author: str = "",
        note: str = "",
    ) -> str:
        """Keep *label_set* under *name*, as its newest version."""
        check_registration(name, label_set)
        checked_notes(author, note)
        reference = f"{name}@{label_set_digest(label_set)}"
        self._sets.pop(reference, None)
        self._sets[reference] = label_set
        known = self._descriptions.get(reference)
        if known is None:
            known = LabelSetVersion(reference, created_at=time.time(), parent=parent)
        self._descriptions[reference] = replace(
            known, author=author or known.author, note=note or known.note
        )
        return reference

    def get(self, reference: str) -> LabelSet:
        """Read the label set that *reference* names."""
        if reference not in self._sets:
            raise UnknownLabelSetError(reference)
        return self._sets[reference]

    def delete(self, reference: str) -> None:
        """Delete the version that *reference* names, unless an alias names it."""
        self.get(reference)
        for alias in self._aliases.values():
            if reference in (alias.reference, alias.canary):
                raise AliasConflictError(
                    f"{alias.name} names {reference}: move or remove the alias first"
                )
        del self._sets[reference], self._descriptions[reference]

    def aliases(self) -> list[Alias]:
        """List all aliases, in alphabetical order."""
        return [self._aliases[name] for name in sorted(self._aliases)]

    def moves(self, alias: str, *, limit: int = 100) -> list[AliasMove]:
        """List the moves of *alias*, the newest first."""
        check_alias(alias)
        found = [move for name, move in reversed(self._moves) if name == alias]
        return found[: counted(limit)]

    def canary(self, alias: str) -> CanaryReport:
        """Return a comparison without pictures: a fake has no worker that compares."""
        known = self.alias(alias)
        if known.canary is None:
            raise UnknownLabelSetError(f"{alias} has no canary")
        return CanaryReport(alias, known.reference, known.canary, share=known.share)

    def count(self, labels: str, hour: int, counts: AnswerCounts) -> None:
        """Add to the answers of a version in an hour since the epoch, as workers would."""
        hours = self._hours.setdefault(self.resolve(labels), {})
        hours[hour] = hours.get(hour, AnswerCounts()) + counts

    def _change(self, change: AliasChange) -> Alias:
        """Change an alias as the registry's script does, and note the move."""
        known = self._aliases.get(change.alias)
        before = "" if known is None else known.reference
        if change.reference and change.reference not in self._sets:
            raise refusal_of_change("unregistered", change, current=before)
        if known is None and change.action != "move":
            raise refusal_of_change("missing", change, current=before)
        if change.expect and change.expect != (before or "-"):
            raise refusal_of_change("conflict", change, current=before)
        if known is None and len(self._aliases) >= MAX_ALIASES:
            raise refusal_of_change("full", change, current=before)
        now = time.time()
        notes = {"author": change.author, "note": change.note}
        move = AliasMove(now, change.action, change.reference, before, share=change.share, **notes)
        self._moves.append((change.alias, move))
        if change.action == "remove":
            del self._aliases[change.alias]
            return Alias(change.alias, before)
        is_canary = change.action == "canary"
        changed = Alias(
            name=change.alias,
            reference=change.reference if change.action == "move" else before,
            canary=change.reference if is_canary else None,
            share=change.share or 0.0,
            moved_at=now,
            moves=1 if known is None else known.moves + 1,
            **notes,
        )
        self._aliases[change.alias] = changed
        return changed

    def _find_alias(self, alias: str) -> Alias | None:
        return self._aliases.get(alias)

    def _write_metrics(self, version: str, metrics: str) -> None:
        self._descriptions[version] = replace(
            self._descriptions[version], metrics=json.loads(metrics)
        )

    def _versions(self, references: Sequence[str]) -> list[LabelSetVersion]:
        return [
            replace(
                self._descriptions[reference],
                aliases=tuple(one.name for one in self.aliases() if one.reference == reference),
            )
            for reference in references
        ]

    def _read_baseline(self, reference: str) -> tuple[AnswerCounts | None, float, float]:
        self.get(reference)
        return *self._baselines.get(reference, (None, 0.0)), time.time()

    def _write_baseline(self, reference: str, baseline: str) -> None:
        self._baselines[reference] = read_baseline(reference, baseline)

    def _read_hours(self, reference: str, first: int, last: int) -> dict[int, AnswerCounts]:
        hours = self._hours.get(reference, {})
        return {hour: counts for hour, counts in hours.items() if first <= hour <= last}

    def _references(self) -> list[str]:
        return list(self._sets)
