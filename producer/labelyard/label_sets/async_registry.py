"""Registry of label sets, their versions and aliases, for asyncio: calls run in threads."""

import asyncio
from collections.abc import Mapping
from typing import Any

from labelyard.drift.baselines import KEPT_HOURS
from labelyard.drift.canary import CanaryReport
from labelyard.drift.counts import AnswerCounts
from labelyard.drift.report import DriftReport
from labelyard.label_sets import LabelSetRegistry
from labelyard.label_sets.diff import LabelSetDiff
from labelyard.label_sets.versions import Alias, AliasMove, LabelSetVersion
from labelyard.messages import LabelSet


class AsyncLabelSetRegistry:
    """Named label sets; see :class:`labelyard.label_sets.LabelSetRegistry`."""

    def __init__(self, registry: LabelSetRegistry) -> None:
        self._registry = registry

    async def register(
        self,
        name: str,
        label_set: LabelSet,
        *,
        parent: str | None = None,
        author: str = "",
        note: str = "",
    ) -> str:
        """Keep *label_set* under *name*, and return the reference to put into jobs."""
        return await asyncio.to_thread(
            self._registry.register, name, label_set, parent=parent, author=author, note=note
        )

    async def get(self, reference: str) -> LabelSet:
        """Read the label set that *reference* names."""
        return await asyncio.to_thread(self._registry.get, reference)

    async def delete(self, reference: str) -> None:
        """Delete the version that *reference* names."""
        await asyncio.to_thread(self._registry.delete, reference)

    async def names(self) -> list[str]:
        """List the registered names, in alphabetical order."""
        return await asyncio.to_thread(self._registry.names)

    async def versions(self, name: str) -> list[str]:
        """List the references under *name*, the newest last."""
        return await asyncio.to_thread(self._registry.versions, name)

    async def diff(self, first: str, second: str) -> LabelSetDiff:
        """Return the differences between two versions."""
        return await asyncio.to_thread(self._registry.diff, first, second)

    async def log(self, name: str) -> list[LabelSetVersion]:
        """List the versions of the label set *name*, the newest first."""
        return await asyncio.to_thread(self._registry.log, name)

    async def attach(self, reference: str, metrics: Mapping[str, Any]) -> LabelSetVersion:
        """Attach figures of an evaluation to a version, in place of earlier ones."""
        return await asyncio.to_thread(self._registry.attach, reference, metrics)

    async def resolve(self, labels: str) -> str:
        """Return the reference of the version that *labels* names."""
        return await asyncio.to_thread(self._registry.resolve, labels)

    async def alias(self, alias: str) -> Alias:
        """Read the alias *alias*, to put it in place of the labels of jobs."""
        return await asyncio.to_thread(self._registry.alias, alias)

    async def aliases(self) -> list[Alias]:
        """List all aliases, in alphabetical order."""
        return await asyncio.to_thread(self._registry.aliases)

    async def promote(
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
        return await asyncio.to_thread(
            self._registry.promote,
            reference,
            alias,
            share=share,
            expect=expect,
            author=author,
            note=note,
        )

    async def end_canary(self, alias: str, *, author: str = "", note: str = "") -> Alias:
        """End the canary of *alias*, if it has one."""
        return await asyncio.to_thread(self._registry.end_canary, alias, author=author, note=note)

    async def remove_alias(self, alias: str, *, author: str = "", note: str = "") -> None:
        """Remove *alias*; the record of its moves is kept."""
        await asyncio.to_thread(self._registry.remove_alias, alias, author=author, note=note)

    async def moves(self, alias: str, *, limit: int = 100) -> list[AliasMove]:
        """List the moves of *alias*, the newest first."""
        return await asyncio.to_thread(self._registry.moves, alias, limit=limit)

    async def canary(self, alias: str) -> CanaryReport:
        """Compare the version of *alias* with its canary, the present one or else the last one."""
        return await asyncio.to_thread(self._registry.canary, alias)

    async def drift(self, labels: str, *, hours: int = KEPT_HOURS) -> DriftReport:
        """Compare the answers of a version with its baseline, hour by hour."""
        return await asyncio.to_thread(self._registry.drift, labels, hours=hours)

    async def set_baseline(self, labels: str, counts: AnswerCounts | None = None) -> DriftReport:
        """Set the answers that a version's drift is measured from."""
        return await asyncio.to_thread(self._registry.set_baseline, labels, counts)
