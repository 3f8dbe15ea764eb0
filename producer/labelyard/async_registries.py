"""Label sets and dead letters for asyncio: the calls of both run in threads."""

import asyncio

from labelyard.dead_letters import DeadLetters
from labelyard.label_sets import LabelSetRegistry
from labelyard.ledger import Record
from labelyard.messages import LabelSet


class AsyncLabelSetRegistry:
    """Named label sets; see :class:`labelyard.label_sets.LabelSetRegistry`."""

    def __init__(self, registry: LabelSetRegistry) -> None:
        self._registry = registry

    async def register(self, name: str, label_set: LabelSet) -> str:
        """Keep *label_set* under *name*, and return the reference to put into jobs."""
        return await asyncio.to_thread(self._registry.register, name, label_set)

    async def get(self, reference: str) -> LabelSet:
        """Read the label set that *reference* names."""
        return await asyncio.to_thread(self._registry.get, reference)

    async def names(self) -> list[str]:
        """List the registered names, in alphabetical order."""
        return await asyncio.to_thread(self._registry.names)

    async def versions(self, name: str) -> list[str]:
        """List the references under *name*, the newest last."""
        return await asyncio.to_thread(self._registry.versions, name)


class AsyncDeadLetters:
    """Jobs that killed or hung their workers; see :class:`labelyard.dead_letters.DeadLetters`."""

    def __init__(self, letters: DeadLetters) -> None:
        self._letters = letters

    async def ids(self, *, limit: int = 1000) -> list[str]:
        """List the ids, those that died first at the front."""
        return await asyncio.to_thread(self._letters.ids, limit=limit)

    async def records(self, *, limit: int = 1000) -> list[Record]:
        """Read the records, those that died first at the front."""
        return await asyncio.to_thread(self._letters.records, limit=limit)

    async def replay(self, job_id: str) -> None:
        """Run a dead letter again, under its old id, as if it had never run."""
        await asyncio.to_thread(self._letters.replay, job_id)

    async def purge(self, job_id: str) -> None:
        """Drop a dead letter for good; its failed result stays readable for its TTL."""
        await asyncio.to_thread(self._letters.purge, job_id)
