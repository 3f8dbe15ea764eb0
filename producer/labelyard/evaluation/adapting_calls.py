"""The call ``adapt`` of both clients: a version of a label set for where it is used."""

import asyncio
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final

from labelyard.errors import InvalidMessageError
from labelyard.evaluation.adapting import AdaptedSet, PreparedAdapting, prepare_adapting
from labelyard.evaluation.manifest import Manifest
from labelyard.evaluation.version_calls import AsyncVersionCalls, VersionCalls
from labelyard.ledger.workers import WorkerInfo
from labelyard.local_paths import is_file
from labelyard.messages import LabelSet
from labelyard.queues import Queue, SubmitQueue
from labelyard.runs.client import Runs
from labelyard.submission import Labels

if TYPE_CHECKING:
    from labelyard.runs.async_client import AsyncRuns

#: An id, which has no ending and no folder.
RUN_ID: Final = re.compile(r"[A-Za-z0-9_-]{1,128}")


class AdaptingCalls(VersionCalls):
    """Call of :class:`labelyard.Client` that adapts a label set."""

    runs: Runs

    if TYPE_CHECKING:

        def workers(self) -> Sequence[WorkerInfo]: ...

    def adapt(
        self,
        labels: Labels,
        *,
        shares: Mapping[str, float] | str | Path | None = None,
        sample: "Manifest | None" = None,
        name: str | None = None,
        split: str | None = None,
        queue: SubmitQueue = Queue.BULK,
        timeout_s: float = 3600.0,
    ) -> AdaptedSet:
        """Give each label a bias for where the set is used, and register the new version.

        Args:
            labels: Names, ``Label`` objects, a ``LabelSet``, or ``name@sha256:…``.
            shares: Expected share of each label, or a JSON file with them. With a sample its mean
                scores become these; without one they act by Bayes' rule.
            sample: Pictures as they come in use: a manifest as for ``evaluate`` whose lines need no
                label, or a run by its id or the prefix of its files, of which 1,000 are taken. Without shares each label's mean logit is taken away. If lines have a
                label, the new version is refused unless at least as many of them are right.
            name: Name to register the new version under; the reference's own if there is one.
            split: Lines of the sample to take; without one ``calibration`` if a line has it.
            queue: Queue of the jobs.
            timeout_s: Most seconds to wait for all jobs.

        Returns:
            The new version with its reference.

        Raises:
            InvalidMessageError: A share, a line or the set is wrong, or a picture cannot be read.
            LabelSetWorseError: Fewer of the sample's labelled pictures would be right.
            LabelyardError: As for ``evaluate``.
        """
        call = self._begin(labels, name=name, queue=queue, timeout_s=timeout_s)
        if (run := run_in(sample)) is not None:
            sample = as_lines(self.runs.pictures(run))
        prepared = prepare_adapting(
            call.chosen.label_set,
            shares=shares,
            sample=sample,
            reference=call.chosen.reference,
            split=split,
        )
        if prepared.images:
            found = prepared.adapt(self._score(prepared, queue=call.queue, watch=call.watch))
        else:
            found = prepared.adapt_blindly(fingerprint_for(call.chosen.label_set, self.workers()))
        return self._register(call, found)


class AsyncAdaptingCalls(AsyncVersionCalls):
    """Call of :class:`labelyard.AsyncClient` that adapts a label set."""

    runs: "AsyncRuns"

    if TYPE_CHECKING:

        async def workers(self) -> Sequence[WorkerInfo]: ...

    async def adapt(
        self,
        labels: Labels,
        *,
        shares: Mapping[str, float] | str | Path | None = None,
        sample: "Manifest | None" = None,
        name: str | None = None,
        split: str | None = None,
        queue: SubmitQueue = Queue.BULK,
        timeout_s: float = 3600.0,
    ) -> AdaptedSet:
        """Give each label a bias for where the set is used, and register the new version."""
        call = await self._begin(labels, name=name, queue=queue, timeout_s=timeout_s)
        if (run := run_in(sample)) is not None:
            sample = as_lines(await self.runs.pictures(run))
        prepared: PreparedAdapting = await asyncio.to_thread(
            prepare_adapting,
            call.chosen.label_set,
            shares=shares,
            sample=sample,
            reference=call.chosen.reference,
            split=split,
        )
        if prepared.images:
            scoring = await self._score(prepared, queue=call.queue, watch=call.watch)
            found = await asyncio.to_thread(prepared.adapt, scoring)
        else:
            found = prepared.adapt_blindly(
                fingerprint_for(call.chosen.label_set, await self.workers())
            )
        return await self._register(call, found)


def run_in(sample: "Manifest | None") -> str | None:
    """Return the run that a sample names: the prefix of its files, or what is no file's path."""
    if not isinstance(sample, str | Path):
        return None
    name = str(sample)
    is_prefix = name.startswith("s3:/")
    is_id = RUN_ID.fullmatch(name) is not None and not is_file(name)
    return name if is_prefix or is_id else None


def as_lines(pictures: Sequence[str]) -> list[dict[str, str]]:
    """Return the lines of a sample without labels."""
    return [{"image": uri} for uri in pictures]


def fingerprint_for(label_set: LabelSet, workers: Sequence[WorkerInfo]) -> str:
    """Return the fingerprint of the checkpoint that a set is for: its own, or that of the workers.

    Raises:
        InvalidMessageError: There is none, or there are several.
    """
    if label_set.learned is not None:
        return label_set.learned.checkpoint
    found = {worker.fingerprint for worker in workers if worker.fingerprint}
    if len(found) != 1:
        raise InvalidMessageError(
            f"the workers serve {len(found)} checkpoints, and a bias belongs to one: give a sample"
        )
    return found.pop()
