"""Named label sets in memory, with their versions and aliases."""

import json
import time
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from labelyard.arguments import counted
from labelyard.drift.baselines import KEPT_HOURS, baseline_json, checked_hours, read_baseline
from labelyard.drift.canary import CanaryReport
from labelyard.drift.counts import AnswerCounts
from labelyard.drift.report import WINDOW_S, DriftReport, judge_windows
from labelyard.errors import AliasConflictError, UnknownLabelSetError
from labelyard.label_sets import LabelSetRegistry, check_registration, label_set_digest
from labelyard.label_sets.arguments import check_alias, check_move, checked_notes, metrics_json
from labelyard.label_sets.versions import Alias, AliasMove, LabelSetVersion, MoveAction
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

    def names(self) -> list[str]:
        """List the registered names, in alphabetical order."""
        return sorted({reference.partition("@")[0] for reference in self._sets})

    def versions(self, name: str) -> list[str]:
        """List the references under *name*, the newest last."""
        return [reference for reference in self._sets if reference.partition("@")[0] == name]

    def log(self, name: str) -> list[LabelSetVersion]:
        """List the versions of the label set *name*, the newest first."""
        named = self.versions(name)
        if not named:
            raise UnknownLabelSetError(name)
        return [self._described(reference) for reference in reversed(named)]

    def attach(self, reference: str, metrics: Mapping[str, Any]) -> LabelSetVersion:
        """Attach figures of an evaluation to a version, in place of earlier ones."""
        figures = json.loads(metrics_json(metrics))
        version = self.resolve(reference)
        self.get(version)
        self._descriptions[version] = replace(self._descriptions[version], metrics=figures)
        return self._described(version)

    def alias(self, alias: str) -> Alias:
        """Read the alias *alias*."""
        check_alias(alias)
        if alias not in self._aliases:
            raise UnknownLabelSetError(f"{alias}: there is no such alias")
        return self._aliases[alias]

    def aliases(self) -> list[Alias]:
        """List all aliases, in alphabetical order."""
        return [self._aliases[name] for name in sorted(self._aliases)]

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
        """Move *alias* to a version of its label set, or begin a canary."""
        version = self.resolve(reference)
        share = check_move(version, alias, share=share)
        checked_notes(author, note)
        self.get(version)
        known = self._aliases.get(alias)
        if known is None and share is not None:
            raise UnknownLabelSetError(f"{alias}: there is no such alias")
        if expect is not None and expect != (known.reference if known else ""):
            raise AliasConflictError(f"{alias} is not what was expected")
        moved = Alias(alias, version) if share is None or known is None else known
        if share is not None:
            moved = replace(moved, canary=version, share=share)
        action: MoveAction = "move" if share is None else "canary"
        return self._moved(moved, action, version, author=author, note=note)

    def end_canary(self, alias: str, *, author: str = "", note: str = "") -> Alias:
        """End the canary of *alias*, if it has one."""
        ended = replace(self.alias(alias), canary=None, share=0.0)
        return self._moved(ended, "end_canary", "", author=author, note=note)

    def remove_alias(self, alias: str, *, author: str = "", note: str = "") -> None:
        """Remove *alias*; the record of its moves is kept."""
        self._moved(self.alias(alias), "remove", "", author=author, note=note)
        del self._aliases[alias]

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

    def drift(self, labels: str, *, hours: int = KEPT_HOURS) -> DriftReport:
        """Compare the answers that the test has counted with the baseline."""
        reference, this_hour = self.resolve(labels), int(time.time() // WINDOW_S)
        self.get(reference)
        first = this_hour - checked_hours(hours)
        baseline, made_at = self._baselines.get(reference, (None, 0.0))
        return judge_windows(
            reference,
            baseline,
            {at: one for at, one in self._hours.get(reference, {}).items() if at >= first},
            first_hour=int(made_at // WINDOW_S),
            this_hour=this_hour,
        )

    def set_baseline(self, labels: str, counts: AnswerCounts | None = None) -> DriftReport:
        """Set the answers that a version's drift is measured from."""
        reference = self.resolve(labels)
        self.get(reference)
        if counts is None:
            counts = sum(self._hours.get(reference, {}).values(), AnswerCounts())
        self._baselines[reference] = read_baseline(reference, baseline_json(counts))
        return self.drift(reference)

    def _moved(
        self, alias: Alias, action: MoveAction, reference: str, *, author: str, note: str
    ) -> Alias:
        """Note a move, and keep the alias as it is now."""
        checked_notes(author, note)
        known = self._aliases.get(alias.name)
        before, moves = ("", 0) if known is None else (known.reference, known.moves)
        share = alias.share if action == "canary" else None
        now = time.time()
        move = AliasMove(now, action, reference, before, share=share, author=author, note=note)
        self._moves.append((alias.name, move))
        self._aliases[alias.name] = replace(
            alias, moved_at=now, moves=moves + 1, author=author, note=note
        )
        return self._aliases[alias.name]

    def _described(self, reference: str) -> LabelSetVersion:
        named = tuple(one.name for one in self.aliases() if one.reference == reference)
        return replace(self._descriptions[reference], aliases=named)

    def _references(self) -> list[str]:
        return list(self._sets)
